"""The network by a walk of its own, in NumPy and, where it is, in PyTorch.

PyTorch's is the one that `scripts/benchmarks/train.py` times.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmbg_jax import models
from rmbg_jax.models import graph
from rmbg_jax.training import state
from tests.models.test_models import TINY
from tests.support import numpy_reference

SIZE = (32, 48)


@pytest.fixture(scope='module', params=['keras', 'torchvision'])
def network(request):
  """(model, variables that no initialisation hides, graph, images)."""
  encoder = {**TINY['encoder'], 'dialect': request.param}
  model = models.create_model({**TINY, 'encoder': encoder})
  variables = jax.device_get(state.create_variables(model, seed=0))
  rng = np.random.default_rng(0)
  # Scales of 1 and biases of 0 would look the same wherever they are.
  variables['params'] = jax.tree.map(
    lambda value: (
      value * rng.uniform(0.5, 1.5, value.shape).astype('f4')
      + (value.ndim == 1) * rng.normal(0, 0.1, value.shape).astype('f4')
    ),
    variables['params'],
  )
  images = rng.normal(size=(3, *SIZE, 3)).astype(np.float32)
  return model, variables, graph.Graph(model.network, size=SIZE), images


def _train(model, variables, images):
  """Outputs and batch statistics of Flax, as in training."""
  compute = functools.partial(model.apply, train=True, mutable=['batch_stats'])
  return jax.jit(compute)(variables, jnp.asarray(images))


def test_outputs_and_statistics_of_flax_equal_numpys(network):
  model, variables, walk, images = network
  expected, means = numpy_reference.compute_outputs(walk, variables, images)
  actual, updates = _train(model, variables, images)
  for ours, theirs in zip(actual, expected, strict=True):
    assert theirs.std() > 0.01, 'the reference says nothing'
    np.testing.assert_allclose(ours, theirs, atol=2e-4)
  assert len(means) > 20
  for name, mean in means.items():
    *path, norm = name.split('/')
    stats, old = updates['batch_stats'], variables['batch_stats']
    for part in (*path, norm):
      stats, old = stats[part], old[part]
    kept = 0.99  # The momentum.
    np.testing.assert_allclose(
      stats['mean'], kept * old['mean'] + (1 - kept) * mean, atol=1e-5
    )


def test_pytorchs_outputs_equal_numpys(network):
  torch = pytest.importorskip('torch', reason='PyTorch is not installed')
  from scripts.references import torch_network

  _, variables, walk, images = network
  expected, means = numpy_reference.compute_outputs(walk, variables, images)
  other = torch_network.Network(walk, variables)
  actual = other(torch.tensor(images.transpose(0, 3, 1, 2)))
  for ours, theirs in zip(actual, expected, strict=True):
    ours = ours.detach().numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(ours, theirs, atol=2e-4)
  np.testing.assert_allclose(
    other.layers['decoder1_residual_conv1'][1].running_mean,
    0.01 * means['decoder1/residual/bn1'],
    atol=1e-5,
  )
