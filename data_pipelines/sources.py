"""From the `config.data` of a training to lists of pairs."""

import os
from pathlib import Path

import numpy as np

from data_pipelines import demo, folder

SOURCES = ('demo', 'folder')


def load_pairs(
  name: str,
  directory: str | os.PathLike,
  *,
  validation_share: float,
  limit: int,
  demo_count: int,
  demo_size: int,
) -> tuple[list[folder.Pair], list[folder.Pair]]:
  """Returns the checked training and validation pairs of a data set.

  Args:
    name: 'folder' for a folder of photos and masks (see `folder.py`), 'demo'
      for the embedded set, which is drawn into the directory first.
    directory: where the data set is.
    validation_share: for data sets without a split of their own.
    limit: use only so many pairs, drawn at random, always the same; 0 for all.
    demo_count: number of pictures of the demo set.
    demo_size: their height and width in pixels.

  Raises:
    FileNotFoundError: if the folder or a file in it is missing.
    ValueError: if the set is not as it should be; the files are named.
  """
  if name not in SOURCES:
    raise ValueError(
      f'Unknown config.data.name {name!r}; choose one of {", ".join(SOURCES)}.'
    )
  if not directory:
    raise ValueError(
      'config.data.dir is not set: pass --config.data.dir=FOLDER, a folder '
      'with Images/ and Masks/ or a Dataset.csv.'
    )
  if name == 'demo':
    demo.make_demo(
      Path(directory), count=demo_count, size=(demo_size, demo_size), seed=42
    )
  pairs = folder.read_folder(directory)
  if limit:
    chosen = np.random.RandomState(42).permutation(len(pairs))[:limit]
    pairs = [pairs[index] for index in sorted(chosen)]
  folder.check_pairs(pairs)
  return folder.split_pairs(pairs, validation_share=validation_share)
