"""The metrics of alpha mattes against values by hand and naive twins."""

import math

import numpy as np
import pytest
from scipy import ndimage

from rmbg_jax.evaluation import matting


def _make_mattes(rng, shape=(16, 20)):
  truth = np.clip(2 * ndimage.gaussian_filter(rng.random(shape), 2) - 0.5, 0, 1)
  truth[:4], truth[-4:, :9] = 0, 1
  alpha = np.clip(truth + rng.normal(0, 0.2, shape), 0, 1)
  return np.round(alpha * 255) / 255, np.round(truth * 255) / 255


def test_errors_of_a_known_matte():
  truth = np.array([[0.0, 0.5, 1.0, 1.0]])
  alpha = np.array([[0.2, 0.1, 1.0, 0.6]])
  unknown = np.array([[False, True, False, True]])
  values = matting.compute_matting(alpha, truth, unknown)
  assert values['sad_whole_thousands'] == pytest.approx(1.0 / 1000)
  assert values['mad_whole'] == pytest.approx(0.25)
  assert values['mse_whole'] == pytest.approx((0.04 + 0.16 + 0.16) / 4)
  assert values['sad_unknown_thousands'] == pytest.approx(0.8 / 1000)
  assert values['mad_unknown'] == pytest.approx(0.4)
  assert values['mse_unknown'] == pytest.approx(0.16)


def test_a_perfect_matte_has_no_error(rng):
  _, truth = _make_mattes(rng)
  values = matting.compute_matting(truth, truth, truth > 0)
  assert len(values) == 10
  assert set(values.values()) == {0}


def test_an_empty_band_has_no_mean():
  truth = np.ones((3, 3))
  values = matting.compute_matting(truth * 0.5, truth, truth == 0)
  assert math.isnan(values['mse_unknown'])
  assert math.isnan(values['mad_unknown'])
  assert values['sad_unknown_thousands'] == 0


def test_gradient_of_a_step_by_hand():
  """Beside a step, the answer is the filter's tail; far from it, nothing."""
  alpha = np.zeros((21, 40))
  alpha[:, 20:] = 1
  found = matting.compute_gradient(alpha)
  taps = np.arange(-4, 5)
  bell = np.exp(-(taps**2) / (2 * 1.4**2))
  slope = taps * bell
  across = bell.sum() / np.sqrt((bell**2).sum())
  along = slope[slope > 0].sum() / np.sqrt((slope**2).sum())
  assert found[10, 20] == pytest.approx(across * along)
  assert found[10, 19] == pytest.approx(across * along)
  assert found[10, :16] == pytest.approx(0)
  assert found[10, 24:] == pytest.approx(0)


def _naive_gradient(alpha):
  def bell(x):
    return math.exp(-(x**2) / (2 * 1.4**2)) / (1.4 * math.sqrt(2 * math.pi))

  taps = range(-4, 5)
  kernel = np.array(
    [[bell(i) * -j * bell(j) / 1.4**2 for j in taps] for i in taps]
  )
  kernel /= np.sqrt((kernel**2).sum())
  padded = np.pad(alpha, 4, mode='edge')
  result = np.zeros_like(alpha)
  for y, x in np.ndindex(alpha.shape):
    window = padded[y : y + 9, x : x + 9]
    result[y, x] = math.hypot(
      (window * kernel).sum(), (window * kernel.T).sum()
    )
  return result


def test_gradient_is_that_of_the_naive_twin(rng):
  alpha, _ = _make_mattes(rng)
  np.testing.assert_allclose(
    matting.compute_gradient(alpha), _naive_gradient(alpha), atol=1e-12
  )


def test_connectivity_of_a_known_matte():
  """One pixel apart from the object counts by all that it is above 0."""
  truth = np.array([[1.0, 1.0, 1.0, 0.0, 0.0]])
  alpha = np.array([[1.0, 1.0, 0.4, 0.0, 0.7]])
  # The third pixel is connected up to .4: the truth is .6 above that. The
  # last is not at any level: alpha is .7 above 0.
  np.testing.assert_allclose(
    matting.compute_connectivity_errors(alpha, truth), [[0, 0, 0.6, 0, 0.7]]
  )
  # What is less than .15 above its level does not count.
  alpha[0, 4] = 0.1
  assert matting.compute_connectivity_errors(alpha, truth)[0, 4] == 0


def _naive_connectivity(alpha, truth):
  height, width = alpha.shape
  level_of = np.ones(alpha.shape)
  open_pixels = set(np.ndindex(alpha.shape))
  levels = np.arange(11) * 0.1
  for step in range(1, 11):
    shared = {
      p
      for p in np.ndindex(alpha.shape)
      if min(alpha[p], truth[p]) >= levels[step]
    }
    regions = []
    left = set(shared)
    while left:
      region, front = set(), [min(left)]
      while front:
        y, x = front.pop()
        if (y, x) in left:
          left.remove((y, x))
          region.add((y, x))
          front += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
      regions.append(region)
    largest = max(regions, key=len, default=set())
    for pixel in list(open_pixels - largest):
      level_of[pixel] = levels[step - 1]
      open_pixels.remove(pixel)
  errors = np.zeros(alpha.shape)
  for pixel in np.ndindex(height, width):
    above = [m[pixel] - level_of[pixel] for m in (alpha, truth)]
    degrees = [1 - (a if a >= 0.15 else 0) for a in above]
    errors[pixel] = abs(degrees[0] - degrees[1])
  return errors


def test_connectivity_is_that_of_the_naive_twin(rng):
  alpha, truth = _make_mattes(rng)
  errors = matting.compute_connectivity_errors(alpha, truth)
  assert errors.max() > 0.1
  np.testing.assert_allclose(errors, _naive_connectivity(alpha, truth))


def test_unknown_band_is_around_the_outline():
  truth = np.zeros((1, 12))
  truth[0, 6:] = 1
  band = matting.make_unknown_band(truth, radius=2)
  assert np.flatnonzero(band).tolist() == [4, 5, 6, 7]
  truth[0, 6] = 0.5  # Soft pixels are unknown, and what is near them.
  band = matting.make_unknown_band(truth, radius=2)
  assert np.flatnonzero(band).tolist() == [4, 5, 6, 7, 8]
  # The image's edge is no outline.
  assert not matting.make_unknown_band(np.ones((5, 5)), radius=3).any()
