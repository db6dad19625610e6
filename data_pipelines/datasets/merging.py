"""Combines several data sets into one: choice of pairs, names, splits."""

import collections
import dataclasses
import filecmp
import math
from collections.abc import Iterable, Sequence

from data_pipelines.datasets import published, records, splitting
from data_pipelines.io import suffixes

COD10K_CHOICES = ('cam', 'cam+background', 'all')
# The usual share of pairs for validation.
SHARES = {'original': 0.2, 'official': 0.05}


def choose_cod10k(pair: records.Pair, choice: str) -> bool:
  """Returns whether a pair belongs to one of `COD10K_CHOICES`."""
  if pair.source != 'cod10k-noncam' or choice == 'all':
    return True
  return choice == 'cam+background' and pair.category == published.BACKGROUND


def name_pairs(
  pairs: Iterable[records.Pair], *, prefixed: bool = True
) -> list[records.Pair]:
  """Returns pairs named CATEGORY_STEM.jpg (or .png), sorted by name.

  Without a category, names begin with the source; with neither if `prefixed` is
  False. Where that is not unique, as of photos that are in two splits, the
  source and the split are added, and then a number.
  """
  stems = {}
  for pair in pairs:
    prefix = f'{pair.category or pair.source}_' if prefixed else ''
    stem = pair.image_path.stem
    if not stem.startswith(prefix):
      stem = prefix.lstrip('_') + stem
    # File systems that ignore case must not mix pairs up.
    stems.setdefault(stem.lower(), []).append((stem, pair))
  named, taken = [], set()
  for same in stems.values():
    for stem, pair in same:
      if len(same) > 1:
        stem = f'{stem}_{pair.source}_{pair.split}'.rstrip('_')
      unique, number = stem, 1
      while unique.lower() in taken:
        number += 1
        unique = f'{stem}_{number}'
      taken.add(unique.lower())
      is_jpeg = pair.image_path.suffix.lower() in suffixes.JPEG
      name = unique + ('.jpg' if is_jpeg else '.png')
      named.append(dataclasses.replace(pair, name=name))
  return sorted(named, key=lambda pair: pair.name)


def split_originally(
  pairs: Sequence[records.Pair], share: float
) -> tuple[list[records.Pair], list[records.Pair]]:
  """Splits at random what the Keras project trains on: 25,599 pairs.

  That is everything but P3M-500-P, test sets and empty masks included. Pass all
  that was published, sorted by name: who is held out must not depend on what is
  chosen of them later. `share`, in (0, 1), is for validation.

  Returns:
    (training and validation pairs, pairs left out).
  """
  used = [pair for pair in pairs if pair.source != 'p3m-500-p']
  left_out = [pair for pair in pairs if pair.source == 'p3m-500-p']
  return splitting.assign_splits(used, validation_share=share), left_out


def split_officially(
  pairs: Sequence[records.Pair], share: float
) -> tuple[list[records.Pair], list[records.Pair]]:
  """Keeps the published splits of pairs that are sorted by name.

  Sources without validation pairs give a share, in (0, 1), of their training
  pairs for it.

  Returns:
    (pairs, training pairs left out because the same photo is tested: one of
    that name in a published source, or one of equal name and content).
  """
  tested = collections.defaultdict(list)
  for pair in pairs:
    if pair.split == 'test':
      tested[pair.image_path.stem].append(pair)
  by_source = collections.defaultdict(list)
  left_out, kept = [], []
  for pair in pairs:
    same_name = tested.get(pair.image_path.stem, ())
    if pair.split == 'test':
      kept.append(pair)
    # Names alone may be the same by chance, in two sources or own folders.
    elif any(
      (pair.source == other.source and pair.source in published.SOURCES)
      or filecmp.cmp(pair.image_path, other.image_path, shallow=False)
      for other in same_name
    ):
      left_out.append(pair)
    else:
      by_source[pair.source].append(pair)
  for same in by_source.values():
    is_few = math.ceil(len(same) * share) == len(same)  # To hold some out.
    if is_few or any(pair.split == 'val' for pair in same):
      kept += [dataclasses.replace(p, split=p.split or 'train') for p in same]
    else:
      kept += splitting.assign_splits(same, validation_share=share)
  return sorted(kept, key=lambda pair: pair.name), left_out


def summarize(pairs: Sequence[records.Pair]) -> str:
  """Returns a table of the pairs per source, category and split."""
  counts = collections.Counter(
    (pair.source, pair.category, pair.split) for pair in pairs
  )
  groups = sorted({key[:2] for key in counts})
  counts.update(('all', '', pair.split) for pair in pairs)
  lines = [f'{"source":15} {"category":12} {"train":>7} {"val":>7} {"test":>7}']
  for source, category in [*groups, ('all', '')]:
    numbers = (counts[source, category, split] for split in records.SPLITS)
    cells = ''.join(f'{number:8,}' for number in numbers)
    lines.append(f'{source:15} {category:12}{cells}')
  return '\n'.join(lines)


SPLITS = {'original': split_originally, 'official': split_officially}
