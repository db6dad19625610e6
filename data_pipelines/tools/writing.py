"""Writes chosen pairs as one data set in the folder layout."""

import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tqdm
from PIL import Image, ImageOps

from data_pipelines.datasets import dataset_csv, decoding, folder, records
from data_pipelines.io import errors, files, images, parallel

OPTIONS_NAME = 'prepare.json'
REJECTED_NAME = 'Rejected.csv'
NONCAM = 'cod10k-noncam'

Resize = Callable[[tuple[int, int]], tuple[int, int]]


def _parse_size(text: str) -> Resize:
  """Returns a function from a photo's (height, width) to the new one."""
  sides = text.lower().split('x') if text else []
  if len(sides) > 2 or not all(
    side.isdecimal() and int(side) for side in sides
  ):
    raise errors.UserError(
      f'--size={text}: pass the longest side, such as 640, or HEIGHTxWIDTH, '
      'such as 512x512.'
    )
  if len(sides) == 2:
    exact = int(sides[0]), int(sides[1])
    return lambda size: exact

  def shrink(size):
    if not sides:
      return size
    scale = min(1, int(sides[0]) / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

  return shrink


def _prepare_pair(
  pair: records.Pair,
  *,
  out: Path,
  resize: Resize,
  allow_empty: bool,
  invert: bool,
) -> records.Pair:
  """Writes a pair's files, if they are not there yet; returns the new pair."""
  result = dataclasses.replace(
    pair,
    image_path=out / 'Images' / pair.name,
    mask_path=out / 'Masks' / f'{Path(pair.name).stem}.png',
  )
  if _is_done(pair, result):
    return result
  own = images.read_size(pair.image_path)
  size = resize(own)
  photo, mask = decoding.read_pair(
    pair, allow_empty=allow_empty or invert, reduce_to=size
  )
  if invert:
    mask = ImageOps.invert(mask)
    if not allow_empty and mask.getextrema()[1] == 0:
      raise errors.UserError(f'{pair.mask_path}: the inverted mask is empty.')
  # Before anything is written: it may refuse the pair.
  mask = _resize_mask(mask, pair, size)
  with files.write_atomically(result.image_path) as partial:
    form = 'jpeg' if result.image_path.suffix == '.jpg' else 'png'
    # Not encoded again, which would cost quality.
    if form == 'jpeg' and size == own and _is_plain_jpeg(pair.image_path):
      shutil.copyfile(pair.image_path, partial)
    else:
      images.resize_image(photo, size=size).save(partial, form, quality=95)
  with files.write_atomically(result.mask_path) as partial:
    mask.save(partial, 'png')
  return result


def _resize_mask(
  mask: Image.Image, pair: records.Pair, size: tuple[int, int]
) -> Image.Image:
  """Returns the mask at (height, width); refuses one that vanishes there."""
  resized = images.resize_image(mask, size=size)
  least = 2 if pair.label == 'alpha' else 128
  if np.asarray(mask).any() and np.asarray(resized).max() < least:
    raise errors.UserError(
      f'{pair.mask_path}: at {size[1]}x{size[0]} pixels next to nothing is '
      'left of its foreground. Pass a larger --size, or leave the pair out.'
    )
  return resized


def prepare(
  pairs: Sequence[records.Pair],
  *,
  out: Path,
  size: str,
  allow_empty: bool,
  invert: Sequence[str],
  own: str | os.PathLike = '',
) -> tuple[list[records.Pair], list[tuple[str, str]]]:
  """Writes the data set; `Dataset.csv` comes last.

  Args:
    pairs: Pairs with the names and splits that they are to have.
    out: The new data set's folder.
    size: '' to keep sizes, '640' for the longest side at most, '512x512' for
      exactly (height)x(width).
    allow_empty: Whether any mask may be empty; COD10K's NonCAM masks may.
    invert: The sources whose masks are 255 for the background.
    own: The user's folder of some pairs. Another one's may have the same names.

  Returns:
    (the written pairs, (name, reason) of what could not be used).

  Raises:
    UserError: if the folder is not for this data set, the size is no size, or
      nothing is usable.
    OSError: if it cannot be written, as when the disk is full.
  """
  resize = _parse_size(size)
  there = {pair.source for pair in pairs}
  if unknown := sorted(set(invert) - there):
    raise errors.UserError(
      f'--invert={",".join(unknown)}: no pair has this Source; there are '
      f'{", ".join(sorted(there))}.'
    )
  options = {'size': size, 'invert': sorted(invert)}
  if own:
    options['folder'] = str(Path(own).resolve())
  _check_options(out, options)

  def attempt(pair):
    try:
      return _prepare_pair(
        pair,
        out=out,
        resize=resize,
        allow_empty=allow_empty or pair.source == NONCAM,
        invert=pair.source in invert,
      )
    # Returned, not raised: one bad pair stops no other.
    except (ValueError, FileNotFoundError) as error:
      return pair.name, str(error)
    except OSError as error:
      if error.errno not in (errno.ENAMETOOLONG, errno.EILSEQ):
        raise
      return pair.name, f'{pair.image_path}: {error.strerror}. Rename it.'

  written, rejected = [], []
  results = parallel.map_in_order(attempt, pairs)
  for result in tqdm.tqdm(results, total=len(pairs), unit='pair'):
    (written if isinstance(result, records.Pair) else rejected).append(result)
  if not written:
    raise errors.UserError(
      f'None of {len(pairs)} pairs can be used; the first: {rejected[0][1]}'
    )
  dataset_csv.write(out / dataset_csv.NAME, written)
  return written, rejected


def _check_options(out: Path, options: dict) -> None:
  """Refuses a folder with files of other options or of other programs."""
  path, earlier = out / OPTIONS_NAME, {}
  if path.exists():
    earlier = files.parse_json(
      path.read_bytes(), path, remedy='Pass another --output.'
    )
    if any(earlier.get(key, new) != new for key, new in options.items()):
      raise errors.UserError(
        f'{out} was made with {earlier}, not {options}. Pass another --output.'
      )
  elif any(out.glob('[!.]*')):  # Hidden ones, as of a file manager, may be.
    raise errors.UserError(
      f'{out} has files that are not of this command. Pass another --output.'
    )
  # Before any pair, so that an interrupted run is known by its options.
  files.write_text(path, json.dumps(earlier | options))
  for hidden in out.glob('*/.*'):
    if files.is_unfinished(hidden.name):  # Left by a run that was killed.
      hidden.unlink()


def _is_done(pair: records.Pair, result: records.Pair) -> bool:
  try:
    written = min(_find_times(result))
  except FileNotFoundError:
    return False
  return max(_find_times(pair)) <= written  # Both are newer.


def _find_times(pair: records.Pair) -> list[int]:
  return [x.stat().st_mtime_ns for x in (pair.image_path, pair.mask_path)]


def _is_plain_jpeg(path: Path) -> bool:
  with images.opened(path) as image:
    upright = images.read_orientation(image) == 1
    return upright and image.format == 'JPEG' and image.mode in ('RGB', 'L')


def read_own(directory: str, problems: list[str]) -> list[records.Pair]:
  """Returns a folder's pairs; those without a source are of 'folder'."""
  return [
    dataclasses.replace(pair, source=pair.source or 'folder')
    for pair in folder.read_folder(directory, problems)
  ]


def write_rejected(path: Path, rejected: Sequence[tuple[str, str]]) -> None:
  """Writes a table of what was left out: names and reasons."""
  rows = ({'Image Name': name, 'Reason': reason} for name, reason in rejected)
  files.write_csv(path, ('Image Name', 'Reason'), rows)
