"""The optimiser's parts equal Optax' own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rmbg_jax.training import optimizers


def _make_tree() -> dict[str, jax.Array]:
  """Returns arrays that are joined for the norm, and one that is not."""
  keys = jax.random.split(jax.random.key(0), 3)
  return {
    'kernel': jax.random.normal(keys[0], (3, 3, 50, 20)),
    'scale': jax.random.normal(keys[1], (20,)),
    'scalar': jax.random.normal(keys[2], ()),
  }


@pytest.mark.parametrize('left_out', ['none', 'kernel', 'scale', 'all'])
def test_the_norm_is_that_of_all_arrays(left_out):
  tree = _make_tree()
  if left_out == 'all':
    tree = {}
  tree.pop(left_out, None)
  expected = np.sqrt(sum(float(jnp.sum(x**2)) for x in tree.values()))
  found = jax.jit(optimizers.compute_norm)(tree)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize('scale', [0.0, 1e-3, 10.0])
def test_gradients_are_clipped_as_by_optax(scale):
  """Below the largest norm, above it, and where all are 0."""
  grads = jax.tree.map(lambda x: scale * x, _make_tree())
  optimizer = optimizers.make_optimizer(
    weight_decay=0.0, clip_norm=1.0, encoder_rate=1.0
  )
  plain = optimizers.make_optimizer(
    weight_decay=0.0, clip_norm=0.0, encoder_rate=1.0
  )
  clipped, _ = optax.clip_by_global_norm(1.0).update(grads, optax.EmptyState())

  def update(optimizer, grads):
    state = optimizer.init(grads)
    return optimizer.update(grads, state, grads, learning_rate=0.1)

  found, expected = update(optimizer, grads), update(plain, clipped)
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-9),
    found,
    expected,
  )
