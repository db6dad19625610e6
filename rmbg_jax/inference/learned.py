"""Sharpens a coarse alpha by the refiner, along edges, from coarse to fine."""

import functools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from data_pipelines.io import errors
from rmbg_jax.inference import refinement, runtimes
from rmbg_jax.models import refiner
from rmbg_jax.weights import load, release

# The longest side of the coarsest level, in pixels; each next level has twice
# the size of the one before.
_COARSEST = 512
# A window's side in pixels, and the margin on each side that a window sees but
# does not change.
_SIDE, _MARGIN = 96, 8
_STEP = _SIDE - 2 * _MARGIN
# Alpha is undecided between this and 1 less this, and so are pixels near it: as
# many of the network's map at first, then as many of the coarser level.
_SURE = 0.02
_FIRST_REACH, _REACH = 3, 2
# Windows that are made at a time: 9 MB.
_CHUNK = 64
# Limited logits give no alpha of 0 or 1, so alpha is stretched by this.
_REST = 0.002


class LearnedRefiner:
  """Refines alpha by a network; may be used by several threads."""

  def __init__(
    self,
    loaded: load.LoadedModel,
    *,
    runtime: str,
    precision: str,
    threads: int = 0,
  ):
    """Compiles the network; see `runtimes.make_window_runtime`."""
    self._compute = runtimes.make_window_runtime(
      loaded, side=_SIDE, runtime=runtime, precision=precision, threads=threads
    )

  def refine(
    self, probs: Float[np.ndarray, 'h w'], photo: Image.Image
  ) -> Float[np.ndarray, 'h2 w2']:
    """Returns alpha in [0, 1] at the photo's size.

    Only windows along undecided pixels are computed; elsewhere alpha is the
    coarse one, enlarged.

    Args:
      probs: Coarse alpha, in [0, 1], at any size.
      photo: RGB photo at its full size.
    """
    levels = [photo]
    while max(levels[-1].size) > _COARSEST:
      levels.append(levels[-1].reduce(2))
    coarsest, *finer = levels[::-1]
    # Pixels of this level in one of the network's map.
    pixels = max(coarsest.size) / max(probs.shape)
    alpha = refinement.enlarge(probs, coarsest.size)
    band = _find_band(alpha, max(1, round(_FIRST_REACH * pixels)))
    self._refine_level(np.asarray(coarsest), alpha, band)
    for level in finer:
      width, height = level.size
      # Found before doubling, with a quarter of the pixels.
      band = _find_band(alpha, _REACH).repeat(2, axis=0).repeat(2, axis=1)
      # `reduce` rounds odd sides up, so there may be one row too many.
      alpha = _double(alpha)[:height, :width]
      self._refine_level(np.asarray(level), alpha, band[:height, :width])
    return alpha

  def _refine_level(
    self,
    colours: UInt8[np.ndarray, 'h w 3'],
    alpha: Float[np.ndarray, 'h w'],
    band: Bool[np.ndarray, 'h w'],
  ) -> None:
    """Changes alpha within the band."""
    places = list(_find_places(band))
    inner = slice(_MARGIN, -_MARGIN)
    changed = []
    for start in range(0, len(places), _CHUNK):
      chunk = places[start : start + _CHUNK]
      seen, coarse = (
        np.stack([_take(array, y, x) for y, x in chunk])
        for array in (colours, alpha)
      )
      units = self._compute(seen, to_units(coarse))[:, inner, inner]
      changed += [*from_units(units)]
    # Only here, since windows overlap, and none may see another one's changes.
    for one, (y, x) in zip(changed, places, strict=True):
      part = slice(y, y + _STEP), slice(x, x + _STEP)
      # Cells at the right and below may reach beyond the photo.
      where = band[part]
      height, width = where.shape
      np.copyto(alpha[part], one[:height, :width], where=where)


def load_refiner(
  path: str, *, runtime: str, precision: str, threads: int
) -> LearnedRefiner:
  """Returns a refiner; the released one is compiled once for all.

  Args:
    path: 'refiner' for the one that comes with the project, or the working
      directory or the `.safetensors` release of another.
    runtime: 'openvino' or 'jax'.
    precision: 'float32', 'bfloat16', or 'auto' for bfloat16 where the processor
      is made for it.
    threads: Threads on a CPU; 0 for one per core that this process may use.

  Raises:
    MissingFileError: if there is nothing at the path.
    UserError: if it is no refiner.
  """
  if path == release.REFINER:
    path = str(release.find_released(path))
    return _load_once(path, runtime, precision, threads)
  return _load(path, runtime, precision, threads)


def _load(
  path: str, runtime: str, precision: str, threads: int
) -> LearnedRefiner:
  loaded = load.load_model(path)
  if not isinstance(loaded.network, refiner.Refiner):
    raise errors.UserError(
      f'{path}: this network makes masks, and does not refine them. Pass the '
      'working directory of a training with --config=refiner.'
    )
  return LearnedRefiner(
    loaded, runtime=runtime, precision=precision, threads=threads
  )


_load_once = functools.cache(_load)


def to_units(alpha: Float[np.ndarray, '*s']) -> Float[np.ndarray, '*s']:
  """Returns the logits of alpha in units of `refiner.LIMIT`, in [-1, 1]."""
  p = np.clip(alpha, 1 - refiner.MOST, refiner.MOST)
  return np.log(p / (1 - p)) * np.float32(1 / refiner.LIMIT)


def from_units(units: Float[np.ndarray, '*s']) -> Float[np.ndarray, '*s']:
  """Returns alpha in [0, 1], which reaches both ends."""
  probs = 0.5 + 0.5 * np.tanh(units * np.float32(0.5 * refiner.LIMIT))
  return np.clip((probs - _REST) / (1 - 2 * _REST), 0, 1)


def _find_band(
  alpha: Float[np.ndarray, 'h w'], reach: int
) -> Bool[np.ndarray, 'h w']:
  """Returns where alpha is undecided, or an edge, within the reach."""
  band = (alpha > _SURE) & (alpha < 1 - _SURE)
  # An edge that is sharp already has no mixed pixels.
  solid = alpha > 0.5
  band[1:] |= solid[1:] != solid[:-1]
  band[:, 1:] |= solid[:, 1:] != solid[:, :-1]
  # A square dilation, by views, along one axis and then the other: OpenCV has
  # one, but is not installed everywhere.
  for _ in range(2):
    grown = band.copy()
    for step in range(1, min(reach, len(band) - 1) + 1):
      grown[step:] |= band[:-step]
      grown[:-step] |= band[step:]
    band = grown.T  # Back upright after the second time.
  return band


def _double(x: Float[np.ndarray, 'h w']) -> Float[np.ndarray, '2*h 2*w']:
  """Enlarges as `refinement.enlarge` does, in half of its time."""
  height, width = x.shape
  rows = np.empty((height, 2, width), np.float32)
  _mix(x, rows.swapaxes(0, 1))
  rows = rows.reshape(2 * height, width)
  result = np.empty((2 * height, width, 2), np.float32)
  _mix(rows.T, result.transpose(2, 1, 0))
  return result.reshape(2 * height, 2 * width)


def _mix(x: Float[np.ndarray, 'n m'], pair: Float[np.ndarray, '2 n m']) -> None:
  """Writes the two pixels that lie in each one along the first axis."""
  # A half of a pixel has its centre a quarter of it from the pixel's own.
  near, far = x * np.float32(0.75), x * np.float32(0.25)
  np.add(near[1:], far[:-1], out=pair[0, 1:])
  np.add(near[:-1], far[1:], out=pair[1, :-1])
  pair[0, 0], pair[1, -1] = x[0], x[-1]


def _find_places(band: Bool[np.ndarray, 'h w']) -> Iterator[tuple[int, int]]:
  """Yields the first row and column of the cells that the band touches."""
  height, width = band.shape
  rows, columns = -(-height // _STEP), -(-width // _STEP)
  padded = np.zeros((rows * _STEP, columns * _STEP), bool)
  padded[:height, :width] = band
  cells = padded.reshape(rows, _STEP, columns, _STEP).any(axis=(1, 3))
  for row, column in np.argwhere(cells):
    yield int(row) * _STEP, int(column) * _STEP


def _take(array: np.ndarray, y: int, x: int) -> np.ndarray:
  """Returns a window around a cell; beyond the photo, its edge is repeated."""
  height, width = array.shape[:2]
  top, left = y - _MARGIN, x - _MARGIN
  below, right = top + _SIDE, left + _SIDE
  if min(top, left) >= 0 and below <= height and right <= width:
    return array[top:below, left:right]
  rows = np.clip(np.arange(top, below), 0, height - 1)
  columns = np.clip(np.arange(left, right), 0, width - 1)
  return array[rows[:, None], columns]
