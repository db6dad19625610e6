"""Turns the network's small map of probabilities into the photo's alpha."""

import dataclasses
import importlib
import threading
import types
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from data_pipelines.io import errors
from rmbg_jax import choices
from rmbg_jax.weights import release

if TYPE_CHECKING:
  from rmbg_jax.inference import learned

# The guided filter's half window, in pixels of the small map, and the variance
# of colour, in [0, 1], below which an edge is not followed.
_RADIUS = 2
_EPSILON = 1e-4

# The longest side that matting runs at, in pixels, and the share of it by which
# the unknown band is wider than what the network left undecided.
_MATTING_SIDE = 1024
_BAND = 0.01

# pymatting's compiled loops must not run in two threads at once.
_matting_lock = threading.Lock()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refinement:
  """Sharpens alpha after the network.

  Attributes:
    method: Way to the photo's size. 'none': bilinear. 'learned': a network
      looks at the photo along edges (`learned.py`). 'guided': edges follow
      those of the photo (guided filter, He and Sun, arXiv:1505.00996).
      'matting': closed-form matting solves for the band around edges (Levin et
      al., TPAMI 2008; needs pymatting).
    refiner: The network of 'learned', as of `learned.load_refiner`.
    threshold: Alpha becomes 1 from here on and 0 below; None leaves it soft.
    keep_largest: Whether only the largest connected part stays.
    fill_holes: Background that the foreground encloses is filled.
  """

  method: str = 'none'
  refiner: str = release.REFINER
  threshold: float | None = None
  keep_largest: bool = False
  fill_holes: bool = False

  def __post_init__(self):
    if self.method not in choices.REFINEMENTS:
      raise errors.UserError(
        f'Unknown refinement {self.method!r}; choose one of '
        f'{", ".join(choices.REFINEMENTS)}.'
      )
    if self.threshold is not None and not 0 < self.threshold <= 1:
      raise errors.UserError(
        f'threshold must be in (0, 1], got {self.threshold}.'
      )
    # Now, so that a missing package is named before any work.
    if self.method == 'matting':
      _load_pymatting()

  def apply(
    self,
    probs: Float[np.ndarray, 'h w'],
    photo: Image.Image,
    refiner: 'learned.LearnedRefiner | None' = None,
  ) -> Float[np.ndarray, 'h2 w2']:
    """Returns alpha in [0, 1] at the RGB photo's size.

    Args:
      probs: The network's, in [0, 1], at its own size.
      photo: Photo that the network saw, at its full size.
      refiner: What refines where the method is 'learned'; a
        `BackgroundRemover` has it.

    Raises:
      ValueError: if the method is 'learned' and there is no refiner.
    """
    if self.method == 'learned':
      if refiner is None:
        raise ValueError("method='learned' needs a refiner.")
      alpha = refiner.refine(probs, photo)
    elif self.method == 'guided':
      alpha = _upsample_guided(probs, photo)
    elif self.method == 'matting':
      alpha = _solve_matting(probs, photo)
    else:
      alpha = enlarge(probs, photo.size)
    if self.threshold is not None:
      alpha = (alpha >= self.threshold).astype(np.float32)
    if self.keep_largest:
      alpha = alpha * _find_largest(alpha)
    if self.fill_holes:
      alpha = np.where(_find_holes(alpha), np.float32(1), alpha)
    return alpha


def _ndimage() -> types.ModuleType:
  # A third of a second, which the default method does not wait for.
  return importlib.import_module('scipy.ndimage')


def enlarge(
  array: Float[np.ndarray, 'h w'], size: tuple[int, int]
) -> Float[np.ndarray, 'h2 w2']:
  """Returns alpha in [0, 1] at (width, height), bilinear."""
  resized = Image.fromarray(array).resize(size, Image.Resampling.BILINEAR)
  return np.clip(np.asarray(resized), 0, 1)


def _upsample_guided(
  probs: Float[np.ndarray, 'h w'], photo: Image.Image
) -> Float[np.ndarray, 'h2 w2']:
  """Enlarges alpha by the fast guided filter: locally linear in colour.

  The function's coefficients are found at the network's resolution and
  enlarged; the function is then applied to the photo's own colours.
  """
  height, width = probs.shape
  # Box: the mean colour of what each pixel of the map covers.
  small = photo.resize((width, height), Image.Resampling.BOX)
  guide = np.asarray(small, np.float32) / 255
  mean_guide = _mean(guide)
  mean_probs = _mean(probs)
  covariance = (
    _mean(guide * probs[..., None]) - mean_guide * mean_probs[..., None]
  )
  outer = guide[..., :, None] * guide[..., None, :]
  variance = _mean(outer) - mean_guide[..., :, None] * mean_guide[..., None, :]
  # (covariance of colours + epsilon 1) slope = covariance with alpha, at each
  # pixel.
  slope = np.linalg.solve(
    variance + _EPSILON * np.eye(3, dtype=np.float32), covariance[..., None]
  )[..., 0]
  offset = mean_probs - (slope * mean_guide).sum(axis=-1)
  # A pixel is in several windows: their functions are averaged.
  slope, offset = _mean(slope), _mean(offset)
  alpha = _resize_plane(offset, photo.size)
  full = np.asarray(photo)
  # One channel at a time: planes of the photo's size take much memory.
  for channel in range(3):
    plane = _resize_plane(slope[..., channel], photo.size)
    alpha += plane * (full[..., channel] * np.float32(1 / 255))
  return np.clip(alpha, 0, 1)


def _mean(array: np.ndarray) -> np.ndarray:
  size = (2 * _RADIUS + 1,) * 2 + (1,) * (array.ndim - 2)
  return _ndimage().uniform_filter(array, size, mode='nearest')


def _resize_plane(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
  return np.array(image.resize(size, Image.Resampling.BILINEAR))


def _solve_matting(
  probs: Float[np.ndarray, 'h w'], photo: Image.Image
) -> Float[np.ndarray, 'h2 w2']:
  """Solves the undecided band by closed-form matting, at a bounded size."""
  scale = min(1, _MATTING_SIDE / max(photo.size))
  width, height = (max(1, round(side * scale)) for side in photo.size)
  size = width, height
  alpha = enlarge(probs, size)
  margin = max(1, round(max(size) * _BAND))
  # border_value: where the photo ends there is no edge to keep away from.
  sure = _ndimage().binary_erosion(
    alpha > 0.95, iterations=margin, border_value=1
  )
  gone = _ndimage().binary_erosion(
    alpha < 0.05, iterations=margin, border_value=1
  )
  # With nothing sure on either side, or nothing between, there is nothing to
  # solve.
  if sure.any() and gone.any() and not (sure | gone).all():
    trimap = np.where(sure, 1.0, np.where(gone, 0.0, 0.5))
    small = photo.resize(size, Image.Resampling.BOX) if scale < 1 else photo
    estimate_alpha_cf = _load_pymatting()
    with _matting_lock:
      solved = estimate_alpha_cf(np.asarray(small) / 255.0, trimap)
    alpha = np.clip(solved, 0, 1).astype(np.float32)
  return alpha if scale == 1 else _upsample_guided(alpha, photo)


def _load_pymatting():
  try:
    # Compiles itself at the first import after its installation: a minute.
    module = importlib.import_module('pymatting.alpha.estimate_alpha_cf')
  except ImportError as error:
    raise errors.UserError(
      'The refinement by matting needs pymatting: '
      f'{errors.install_command("matting")}.'
    ) from error
  except (OSError, RuntimeError) as error:
    # Numba keeps what it compiles beside pymatting or in the home folder.
    raise errors.UserError(
      f'The refinement by matting cannot be compiled ({error}). Where packages '
      'and the home folder are read-only, set NUMBA_CACHE_DIR to a folder that '
      'can be written to.'
    ) from error
  return module.estimate_alpha_cf


def _find_largest(alpha: Float[np.ndarray, 'h w']) -> Bool[np.ndarray, 'h w']:
  """Returns the largest part whose alpha is not near 0, diagonals joined."""
  parts, count = _ndimage().label(alpha > 0.1, structure=np.ones((3, 3)))
  if count < 2:
    return np.ones(alpha.shape, bool)
  # By the sum of alpha, so that faint parts count for less.
  sizes = np.bincount(parts.ravel(), weights=alpha.ravel())
  sizes[0] = 0  # Label 0 is what is outside of all parts.
  # Fainter pixels belong to the part that they surround.
  _, nearest = _ndimage().distance_transform_edt(
    parts == 0, return_indices=True
  )
  return parts[tuple(nearest)] == sizes.argmax()


def _find_holes(alpha: Float[np.ndarray, 'h w']) -> Bool[np.ndarray, 'h w']:
  solid = alpha >= 0.5
  return _ndimage().binary_fill_holes(solid) & ~solid
