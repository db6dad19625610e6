"""The PyTorch side of `scripts/benchmark_train.py` is the same network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmbg_jax import models, state
from rmbg_jax.export import graph
from tests.test_models import TINY


@pytest.mark.parametrize('dialect', ['keras', 'torchvision'])
def test_outputs_and_statistics_equal_those_of_flax(dialect):
  torch = pytest.importorskip('torch', reason='PyTorch is not installed')
  from tests import torch_reference

  encoder = {**TINY['encoder'], 'dialect': dialect}
  model = models.create_model({**TINY, 'encoder': encoder})
  variables = jax.device_get(
    state.create_variables(model, seed=0, size=(64, 64))
  )
  network = torch_reference.Network(
    graph.Graph(model, size=(32, 48)), variables
  )
  images = np.random.default_rng(0).normal(size=(3, 32, 48, 3))
  images = images.astype(np.float32)
  expected, updates = model.apply(
    variables, jnp.asarray(images), train=True, mutable=['batch_stats']
  )
  actual = network(torch.tensor(images.transpose(0, 3, 1, 2)))
  for ours, theirs in zip(expected, actual, strict=True):
    theirs = theirs.detach().numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(theirs, ours, atol=2e-4)
  ours = updates['batch_stats']['decoder1']['residual']['bn1']['mean']
  theirs = network.layers['decoder1_residual_conv1'][1].running_mean
  np.testing.assert_allclose(theirs, ours, atol=1e-5)
