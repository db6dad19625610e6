"""Renames, resizes, lists and shows the pairs of a folder."""

import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipelines.datasets import dataset_csv, decoding, folder, merging
from data_pipelines.io import errors, files
from data_pipelines.tools import sheets, writing


def rename(directory: Path, category: str) -> int:
  """Renames pairs, photo and mask alike, in their order.

  An interrupted call leaves at most one pair half renamed, and is repeated
  after that mask has been renamed too; `read_folder` names it.

  Returns:
    The number of pairs.

  Raises:
    UserError: as `folder.read_folder`; or if there is a
      Dataset.csv, which would not fit any more, or a name is taken.
  """
  _refuse_csv(directory)
  if Path(category).name != category:
    raise errors.UserError(
      f'--category={category}: names of files begin with it. Pass a word '
      'without slashes.'
    )
  plan = {}
  for number, pair in enumerate(folder.read_folder(directory), start=1):
    for path in (pair.image_path, pair.mask_path):
      plan[path] = path.with_stem(f'{category}_{number:05d}')
  # All names are found free before any file is renamed.
  moves = {old: new for old, new in plan.items() if old != new}
  taken = [str(new) for new in moves.values() if new.exists()]
  folder.report(
    taken, remedy='Choose another --category; these names are taken'
  )
  for old, new in moves.items():
    old.rename(new)
  return len(plan) // 2


def create_csv(directory: Path, category: str) -> int:
  """Writes the Dataset.csv of a folder that has none; returns its rows.

  Without a category, each pair's is the part of its name before the first '_'.
  """
  _refuse_csv(directory)
  pairs = []
  for pair in folder.read_folder(directory):
    first, separator, _ = pair.name.partition('_')
    own = first if separator else ''
    pairs.append(dataclasses.replace(pair, category=category or own))
  dataset_csv.write(directory / dataset_csv.NAME, pairs)
  return len(pairs)


def resize(directory: Path, out: Path, size: str) -> int:
  """Writes the folder's pairs at another size; returns how many."""
  pairs = merging.name_pairs(folder.read_folder(directory), prefixed=False)
  written, rejected = writing.prepare(
    pairs, out=out, size=size, allow_empty=True, invert=(), own=directory
  )
  folder.report([r for _, r in rejected], remedy='These pairs were left out')
  return len(written)


def plot(directory: Path, out: Path, count: int) -> int:
  """Writes a PNG of pairs drawn at random: photo, mask, photo times mask."""
  pairs = folder.read_folder(directory)
  drawn = np.random.RandomState(42).permutation(len(pairs))[:count]
  rows = []
  for index in sorted(drawn):
    photo, mask = decoding.read_pair(pairs[index], allow_empty=True)
    cut = Image.composite(photo, Image.new('RGB', photo.size, 'white'), mask)
    rows.append([photo, mask.convert('RGB'), cut])
  with files.write_atomically(out) as partial:
    sheets.make_sheet(rows, cell=200, columns=2).save(partial, 'png')
  return len(rows)


def _refuse_csv(directory: Path) -> None:
  if directory.is_dir():
    for entry in directory.iterdir():
      if entry.name.lower() == dataset_csv.NAME.lower():
        raise errors.UserError(f'{entry} exists already. Remove it first.')
