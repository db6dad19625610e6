"""Losses against naive twins, and at the edges."""

import jax.numpy as jnp
import numpy as np
import pytest

from rmbg_jax import losses


def _pair(rng):
  logits = rng.normal(0, 3, (3, 4, 5, 1)).astype(np.float32)
  alpha = rng.uniform(0, 1, (3, 4, 5, 1)).astype(np.float32)
  return logits, alpha


def _naive_bce(logits, alpha):
  total = 0.0
  for x, a in zip(logits.ravel(), alpha.ravel(), strict=True):
    p = 1 / (1 + np.exp(-np.float64(x)))
    total -= a * np.log(p) + (1 - a) * np.log(1 - p)
  return total / logits.size


def _naive_iou(logits, alpha):
  inter = union = 0.0
  for x, a in zip(logits.ravel(), alpha.ravel(), strict=True):
    p = 1 / (1 + np.exp(-np.float64(x)))
    inter += p * a
    union += p + a - p * a
  return 1 - (inter + 1) / (union + 1)


@pytest.mark.parametrize(
  ('name', 'naive'), [('bce', _naive_bce), ('iou', _naive_iou)]
)
def test_equals_its_naive_twin(name, naive, rng):
  logits, alpha = _pair(rng)
  actual = losses.LOSSES[name](jnp.asarray(logits), jnp.asarray(alpha))
  expected = [naive(x, a) for x, a in zip(logits, alpha, strict=True)]
  np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize('name', sorted(losses.LOSSES))
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('truth', [0.0, 1.0])
def test_is_finite_at_extreme_logits(name, dtype, truth):
  logits = jnp.array([1e4, -1e4, 0.0], dtype).reshape(1, 3, 1, 1)
  loss = losses.LOSSES[name](logits, jnp.full((1, 3, 1, 1), truth))
  assert np.isfinite(loss).all()


def test_outputs_are_averaged_and_losses_weighted(rng):
  logits, alpha = map(jnp.asarray, _pair(rng))
  outputs = (logits, 2 * logits)
  weights = {'bce': 2.0, 'iou': 0.5}
  actual = losses.compute_loss(outputs, alpha, weights=weights)
  expected = sum(
    2.0 * losses.compute_bce(o, alpha) + 0.5 * losses.compute_iou_loss(o, alpha)
    for o in outputs
  )
  np.testing.assert_allclose(actual, expected / 2, rtol=1e-6)


def test_keras_computes_the_same_bce(rng):
  import tf_keras

  logits, alpha = _pair(rng)
  truth = (alpha > 0.5).astype('float32')
  probs = 1 / (1 + np.exp(-logits))
  expected = tf_keras.losses.BinaryCrossentropy()(truth, probs)
  actual = losses.compute_loss(
    (jnp.asarray(logits),), jnp.asarray(truth), weights={'bce': 1.0}
  )
  np.testing.assert_allclose(actual.mean(), float(expected), rtol=1e-4)


def test_wrong_weights_are_refused():
  logits = (jnp.zeros((1, 2, 2, 1)),)
  with pytest.raises(ValueError, match='Unknown loss dice'):
    losses.compute_loss(logits, logits[0], weights={'dice': 1.0})
  with pytest.raises(ValueError, match='set at least one'):
    losses.compute_loss(logits, logits[0], weights={'bce': 0.0})
