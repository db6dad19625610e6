"""Metrics of a predicted alpha matte against the true one.

Rhemann et al., "A perceptually motivated online benchmark for image matting",
CVPR 2009, with the filters and thresholds of the evaluation code of "Deep Image
Matting" (Xu et al., CVPR 2017), which most papers use. P3M-Net's code takes
another gradient, so its Grad cannot be put beside this one; its SAD, MSE, MAD
and the idea of Conn are the same.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

_SIGMA = 1.4  # Width of the gradient's Gaussian, in pixels.
_STEP, _TOLERANCE = 0.1, 0.15  # Constants of the connectivity error.


def make_unknown_band(
  truth: Float[np.ndarray, 'h w'], *, radius: int
) -> Bool[np.ndarray, 'h w']:
  """Returns the band around the true outline that a trimap would leave open.

  A pixel is not in it if all within `radius` pixels around it, in a square, is
  foreground, or all is background.
  """
  size = 2 * radius + 1
  any_foreground = ndimage.maximum_filter(truth > 0, size=size, mode='nearest')
  all_opaque = ndimage.minimum_filter(truth == 1, size=size, mode='nearest')
  return any_foreground & ~all_opaque


def compute_matting(
  alpha: Float[np.ndarray, 'h w'],
  truth: Float[np.ndarray, 'h w'],
  unknown: Bool[np.ndarray, 'h w'],
) -> dict[str, float]:
  """Returns the errors of alpha in [0, 1], whose keys name region and unit.

  Regions are the whole image and the unknown band. Where that is empty, means
  over it are NaN.
  """
  difference = alpha - truth
  maps = {
    'sad': np.abs(difference),
    'mse': difference**2,
    'mad': np.abs(difference),
    'gradient': (compute_gradient(alpha) - compute_gradient(truth)) ** 2,
    'connectivity': compute_connectivity_errors(alpha, truth),
  }
  values = {}
  for region, where in (('whole', np.ones_like(unknown)), ('unknown', unknown)):
    count = np.count_nonzero(where)
    for name, errors in maps.items():
      total = float(errors[where].sum())
      if name in ('mse', 'mad'):
        values[f'{name}_{region}'] = total / count if count else float('nan')
      else:
        values[f'{name}_{region}_thousands'] = total / 1000
  return values


def compute_gradient(
  alpha: Float[np.ndarray, 'h w'],
) -> Float[np.ndarray, 'h w']:
  """Returns the magnitude of the gradient, by Gaussian derivatives.

  The two-dimensional filters have 9x9 taps, whose squares sum to 1.
  """
  taps = np.arange(-4, 5)
  smooth = np.exp(-(taps**2) / (2 * _SIGMA**2))
  slope = -taps * smooth
  smooth, slope = smooth / np.linalg.norm(smooth), slope / np.linalg.norm(slope)

  def differentiate(axis):
    sloped = ndimage.convolve1d(alpha, slope, axis=axis, mode='nearest')
    return ndimage.convolve1d(sloped, smooth, axis=1 - axis, mode='nearest')

  return np.hypot(differentiate(0), differentiate(1))


def compute_connectivity_errors(
  alpha: Float[np.ndarray, 'h w'], truth: Float[np.ndarray, 'h w']
) -> Float[np.ndarray, 'h w']:
  """Returns how much each pixel's connection to the object differs.

  A pixel is connected up to the last level at which it is in the largest
  region that both mattes share; what alpha has above that level counts where
  it is at least .15.
  """
  # -1: connected at all levels so far.
  connected = np.full(alpha.shape, -1.0)
  levels = np.arange(0, 1 + _STEP, _STEP)
  for below, level in zip(levels[:-1], levels[1:], strict=True):
    region = _find_largest_region((alpha >= level) & (truth >= level))
    connected[(connected == -1) & ~region] = below
  connected[connected == -1] = 1
  above = np.stack([alpha, truth]) - connected
  first, second = above * (above >= _TOLERANCE)
  return np.abs(first - second)


def _find_largest_region(mask: np.ndarray) -> np.ndarray:
  labels, count = ndimage.label(mask)  # Neighbours share a side.
  if not count:
    return mask
  sizes = np.bincount(labels.ravel())
  return labels == 1 + np.argmax(sizes[1:])
