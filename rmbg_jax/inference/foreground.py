"""Estimates the foreground's own colours, without the old background.

Where a pixel is partly background, as in hair, the photo's colour is a blend.
A cut-out with that colour carries a halo of the old background.
"""

import itertools
from collections.abc import Iterator
from concurrent import futures

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from data_pipelines.io import parallel

# The method's constants, as its authors recommend them.
_REGULARIZATION = 1e-5
_SMALL = 32  # Pixels; levels up to this size are iterated more often.
_SMALL_ITERATIONS = 10
_BIG_ITERATIONS = 2
# Sum of a pixel's weights on the finest level, where neighbours are not asked.
_FINEST_TOTAL = 0.01

# Pixels; the next to finest level is left out if it is larger.
_LARGE = 1024

_TILE = (64, 256)  # Rows and columns: what it needs stays in a core's cache.

Span = tuple[int, int]  # (First, last + 1).


def estimate_foreground(
  image: Shaped[np.ndarray, 'h w 3'],
  alpha: Float[np.ndarray, 'h w'],
  opacity: UInt8[np.ndarray, 'h w'] | None = None,
) -> Shaped[np.ndarray, 'h w 3']:
  """Returns the foreground's colours, in the image's type and range.

  Fast multi-level foreground estimation (Germer et al., arXiv:2006.14970):
  foreground and background that explain the image, as smooth as alpha is, from
  the coarsest level of a pyramid to the finest. The paper updates pixels in
  place; here all pixels of a level are updated at once, as arrays. Only pixels
  with an alpha between 0 and 1 change.

  On the finest level, a pixel's colours are those of the next coarser level,
  moved by what they leave unexplained of the photo. For large photos, that
  level has a quarter of the photo's sides.

  Levels are computed in tiles, all cores at once. A tile needs the next coarser
  level alone, so it takes about 10 bytes a pixel besides the result.

  Args:
    image: The photo, as unsigned integers up to their type's maximum or as
      floats in [0, 1].
    alpha: The foreground's share, in [0, 1].
    opacity: The photo's own opacity, which alpha contains already. Colours that
      are stored with transparency are free of a background, and stay.
  """
  if opacity is not None:
    share = np.zeros_like(alpha)
    # Alpha without the photo's own opacity.
    np.divide(alpha * np.float32(255), opacity, out=share, where=opacity > 0)
    found = estimate_foreground(image, np.minimum(share, 1))
    return np.where(opacity[..., None] < 255, image, found)
  band = _is_mixed(alpha)
  if not band.any():
    return image
  rows, columns = (_bound(np.asarray(band.any(axis=axis))) for axis in (1, 0))
  result = image.copy()
  part = _Photo(image[rows, columns], alpha[rows, columns])
  with futures.ThreadPoolExecutor(parallel.count_cores()) as pool:
    _solve(pool, part, result[rows, columns])
  return result


def _is_mixed(alpha: Float[np.ndarray, '*s']) -> Bool[np.ndarray, '*s']:
  # Less than a level of 8 bits away from 0 or 1 counts as 0 or 1.
  return (alpha > 1 / 255) & (alpha < 254 / 255)


def _bound(found: Bool[np.ndarray, 'n']) -> slice:
  """Returns the bounding box found, with a margin to spread colours in."""
  indices = np.flatnonzero(found)
  return slice(max(0, int(indices[0]) - 32), int(indices[-1]) + 33)


class _Photo:
  """A photo and its alpha, seen at any size.

  Attributes:
    alpha: Alpha at its own size.
    scale: Largest value of its colours' type.
  """

  def __init__(self, image: np.ndarray, alpha: np.ndarray):
    is_float = np.issubdtype(image.dtype, np.floating)
    self._image = image
    self.alpha = alpha
    self.scale = np.float32(1 if is_float else np.iinfo(image.dtype).max)

  def take(
    self, size: tuple[int, int], rows: Span, columns: Span
  ) -> tuple[Float[np.ndarray, '3 h w'], Float[np.ndarray, 'h w']]:
    """Returns a part of the colours, in [0, 1], and of alpha at that size."""
    y = _map(rows, size[0], self.alpha.shape[0])
    x = _map(columns, size[1], self.alpha.shape[1])
    pixels, alpha = (
      whole[y[0] : y[-1] + 1, x[0] : x[-1] + 1]
      for whole in (self._image, self.alpha)
    )
    if size != self.alpha.shape:
      chosen = (y - y[0])[:, None], x - x[0]
      pixels, alpha = pixels[chosen], alpha[chosen]
    colours = np.empty((3, y.size, x.size), np.float32)
    for channel in range(3):
      np.multiply(pixels[..., channel], 1 / self.scale, out=colours[channel])
    return colours, alpha.astype(np.float32)

  def find_means(self) -> Float[np.ndarray, '2 3 1 1']:
    """Returns the mean colours of visible and of hidden pixels."""
    # A sample will do: they are where the coarsest level starts.
    step = max(1, max(self.alpha.shape) // 512)
    image = self._image[::step, ::step] / self.scale
    alpha = self.alpha[::step, ::step]
    means = [
      image[chosen].mean(axis=0) if chosen.any() else image.mean(axis=(0, 1))
      for chosen in (alpha > 0.9, alpha < 0.1)  # The authors' bounds.
    ]
    return np.asarray(means, np.float32)[..., None, None]


def _solve(pool, photo: _Photo, result: np.ndarray) -> None:
  """Writes the foreground's colours over the band of the result."""
  height, width = photo.alpha.shape
  levels = int(np.ceil(np.log2(max(height, width, 2))))
  # Foreground and background, planes apart: every operation is on whole ones.
  colours = photo.find_means()
  # Sides grow by the same factor from level to level, up to the photo's.
  for level in range(levels):
    size = (
      max(1, round(height ** (level / levels))),
      max(1, round(width ** (level / levels))),
    )
    if level == levels - 1 and max(size) > _LARGE:
      break  # It would take most of the time.
    finer = np.empty((2, 3, *size), np.float32)
    _run_tiles(pool, _fill_tile, photo, colours, size, finer)
    colours = finer
  _run_tiles(pool, _finish_tile, photo, colours, (height, width), result)


def _run_tiles(pool, work, photo, coarser, size, target) -> None:
  tasks = [
    pool.submit(work, photo, coarser, size, tile, target) for tile in _cut(size)
  ]
  for task in tasks:
    task.result()


def _cut(size: tuple[int, int]) -> Iterator[tuple[Span, Span]]:
  """Yields the rows and columns of the tiles of a level."""
  return itertools.product(  # ty: ignore[invalid-explicit-return] Of two.
    *(
      [(start, min(start + step, side)) for start in range(0, side, step)]
      for side, step in zip(size, _TILE, strict=True)
    )
  )


def _fill_tile(photo, coarser, size, tile, finer) -> None:
  """Writes a tile of a level's colours."""
  solved = _solve_tile(photo, coarser, size, *tile)
  if solved is None:
    # Alpha says it all: one colour is the photo's, the other is not seen.
    image, alpha = photo.take(size, *tile)
    solved = _take(coarser, size, *tile)
    np.copyto(solved[0], image, where=alpha >= 0.5)
    np.copyto(solved[1], image, where=alpha < 0.5)
  finer[:, :, slice(*tile[0]), slice(*tile[1])] = solved


def _finish_tile(photo, coarser, size, tile, result) -> None:
  """Writes a tile of the result, where alpha is mixed.

  The next coarser level's colours, moved by what they leave unexplained of the
  pixel: equation 4 for one pixel, whose neighbours would change little.
  """
  part = slice(*tile[0]), slice(*tile[1])
  mixed = _is_mixed(photo.alpha[part])
  if not mixed.any():
    return
  image, alpha = photo.take(size, *tile)
  foreground, background = _take(coarser, size, *tile)
  # In place, so that a tile's arrays stay in the cache.
  rest = 1 - alpha
  share = alpha / (alpha * alpha + rest * rest + _FINEST_TOTAL)
  background *= rest
  image -= foreground * alpha
  image -= background
  image *= share
  image += foreground
  np.clip(image, 0, 1, out=image)
  image *= photo.scale
  if photo.scale > 1:
    # The cast to integers below cuts off.
    np.rint(image, out=image)
  colours = image.transpose(1, 2, 0)
  np.copyto(result[part], colours, where=mixed[..., None], casting='unsafe')


def _solve_tile(
  photo: _Photo,
  coarser: np.ndarray,
  size: tuple[int, int],
  rows: Span,
  columns: Span,
) -> Float[np.ndarray, '2 3 h w'] | None:
  """Returns both colours of a tile, None where no alpha is mixed.

  Every iteration looks one pixel further around the tile.
  """
  is_small = max(size) <= _SMALL
  iterations = _SMALL_ITERATIONS if is_small else _BIG_ITERATIONS
  y, x = (
    (max(0, span[0] - iterations), min(side, span[1] + iterations))
    for span, side in zip((rows, columns), size, strict=True)
  )
  image, alpha = photo.take(size, y, x)
  if not (is_small or _is_mixed(alpha).any()):
    return None
  solved = _iterate(image, alpha, _take(coarser, size, y, x), iterations)
  return solved[
    :, :, rows[0] - y[0] : rows[1] - y[0], columns[0] - x[0] : columns[1] - x[0]
  ]


def _iterate(
  image: Float[np.ndarray, '3 h w'],
  alpha: Float[np.ndarray, 'h w'],
  colours: Float[np.ndarray, '2 3 h w'],
  iterations: int,
) -> Float[np.ndarray, '2 3 h w']:
  """Solves for the two colours of every pixel, given those of its neighbours.

  Equation 4 of the paper, a 2x2 system for each pixel and channel, solved by
  hand: both colours are the means of the neighbours', as alike as alpha is,
  plus shares of the image's rest that these do not explain.

  Planes have a pixel more on each side, so that neighbours are shifts of their
  flat array, on which NumPy is faster than on parts of rows.
  """
  padded = _pad(colours)
  row = padded.shape[-1]
  flat_alpha, flat_image = _flatten(_pad(alpha)), _flatten(_pad(image))
  flat = _flatten(padded)
  size = flat.shape[-1]
  # All between the first and the last inner pixel, and with them the padding's
  # on both sides, which `_copy_edges` mends.
  inner = slice(row + 1, size - row - 1)
  shifts = [
    slice(inner.start + step, inner.stop + step) for step in (-row, row, -1, 1)
  ]
  alpha, image = flat_alpha[inner], flat_image[:, inner]
  # The paper's weights: the change of alpha to each neighbour, and a little.
  weights = [np.abs(alpha - flat_alpha[shift]) for shift in shifts]
  for weight in weights:
    weight += _REGULARIZATION
  total = weights[0] + weights[1] + weights[2] + weights[3]
  for weight in weights:
    weight /= total
  mix = np.stack([alpha, 1 - alpha])
  # (mix mix^T + total 1)^-1 mix, by the Sherman-Morrison formula.
  share = mix / ((mix * mix).sum(axis=0) + total)
  means = np.empty((2, alpha.size), np.float32)
  scratch, unexplained = np.empty_like(means), np.empty_like(alpha)
  for channel in range(3):
    plane = flat[:, channel]
    for iteration in range(iterations):
      if iteration:
        _copy_edges(padded[:, channel])
      np.multiply(plane[:, shifts[0]], weights[0], out=means)
      for weight, shift in zip(weights[1:], shifts[1:], strict=True):
        means += np.multiply(plane[:, shift], weight, out=scratch)
      np.multiply(means, mix, out=scratch)
      # What the neighbours' means leave unexplained of the image.
      np.subtract(image[channel], scratch[0], out=unexplained)
      unexplained -= scratch[1]
      means += np.multiply(unexplained, share, out=scratch)
      np.clip(means, 0, 1, out=plane[:, inner])
  return padded[..., 1:-1, 1:-1]


def _pad(array: np.ndarray) -> np.ndarray:
  """Returns the planes with their outermost pixels repeated once."""
  height, width = array.shape[-2:]
  padded = np.empty((*array.shape[:-2], height + 2, width + 2), array.dtype)
  padded[..., 1:-1, 1:-1] = array
  _copy_edges(padded)
  return padded


def _copy_edges(padded: np.ndarray) -> None:
  padded[..., 0, :], padded[..., -1, :] = padded[..., 1, :], padded[..., -2, :]
  padded[..., 0], padded[..., -1] = padded[..., 1], padded[..., -2]


def _flatten(planes: np.ndarray) -> np.ndarray:
  return planes.reshape(*planes.shape[:-2], -1)


def _take(
  planes: np.ndarray, size: tuple[int, int], rows: Span, columns: Span
) -> np.ndarray:
  """Returns a part of the planes as they are at that size."""
  y = _map(rows, size[0], planes.shape[-2])
  x = _map(columns, size[1], planes.shape[-1])
  # Rows are cheap to repeat: columns first, while there are fewer.
  few = np.take(planes[..., y[0] : y[-1] + 1, :], x, axis=-1)
  return np.take(few, y - y[0], axis=-2)


def _map(span: Span, size: int, side: int) -> np.ndarray:
  """Returns the indices of the nearest centres along a side of other length.

  The paper's code takes those of the upper left corners, which moves every
  level's colours by half of a pixel against the next one's.
  """
  # (index + 0.5) * side / size, rounded down, in whole numbers.
  return (2 * np.arange(*span) + 1) * side // (2 * size)
