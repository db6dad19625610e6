"""OpenVINO and JAX compute the same masks, and OpenVINO alone starts no JAX."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from rmbg_jax import models
from rmbg_jax.inference import remover as remover_lib
from rmbg_jax.inference import runtimes
from rmbg_jax.models import preprocessing as preprocessing_lib
from rmbg_jax.training import state
from rmbg_jax.weights import load

UNET = {
  'name': 'unet',
  'encoder': {'stage_sizes': (1, 2, 1), 'width': 8},
  'bridge': {'filters': 16, 'rates': (1, 2)},
  'decoder': {'filters': (24, 16, 8, 8)},
}
TORCH = {**UNET, 'encoder': {**UNET['encoder'], 'dialect': 'torchvision'}}
LITE = {
  **UNET,
  'encoder': {'name': 'efficientnet_lite0'},
  'decoder': {'filters': (24, 16, 8, 8)},
}
U2NET = {
  'name': 'u2net',
  'encoder': {'mid': (4,) * 6, 'filters': (8,) * 6},
  'decoder': {'mid': (4,) * 5, 'filters': (8,) * 5},
}


def _make_loaded(rng, architecture, *, size=(64, 96), normalization='original'):
  model = models.create_model(architecture)
  variables = jax.device_get(state.create_variables(model, seed=0))
  # As after a training: no statistic is 0 or 1.
  variables['batch_stats'] = jax.tree.map(
    lambda x: x + rng.uniform(0.1, 0.5, x.shape).astype(x.dtype),
    variables['batch_stats'],
  )
  loaded = load.LoadedModel(
    network=model.network,
    variables=variables,
    preprocessing=preprocessing_lib.make_preprocessing(
      normalization, size=size
    ),
    description={'architecture': architecture},
  )
  # Logits about as large as a trained network's near an edge.
  inputs = loaded.preprocessing.normalize(_make_photos(rng, size=size))
  logits = np.asarray(jax.jit(model.apply)(variables, inputs)[-1])
  head = list(variables['params'])[-1]
  layer = variables['params'][head]
  layer = layer.get('conv', layer)
  layer['kernel'] = layer['kernel'] / logits.std()
  layer['bias'] = layer['bias'] - logits.mean() / logits.std()
  return loaded


def _predict(loaded, photos, **options):
  remover = remover_lib.BackgroundRemover(loaded, batch_size=2, **options)
  return remover.predict(photos)


def _make_photos(rng, count=2, size=(64, 96)):
  return rng.integers(0, 256, (count, *size, 3), dtype=np.uint8)


@pytest.mark.parametrize(
  ('architecture', 'normalization', 'size'),
  [
    (UNET, 'keras', (64, 96)),
    (TORCH, 'torchvision', (80, 48)),
    (LITE, 'efficientnet', (64, 96)),
    (U2NET, 'u2net', (80, 112)),  # Odd sizes inside: 5 rows become 3.
  ],
)
def test_equal_masks(rng, architecture, normalization, size):
  loaded = _make_loaded(
    rng, architecture, size=size, normalization=normalization
  )
  photos = _make_photos(rng, size=size)
  expected = _predict(loaded, photos, runtime='jax')
  assert expected.std() > 0.1
  for threads in (1, 2):
    found = _predict(
      loaded, photos, runtime='openvino', precision='float32', threads=threads
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_equal_masks_of_several_views_and_networks(rng):
  loaded = _make_loaded(rng, UNET, size=(64, 64))
  partner = _make_loaded(rng, LITE, size=(64, 64), normalization='efficientnet')
  loaded = load.dataclasses.replace(loaded, partners=(partner,))
  options = {'scales': (1.0, 1.5), 'flip': True, 'temperature': 0.5}
  photos = _make_photos(rng, size=(96, 96))
  expected = _predict(loaded, photos, runtime='jax', **options)
  found = _predict(
    loaded, photos, runtime='openvino', precision='float32', **options
  )
  assert expected.std() > 0.1
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_batch_gives_what_its_photos_give_alone(rng):
  loaded = _make_loaded(rng, UNET)
  remover = remover_lib.BackgroundRemover(
    loaded, batch_size=3, runtime='openvino', precision='float32', threads=2
  )
  photos = _make_photos(rng, count=3)
  together = remover.predict(photos)
  alone = [remover.predict(photos[i : i + 1])[0] for i in range(3)]
  np.testing.assert_array_equal(together, np.stack(alone))


@pytest.mark.parametrize('runtime', ['jax', 'openvino'])
def test_weights_that_are_no_numbers_are_refused(rng, runtime):
  loaded = _make_loaded(rng, UNET)
  loaded.variables['params']['head4']['conv']['bias'][:] = np.nan
  with pytest.raises(ValueError, match=r'head4/conv/bias are not numbers'):
    _predict(loaded, _make_photos(rng), runtime=runtime)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'runtime': 'onnx'}, "runtime='onnx': choose one of auto, jax, openvino"),
    ({'precision': 'int8'}, "precision='int8': choose one of auto, float32"),
    ({'threads': -1}, 'threads=-1: pass 0 or more'),
    ({'temperature': 0.0}, 'temperature=0.0: pass a number above 0'),
  ],
)
def test_wrong_choices_are_refused(rng, options, message):
  with pytest.raises(ValueError, match=message):
    _predict(_make_loaded(rng, UNET), _make_photos(rng), **options)


def test_a_temperature_below_1_makes_masks_surer(rng):
  loaded = _make_loaded(rng, UNET)
  photos = _make_photos(rng)
  plain = _predict(loaded, photos)
  surer = _predict(loaded, photos, temperature=0.5)
  asked = load.dataclasses.replace(
    loaded,
    description={**loaded.description, 'prediction': {'temperature': 0.5}},
  )
  assert (np.abs(surer - 0.5) >= np.abs(plain - 0.5)).all()
  np.testing.assert_array_equal(_predict(asked, photos), surer)
  np.testing.assert_array_equal(_predict(asked, photos, temperature=1.0), plain)


def test_bfloat16_is_near_float32(rng):
  loaded = _make_loaded(rng, UNET)
  photos = _make_photos(rng)
  exact, fast = (
    remover_lib.BackgroundRemover(
      loaded, batch_size=2, runtime='openvino', precision=precision
    )
    for precision in ('float32', 'bfloat16')
  )
  assert exact.runtime == 'openvino, float32'
  difference = np.abs(fast.predict(photos) - exact.predict(photos)).mean()
  assert difference < 0.01
  # It says what it does on processors that cannot compute in bfloat16.
  assert (fast.runtime == 'openvino, bfloat16') == (difference > 0)


def test_openvino_is_for_cpus(monkeypatch):
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  assert runtimes.choose_runtime() == 'openvino'


_SCRIPT = """
import json, sys
import numpy as np
from rmbg_jax import BackgroundRemover
before = dict(__import__('os').environ), __import__('logging').root.handlers[:]
remover = BackgroundRemover.from_checkpoint(sys.argv[1], runtime='openvino')
rgba = remover.remove(np.full((40, 60, 3), 128, np.uint8))
after = dict(__import__('os').environ), __import__('logging').root.handlers[:]
print(json.dumps({
  'shape': rgba.shape,
  'foreign': sorted({'jax', 'flax', 'orbax', 'tensorflow'} & set(sys.modules)),
  'untouched': before == after,
}))
"""


@pytest.mark.parametrize('checkpoint', ['small', 'released'])
def test_no_jax_where_openvino_runs(checkpoint):
  result = subprocess.run(
    [sys.executable, '-c', _SCRIPT, checkpoint],
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert not result.returncode, result.stderr
  assert json.loads(result.stdout) == {
    'shape': [40, 60, 4],
    'foreign': [],
    'untouched': True,
  }
