"""The foreground's own colours, without what shines through from behind.

Where a pixel is partly background, as in hair, the photo's colour is a blend.
A cut-out with that colour carries a halo of the old background.
"""

import numpy as np
from jaxtyping import Float

# The method's constants, as its authors recommend them.
_REGULARIZATION = 1e-5
_GRADIENT_WEIGHT = 1.0
_SMALL = 32  # Pixels; levels up to this size are iterated more often.
_SMALL_ITERATIONS = 10
_BIG_ITERATIONS = 2

_DENSE = 160  # Pixels; larger levels are computed in the band alone.

_SEEN, _SURE = 1 / 255, 254 / 255


def estimate_foreground(
  image: Float[np.ndarray, 'h w 3'], alpha: Float[np.ndarray, 'h w']
) -> Float[np.ndarray, 'h w 3']:
  """Returns the foreground's colours, in [0, 1] as the image's.

  Fast multi-level foreground estimation (Germer et al., arXiv:2006.14970):
  foreground and background that explain the image, as smooth as alpha is, from
  the coarsest level of a pyramid to the finest. The paper updates pixels in
  place; here all pixels of a level are updated at once, as arrays. Only pixels
  with an alpha between 0 and 1 change.

  Args:
    image: the photo.
    alpha: the foreground's share, in [0, 1].
  """
  band = (alpha > _SEEN) & (alpha < _SURE)
  if not band.any():
    return image
  rows, columns = _bounds(band)
  inside = (slice(*rows), slice(*columns))
  estimate = _estimate(image[inside], alpha[inside])
  result = image.copy()
  result[inside] = np.where(band[inside][..., None], estimate, image[inside])
  return result


def _bounds(band: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
  """The band's rows and columns, with a margin to spread colours in."""
  bounds = []
  for axis in (1, 0):
    found = np.flatnonzero(band.any(axis=axis))
    bounds.append((max(0, int(found[0]) - 32), int(found[-1]) + 33))
  return bounds[0], bounds[1]


def _estimate(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
  height, width = alpha.shape
  visible = alpha > 0.9
  start = image[visible].mean(axis=0) if visible.any() else image.mean((0, 1))
  hidden = alpha < 0.1
  behind = image[hidden].mean(axis=0) if hidden.any() else image.mean((0, 1))
  # Colours first, so that every operation runs over whole planes.
  foreground = np.broadcast_to(start[:, None, None], (3, 1, 1))
  background = np.broadcast_to(behind[:, None, None], (3, 1, 1))
  levels = int(np.ceil(np.log2(max(height, width, 2))))
  for level in range(levels + 1):
    size = (
      max(1, round(height ** (level / levels))),
      max(1, round(width ** (level / levels))),
    )
    planes = _resize_nearest(np.moveaxis(image, -1, 0), size)
    level_alpha = _resize_nearest(alpha, size)
    foreground = _resize_nearest(foreground, size)
    background = _resize_nearest(background, size)
    small = max(size) <= _SMALL
    foreground, background = _iterate(
      planes,
      level_alpha,
      foreground,
      background,
      iterations=_SMALL_ITERATIONS if small else _BIG_ITERATIONS,
    )
  return np.moveaxis(foreground, 0, -1)


def _iterate(
  image: np.ndarray,
  alpha: np.ndarray,
  foreground: np.ndarray,
  background: np.ndarray,
  *,
  iterations: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Solves for the two colours of every pixel, given those of its neighbours.

  Equation 4 of the paper: per pixel, a 2x2 system whose matrix does not depend
  on the colours.
  """
  height, width = alpha.shape
  if max(height, width) > _DENSE:
    # Where alpha says it all, one colour is the photo's; the other is unseen.
    chosen = np.flatnonzero((alpha > _SEEN) & (alpha < _SURE))
    foreground = np.where(alpha >= _SURE, image, foreground)
    background = np.where(alpha <= _SEEN, image, background)
  else:
    chosen = np.arange(alpha.size)
    foreground, background = foreground.copy(), background.copy()
  y, x = np.divmod(chosen, width)
  neighbours = (
    chosen - width * (y > 0),
    chosen + width * (y < height - 1),
    chosen - (x > 0),
    chosen + (x < width - 1),
  )
  flat_foreground = foreground.reshape(3, -1)
  flat_background = background.reshape(3, -1)
  flat_alpha = alpha.reshape(-1)
  alpha, image = flat_alpha[chosen], image.reshape(3, -1)[:, chosen]
  beta = 1 - alpha
  weights = [
    _REGULARIZATION + _GRADIENT_WEIGHT * np.abs(alpha - flat_alpha[neighbour])
    for neighbour in neighbours
  ]
  total = sum(weights)
  a00, a01, a11 = alpha * alpha + total, alpha * beta, beta * beta + total
  inverse = 1 / (a00 * a11 - a01 * a01)
  for _ in range(iterations):
    b0, b1 = alpha * image, beta * image
    for weight, neighbour in zip(weights, neighbours, strict=True):
      b0 += weight * flat_foreground[:, neighbour]
      b1 += weight * flat_background[:, neighbour]
    flat_foreground[:, chosen] = np.clip((a11 * b0 - a01 * b1) * inverse, 0, 1)
    flat_background[:, chosen] = np.clip((a00 * b1 - a01 * b0) * inverse, 0, 1)
  return foreground, background


def _resize_nearest(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  rows = np.arange(size[0]) * array.shape[-2] // size[0]
  columns = np.arange(size[1]) * array.shape[-1] // size[1]
  return array[..., rows[:, None], columns]
