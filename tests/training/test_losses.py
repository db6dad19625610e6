"""Losses against naive twins, and at the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmbg_jax.training import losses

EQUAL = (1.0, 1.0, 1.0, 1.0)
# One program each: single operations would be compiled one by one.
LOSSES = {name: jax.jit(loss) for name, loss in losses.LOSSES.items()}


def _pair(rng, size=(16, 32)):
  logits = rng.normal(0, 3, (2, *size, 1)).astype(np.float32)
  alpha = rng.uniform(0, 1, (2, *size, 1)).astype(np.float32)
  alpha[:, 4:12, 4:12] = 1.0
  return logits, alpha


# Naive twins of one image, (h, w) float64, written from the papers.


def _sigmoid(x):
  return 1 / (1 + np.exp(-x.astype(np.float64)))


def _naive_bce_map(x, a):
  p = _sigmoid(x)
  return -(a * np.log(p) + (1 - a) * np.log(1 - p))


def _naive_bce(x, a):
  return _naive_bce_map(x, a).mean()


def _naive_iou(x, a, weight=1.0):
  p = _sigmoid(x)
  intersection = (weight * p * a).sum()
  union = (weight * (p + a)).sum() - intersection
  return 1 - (intersection + 1) / (union + 1)


def _naive_filter(x, kernel, mode):
  reach = kernel.shape[0] // 2
  padded = np.pad(x, reach, mode=mode)
  result = np.zeros_like(x)
  for row in range(x.shape[0]):
    for column in range(x.shape[1]):
      window = padded[
        row : row + 2 * reach + 1, column : column + 2 * reach + 1
      ]
      result[row, column] = (window * kernel).sum()
  return result


def _naive_structure(x, a):
  mean = _naive_filter(a, np.full((31, 31), 1 / 31**2), 'constant')
  weight = 1 + 5 * np.abs(mean - a)
  bce = (weight * _naive_bce_map(x, a)).sum() / weight.sum()
  return bce + _naive_iou(x, a, weight)


def _naive_ssim(x, a):
  y, z = np.mgrid[-5:6, -5:6]
  window = np.exp(-(y**2 + z**2) / (2 * 1.5**2))
  window /= window.sum()

  def mean(values):
    return _naive_filter(values, window, 'constant')

  p = _sigmoid(x)
  mp, ma = mean(p), mean(a)
  vp, va, cov = mean(p * p) - mp**2, mean(a * a) - ma**2, mean(p * a) - mp * ma
  c1, c2 = 0.01**2, 0.03**2
  ssim = (2 * mp * ma + c1) * (2 * cov + c2)
  ssim /= (mp**2 + ma**2 + c1) * (vp + va + c2)
  return 1 - ssim.mean()


def _naive_l1(x, a):
  return np.abs(_sigmoid(x) - a).mean()


def _naive_double(x):
  """Bilinear x2 with half-pixel centres, pixel by pixel."""
  height, width = x.shape
  result = np.zeros((2 * height, 2 * width))
  for row in range(2 * height):
    for column in range(2 * width):
      y, z = (row + 0.5) / 2 - 0.5, (column + 0.5) / 2 - 0.5
      top, left = int(np.floor(y)), int(np.floor(z))
      for r, wr in ((top, top + 1 - y), (top + 1, y - top)):
        for c, wc in ((left, left + 1 - z), (left + 1, z - left)):
          r_in, c_in = np.clip(r, 0, height - 1), np.clip(c, 0, width - 1)
          result[row, column] += wr * wc * x[r_in, c_in]
  return result


def _naive_halve(x):
  """Averages blocks of 2x2: their centres are those of `_naive_double`."""
  height, width = x.shape[0] // 2, x.shape[1] // 2
  return np.array(
    [
      [x[2 * r : 2 * r + 2, 2 * c : 2 * c + 2].mean() for c in range(width)]
      for r in range(height)
    ]
  )


def _naive_laplacian(x, a):
  taps = np.array([1, 4, 6, 4, 1]) / 16
  kernel = np.outer(taps, taps)
  total, pyramids = 0.0, [_sigmoid(x), a]
  for level in range(4):
    coarser = [_naive_halve(_naive_filter(g, kernel, 'edge')) for g in pyramids]
    details = [
      g - _naive_double(c) for g, c in zip(pyramids, coarser, strict=True)
    ]
    total += 2**level * np.abs(details[0] - details[1]).mean()
    pyramids = coarser
  return total


TWINS = {
  'bce': _naive_bce,
  'iou': _naive_iou,
  'structure': _naive_structure,
  'ssim': _naive_ssim,
  'l1': _naive_l1,
  'laplacian': _naive_laplacian,
}


@pytest.mark.parametrize('name', sorted(LOSSES))
def test_equals_its_naive_twin(name, rng):
  logits, alpha = _pair(rng)
  actual = LOSSES[name](jnp.asarray(logits), jnp.asarray(alpha))
  expected = [
    TWINS[name](x[..., 0], a[..., 0].astype(np.float64))
    for x, a in zip(logits, alpha, strict=True)
  ]
  np.testing.assert_allclose(actual, expected, rtol=2e-5)


@pytest.mark.parametrize('name', sorted(LOSSES))
def test_a_mirrored_or_transposed_pair_has_the_same_loss(name, rng):
  logits, alpha = map(jnp.asarray, _pair(rng))
  expected = LOSSES[name](logits, alpha)
  for change in (
    lambda x: x[:, :, ::-1],
    lambda x: x[:, ::-1],
    lambda x: jnp.swapaxes(x, 1, 2),
  ):
    actual = LOSSES[name](change(logits), change(alpha))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize('name', sorted(LOSSES))
@pytest.mark.parametrize('truth', [0.0, 1.0])
def test_is_finite_at_extreme_logits_in_bfloat16(name, truth):
  logits = jnp.tile(jnp.array([1e4, -1e4, 0.0, 50.0], jnp.bfloat16), 64)
  logits = logits.reshape(1, 16, 16, 1)
  alpha = jnp.full((1, 16, 16, 1), truth)
  value, gradient = jax.jit(
    jax.value_and_grad(lambda x: losses.LOSSES[name](x, alpha).sum())
  )(logits)
  assert value.dtype == jnp.float32
  assert np.isfinite(value)
  assert np.isfinite(gradient.astype(jnp.float32)).all()


@pytest.mark.parametrize('name', sorted(LOSSES))
def test_a_perfect_prediction_costs_next_to_nothing(name, rng):
  alpha = jnp.zeros((1, 16, 16, 1)).at[:, 4:9, 5:12].set(1.0)
  logits = (alpha * 2 - 1) * 40
  assert LOSSES[name](logits, alpha)[0] < 1e-4
  assert LOSSES[name](-logits, alpha)[0] > 0.1


def test_losses_and_outputs_are_weighted(rng):
  logits, alpha = map(jnp.asarray, _pair(rng))
  outputs = (logits, 2 * logits, 0 * logits, -logits)
  actual = losses.compute_loss(
    outputs,
    alpha,
    weights={'bce': 2.0, 'iou': 0.5, 'ssim': 0.0},
    output_weights=(1.0, 3.0, 0.0, 0.0),
  )
  each = [
    2.0 * losses.compute_bce(o, alpha) + 0.5 * losses.compute_iou_loss(o, alpha)
    for o in outputs
  ]
  np.testing.assert_allclose(actual, (each[0] + 3 * each[1]) / 4, rtol=1e-6)


def test_keras_computes_the_same_for_the_original(rng):
  """Four sigmoid outputs concatenated, one mask, binary cross-entropy."""
  import tf_keras

  logits, alpha = _pair(rng)
  outputs = [logits, logits * 0.5, -logits, logits + 1]
  truth = (alpha > 0.5).astype('float32')
  probs = np.concatenate([_sigmoid(o) for o in outputs], axis=-1)
  # Keras broadcasts the mask over the concatenated outputs.
  expected = tf_keras.losses.BinaryCrossentropy()(
    np.broadcast_to(truth, probs.shape), probs.astype('float32')
  )
  actual = losses.compute_loss(
    tuple(map(jnp.asarray, outputs)),
    jnp.asarray(truth),
    weights={'bce': 1.0},
    output_weights=EQUAL,
  )
  np.testing.assert_allclose(actual.mean(), float(expected), rtol=1e-4)


@pytest.mark.parametrize(
  ('weights', 'outputs', 'message'),
  [
    ({'dice': 1.0}, EQUAL, 'Unknown loss dice'),
    ({'bce': 0.0}, EQUAL, r'config.loss.weights \(=\(0.0,\)\)'),
    ({'bce': 1.0, 'iou': -1.0}, EQUAL, 'must not be negative'),
    ({'bce': 1.0}, (0.0,) * 4, 'config.loss.outputs'),
  ],
)
def test_wrong_weights_are_refused(weights, outputs, message):
  with pytest.raises(ValueError, match=message):
    losses.check_weights(weights, outputs)


def test_an_output_without_a_weight_is_refused(rng):
  logits, alpha = map(jnp.asarray, _pair(rng))
  with pytest.raises(ValueError, match='has 4 weights, but the network has 7'):
    losses.compute_loss(
      (logits,) * 7, alpha, weights={'bce': 1.0}, output_weights=EQUAL
    )
