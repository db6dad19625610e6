"""Exported ONNX files in OpenVINO, Intel's runtime."""

import numpy as np
import pytest

from rmbg_jax import export
from scripts.benchmarks import export as benchmark
from tests.export import test_export

pytest.importorskip('openvino')


@pytest.mark.parametrize('name', test_export.NETWORKS)
def test_gives_the_same_alpha(tmp_path, name):
  loaded, photos, probs = test_export._make_network(name)
  path = tmp_path / 'network.onnx'
  export.save_export(path, loaded)
  predict = benchmark.make_openvino_call(path)
  np.testing.assert_allclose(predict(photos), probs[..., -1], atol=1e-4)
  # Batches of any size, with one compiled program.
  np.testing.assert_allclose(predict(photos[:1]), probs[:1, ..., -1], atol=1e-4)
