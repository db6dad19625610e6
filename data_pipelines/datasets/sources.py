"""Loads the pairs that a training's `config.data` names."""

import os
from pathlib import Path

import numpy as np

from data_pipelines.datasets import (
  decoding,
  demo,
  folder,
  merging,
  published,
  records,
  splitting,
)
from data_pipelines.io import errors

_STORED = *(f'tfds/{name}' for name in published.DATA_SETS), 'tfds/combined'
SOURCES = ('demo', 'folder', *published.DATA_SETS, *_STORED)


def load_pairs(
  name: str,
  directory: str | os.PathLike,
  *,
  validation_share: float,
  limit: int,
  demo_count: int,
  demo_size: int,
) -> tuple[list[records.Pair], list[records.Pair]]:
  """Returns the checked training and validation pairs of a data set.

  Every row of a folder is used, and of a set that was stored from one.

  Args:
    name: 'folder' for a folder of photos and masks (see `folder.py`); 'p3m',
      'cod10k' (its camouflaged photos) or 'people' as published; 'tfds/NAME'
      for what `tfds_sets.py` made; 'demo' for the embedded set, which is drawn
      into the directory first. Test pairs are left out.
    directory: Folder of the data set.
    validation_share: Share of the pairs, in (0, 1), in data sets without
      validation pairs.
    limit: Use only so many pairs, drawn at random, always the same; 0 for all.
    demo_count: Number of pictures of the demo set.
    demo_size: Their height and width in pixels.

  Raises:
    MissingFileError: if the folder or a file in it is missing.
    UserError: if the set is not as it should be; the files are named.
  """
  if name not in SOURCES:
    raise errors.UserError(
      f'Unknown config.data.name {name!r}; choose one of {", ".join(SOURCES)}.'
    )
  if not directory:
    raise errors.UserError(
      'config.data.dir is not set: pass --config.data.dir=FOLDER, a folder '
      'with Images/ and Masks/ or a Dataset.csv.'
    )
  if name == 'demo':
    demo.make_demo(
      Path(directory), count=demo_count, size=(demo_size, demo_size), seed=42
    )
  if name in _STORED:
    # Imported here: it takes seconds, and only these sets need it.
    from data_pipelines.datasets import tfds_sets

    pairs = tfds_sets.load(name.removeprefix('tfds/'), directory)
  elif name in published.DATA_SETS:
    pairs = published.DATA_SETS[name].read(directory)
  else:
    pairs = folder.read_folder(directory)
  if name == 'cod10k':
    pairs = [pair for pair in pairs if merging.choose_cod10k(pair, 'cam')]
  pairs = [pair for pair in pairs if pair.split != 'test']
  if limit:
    drawn = np.random.RandomState(42).permutation(len(pairs))[:limit]
    pairs = [pairs[index] for index in sorted(drawn.tolist())]
  if name not in _STORED:  # Else it was done when the set was made.
    # Last, so that only chosen files are looked at.
    decoding.check_pairs(pairs)
  return splitting.split_pairs(pairs, validation_share=validation_share)
