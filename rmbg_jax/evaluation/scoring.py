"""Scores images one by one, in several processes.

JAX is not imported here: a process that scores starts in a second.
"""

import contextlib
import dataclasses
import functools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from data_pipelines.datasets import decoding, records
from data_pipelines.io import files, images, masks, parallel, ranges
from data_pipelines.io.errors import UserError
from rmbg_jax.evaluation import matting, saliency
from rmbg_jax.inference import rendering


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
  """A prediction to score.

  Attributes:
    pair: Photo and truth.
    prediction: A mask's file, or alpha (h, w) in [0, 1]; an exception if it
      could not be made.
    kinds: Kinds of metrics to compute, of `metrics.GROUPS`.
    binarize: Whether the truth is 1 where it is above one half, and 0
      elsewhere, before anything.
    band: The unknown band's radius in pixels, where there is no trimap.
    save_as: Path to write an alpha to as an 8-bit mask, None for nowhere.
    scales: Value of full foreground in files of predictions, by kind of values
      (`masks.Plane.stored`); see `read_alpha`.
  """

  pair: records.Pair
  prediction: Path | np.ndarray | Exception
  kinds: tuple[str, ...]
  binarize: bool
  band: int
  save_as: Path | None = None
  scales: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
  """The scores of one prediction.

  Attributes:
    image: What `results.Results` has of the image.
    values: Values by the keys of `metrics.METRICS`.
    curves: Curves (256,) by name and table, such as `f_raw`.
    empty: Whether the truth has no foreground; the values are then only
      `mae_raw` and `area_raw`, the share of pixels taken for foreground.
    resized: Whether the prediction was of another size than the truth.
    error: Why there is no score, or ''.
  """

  image: dict[str, str] = dataclasses.field(default_factory=dict)
  values: dict[str, float] = dataclasses.field(default_factory=dict)
  curves: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
  empty: bool = False
  resized: bool = False
  error: str = ''


@contextlib.contextmanager
def open_map(
  processes: int,
) -> Iterator[Callable[[Iterable[Job]], Iterator[Score]]]:
  """Yields what scores jobs in their order, in so many processes.

  Only a few jobs wait at a time, so that memory does not grow with their
  number.
  """
  if processes == 1:
    yield functools.partial(map, score)
    return
  # Forking a process that runs JAX's threads may hang.
  context = multiprocessing.get_context('spawn')
  with futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
    yield functools.partial(parallel.map_in_order, score, pool=pool, ahead=2)


def score(job: Job) -> Score:
  """Scores one prediction; what is wrong with its files is in the result."""
  pair, path = job.pair, job.save_as
  if isinstance(job.prediction, Path):
    path = job.prediction
  image = {
    'name': pair.name,
    'source': pair.source,
    'category': pair.category,
    'photo': str(pair.image_path.absolute()),
    'truth': str(pair.mask_path.absolute()),
    'prediction': str(path.absolute()) if path else '',
  }
  try:
    return dataclasses.replace(_score(job), image=image)
  except (OSError, ValueError) as error:
    return Score(image=image, error=str(error))


def read_truth(
  pair: records.Pair, *, binarize: bool
) -> UInt8[np.ndarray, 'h w']:
  """Returns a pair's mask, 255 for all foreground; see `Job.binarize`.

  Raises:
    UserError: if it cannot be read or it is unclear what is meant.
  """
  stored = images.open_image(pair.mask_path)
  mask = np.asarray(decoding.convert_mask(stored, pair, is_graded=binarize))
  return np.where(mask > 128, 255, 0).astype(np.uint8) if binarize else mask


def read_alpha(path: Path, scales: Mapping[str, int]) -> Image.Image:
  """Returns a prediction: a mask, or a cut-out's transparency.

  Args:
    path: Path of the file.
    scales: Value of full foreground for each of `masks.SCALED`, as found in a
      folder's predictions. Without it a file is judged alone, and integers of 0
      and 1 are taken for nearly black.

  Returns:
    8-bit grey, or floats in [0, 1] where the file has more than 8 bits.

  Raises:
    UserError: if the file cannot be read or it is unclear what is meant.
  """
  image = images.open_image(path)
  with images.named(path):
    plane = masks.read_plane(image)
    low, high = ranges.find_extremes(plane.values)
    if plane.stored not in masks.SCALED:
      return Image.fromarray(plane.values)
    scale = scales.get(plane.stored) or max(
      ranges.find_scale(low, high, floats=plane.stored == 'floats'),
      1 if plane.stored == 'floats' else 255,
    )
    # Interpolation overshoots by less (`ranges.py`).
    if high > 1.1 * scale or low < -0.1 * scale:
      raise UserError(
        f'its values are from {low:g} to {high:g}; those of other files are '
        f'from 0 to {scale}'
      )
  if plane.values.dtype == np.uint8 and scale == 255:
    return Image.fromarray(plane.values)
  values = plane.values.astype(np.float32) / np.float32(scale)
  return Image.fromarray(np.clip(values, 0, 1))


def _score(job: Job) -> Score:
  if isinstance(job.prediction, Exception):
    raise job.prediction
  truth = read_truth(job.pair, binarize=job.binarize)
  size = truth.shape[::-1]
  if isinstance(job.prediction, np.ndarray):
    grey = Image.fromarray(rendering.to_mask(job.prediction))
    if job.save_as:
      with files.write_atomically(job.save_as) as partial:
        grey.save(partial, format='png', compress_level=1)
    exact = Image.fromarray(job.prediction.astype(np.float32))
  else:
    grey = exact = read_alpha(job.prediction, job.scales)
    if exact.mode == 'F':
      grey = Image.fromarray(rendering.to_mask(np.asarray(exact)))
  resized = grey.size != size
  if resized:
    grey, exact = (
      image.resize(size, Image.Resampling.BILINEAR) for image in (grey, exact)
    )
  # A paper's masks are files of 8 bits; what is not stretched is exact.
  published = np.asarray(grey) / 255
  alpha = np.asarray(exact, np.float64)
  alpha = np.clip(alpha if exact.mode == 'F' else alpha / 255, 0, 1)
  return dataclasses.replace(
    _compute(job, published=published, alpha=alpha, truth=truth),
    resized=resized,
  )


def _compute(
  job: Job, *, published: np.ndarray, alpha: np.ndarray, truth: np.ndarray
) -> Score:
  share = truth / 255
  mae = float(np.abs(alpha - share).mean())
  # Any value counts in a soft matte, only those above one half in a mask.
  if truth.max() <= (128 if 'saliency' in job.kinds else 0):
    area = float(np.mean(alpha > 0.5))
    return Score(empty=True, values={'mae_raw': mae, 'area_raw': area})
  values, curves = {}, {}
  if 'saliency' in job.kinds:
    for table, prediction, true in (
      # Papers binarise at > 128, training at >= 128 (`metrics.TABLES`).
      ('stretched', saliency.stretch(published), truth > 128),
      ('raw', alpha, truth > 127),
    ):
      found, drawn = saliency.compute_saliency(prediction, true)
      values |= {f'{key}_{table}': value for key, value in found.items()}
      curves |= {f'{key}_{table}': curve for key, curve in drawn.items()}
    values['mae_raw'] = mae
  if 'matting' in job.kinds:
    unknown = _read_trimap(job.pair.mask_path, truth.shape)
    if unknown is None:
      unknown = matting.make_unknown_band(share, radius=job.band)
    values |= matting.compute_matting(alpha, share, unknown)
  return Score(values=values, curves=curves)


def _read_trimap(mask_path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
  """Returns the unknown band of the trimap beside a mask, None if none is."""
  path = mask_path.parent.parent / 'trimap' / f'{mask_path.stem}.png'
  if not path.exists():
    return None
  image = images.open_image(path)
  with images.named(path):
    trimap = np.asarray(images.to_rgb(image).convert('L'))
    if 0 < trimap.max(initial=0) < 128:
      raise UserError(
        f'the trimap has values from 0 to {trimap.max()}; store 0 for the '
        'background, 128 for what is unknown, 255 for the foreground'
      )
  if trimap.shape != shape:
    raise UserError(
      f'{path}: the trimap is {trimap.shape[1]}x{trimap.shape[0]} pixels, the '
      f'mask {shape[1]}x{shape[0]}. Store both at one size.'
    )
  return (trimap > 0) & (trimap < 255)
