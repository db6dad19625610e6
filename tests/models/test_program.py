"""The network of prediction gives what the Flax module gives."""

import jax
import jax.extend.core
import numpy as np
import pytest

from rmbg_jax import models
from rmbg_jax.models import program as program_lib
from rmbg_jax.training import state

UNET = {
  'name': 'unet',
  'encoder': {'stage_sizes': (1, 1, 1), 'width': 8},
  'bridge': {'filters': 64, 'rates': (1, 2)},
  'decoder': {'filters': (64, 64, 8, 8)},
}
U2NET = {
  'name': 'u2net',
  'encoder_mid': (4,) * 6,
  'encoder_filters': (64,) * 6,
  'decoder_mid': (4,) * 5,
  'decoder_filters': (64,) * 5,
}
LITE = {
  **UNET,
  'encoder': {'name': 'efficientnet_lite0'},
  'decoder': {'filters': (64, 64, 8, 8, 4)},
}


@pytest.mark.parametrize('architecture', [UNET, LITE, U2NET])
@pytest.mark.parametrize('platform', ['cpu', 'other'])
def test_equals_the_flax_module(rng, architecture, platform):
  size = (64, 96)
  model = models.create_model(architecture)
  variables = jax.device_get(state.create_variables(model, seed=0, size=size))
  # As after a training: no statistic is 0 or 1.
  variables['batch_stats'] = jax.tree.map(
    lambda x: x + rng.uniform(0.1, 0.5, x.shape).astype(x.dtype),
    variables['batch_stats'],
  )
  images = rng.uniform(-1, 1, (2, *size, 3)).astype(np.float32)
  program = program_lib.Program(model, variables, size=size, platform=platform)
  expected = jax.jit(lambda v, x: jax.nn.sigmoid(model.apply(v, x)[-1]))(
    variables, images
  )
  found = jax.jit(lambda w, x: jax.nn.sigmoid(program.compute_logits(w, x)))(
    program.weights, images
  )
  assert np.asarray(expected).std() > 1e-3
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_kernels_are_transformed_once():
  """Not in the program: the weights that it takes are ready."""
  model = models.create_model(UNET)
  variables = jax.device_get(
    state.create_variables(model, seed=0, size=(64, 64))
  )
  program = program_lib.Program(model, variables, size=(64, 64), platform='cpu')
  images = np.zeros((1, 64, 64, 3), np.float32)
  jaxpr = jax.make_jaxpr(program.compute_logits)(program.weights, images).jaxpr
  leaves = jax.tree_util.tree_leaves_with_path((program.weights, images))
  matrices = {
    argument
    for (_, leaf), argument in zip(leaves, jaxpr.invars, strict=True)
    if leaf.ndim == 3
  }
  readers = [
    equation.primitive.name
    for equation in jaxpr.eqns
    if matrices.intersection(
      v for v in equation.invars if not isinstance(v, jax.extend.core.Literal)
    )
  ]
  assert len(readers) == len(matrices) > 0
  assert set(readers) == {'dot_general'}
