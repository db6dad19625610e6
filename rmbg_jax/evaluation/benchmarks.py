"""Finds the photos to score on: published test sets, or any folder of pairs."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from data_pipelines.datasets import (
  dataset_csv,
  folder,
  published,
  records,
  salient_sets,
)
from data_pipelines.io import errors

# Folders that a published tree may be unpacked into.
_DEPTH = 3


_KNOWN = {
  source: salient_sets.Benchmark(source, title, known.counts[source, split])
  for source, split, title, known in (
    ('p3m-500-p', 'test', 'P3M-500-P', published.P3M),
    ('p3m-500-np', 'test', 'P3M-500-NP', published.P3M),
    ('cod10k', 'test', 'COD10K-Test-CAM', published.COD10K),
    ('people', 'val', 'People-val', published.PEOPLE),
  )
} | {known.source: known for known in salient_sets.BENCHMARKS}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSet:
  """A set of photos with their truths.

  Attributes:
    name: Name in folders and tables.
    directory: Folder that the user named.
    pairs: Sorted by name.
    binarize: Whether the truth is graded and stands for a binary one, which is
      1 where it is above one half (PASCAL-S), in every table.
    published: Number of published pairs, 0 if not known.
    learnable: Sources that have training rows beside the ones scored. A
      checkpoint that names one of them was not trained on these.
    problems: Files that were left out, and why.
  """

  name: str
  directory: Path
  pairs: tuple[records.Pair, ...]
  binarize: bool = False
  published: int = 0
  learnable: frozenset[str] = frozenset()
  problems: tuple[str, ...] = ()


def load_data_sets(
  directory: str | os.PathLike, *, splits: Sequence[str] = ()
) -> list[DataSet]:
  """Returns the sets to score on in a folder; P3M-10k has two.

  Args:
    directory: P3M-10k (or one of its P3M-500s), COD10K-v3, People
      Segmentation, a benchmark that `datasets/salient_sets.py` knows by its
      folder's name, or any folder that `folder.read_folder` reads.
    splits: Splits whose rows are taken; none: all but those for training.

  Raises:
    MissingFileError: if there is no such folder.
    UserError: if nothing is known about its layout, or no row is left.
  """
  directory = Path(directory)
  if not directory.is_dir():
    raise errors.MissingFileError(
      f'--data={directory}: no such folder. Pass the folder of a data set.'
    )
  problems: list[str] = []
  pairs, is_published = _read(directory, problems)
  chosen = [
    pair
    for pair in pairs
    if (pair.split in splits if splits else pair.split != 'train')
    # The published test is of the photos with an object.
    and not (is_published and pair.source == 'cod10k-noncam')
  ]
  if not chosen:
    there = sorted({pair.split for pair in pairs} - {''})
    if splits and not there:
      raise errors.UserError(
        f'--data={directory}: the set has no splits (the Split column of its '
        f'{dataset_csv.NAME} is missing or empty), so '
        f'--split={",".join(splits)} finds none of its {len(pairs)} pairs. '
        'Leave --split out to score on all of them.'
      )
    raise errors.UserError(
      f'--data={directory}: none of the {len(pairs)} pairs is of the split to '
      f'score on; there are {", ".join(there)}. Pass --split=NAME[,NAME].'
    )
  whole = DataSet(
    name=directory.resolve().name,
    directory=directory,
    pairs=tuple(chosen),
    learnable=frozenset(p.source for p in pairs if p.split == 'train'),
    problems=tuple(problems),
  )
  if not is_published:
    return [whole]
  return [
    dataclasses.replace(
      whole,
      name=_KNOWN[source].title,
      pairs=tuple(pair for pair in chosen if pair.source == source),
      binarize=_KNOWN[source] in salient_sets.BENCHMARKS,
      # A choice of rows is not what papers score on.
      published=0 if splits else _KNOWN[source].count,
    )
    for source in sorted({pair.source for pair in chosen})
  ]


def find_trained_on(
  data_set: DataSet, training_data: Sequence[str]
) -> list[str]:
  """Returns the sources of a set that a network was trained on.

  Held-out rows do not count: those of a source that has training rows of its
  own in the same set. `training_data` is what a checkpoint's description names.
  """
  return sorted(
    {
      pair.source
      for pair in data_set.pairs
      if pair.source in training_data
      and (pair.split == 'train' or pair.source not in data_set.learnable)
    }
  )


def _read(
  directory: Path, problems: list[str]
) -> tuple[list[records.Pair], bool]:
  """Returns a folder's pairs, and whether it has a published layout."""
  # One of P3M-10k's test sets, in its tree or alone.
  name = directory.resolve().name.lower()
  for subset in published.P3M.subsets:
    if (subset.facts['source'], subset.facts['split']) == (name, 'test'):
      own = [Path(place).name for place in (subset.images, subset.masks)]
      alone = published.Subset(*own, subset.facts)
      known = dataclasses.replace(published.P3M, subsets=(alone,))
      return known.read(directory, problems), True
  for known in published.DATA_SETS.values():
    marks = ('*/' * depth + known.mark for depth in range(_DEPTH + 1))
    if any(any(directory.glob(mark)) for mark in marks):
      return known.read(directory, problems), True
  names = {entry.name.lower() for entry in directory.iterdir()}
  # A list that somebody has made counts more than the folder's name.
  if salient_sets.find_benchmark(directory) and 'dataset.csv' not in names:
    return salient_sets.read_saliency(directory, problems), True
  return folder.read_folder(directory, problems), False
