"""Finds a published data set's folders and pairs the files in them."""

import collections
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from data_pipelines.datasets import folder, records
from data_pipelines.io import errors, words

# Archives are unpacked into a folder of their own name, some twice over.
_DEPTH = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subset:
  """Photos and masks of equal stems, in two folders of a published tree.

  Attributes:
    images: The photos' folder, relative to the tree's root.
    masks: The masks' folder.
    source: See `records.Pair`, as the following.
    split: Split of every pair.
    category: Category of every pair.
    label: Label of every pair.
    count: The number of pairs that was published.
  """

  images: str
  masks: str
  source: str
  split: str
  category: str
  label: str
  count: int


def read_subsets(
  directory: str | os.PathLike,
  subsets: Sequence[Subset],
  *,
  expected: str,
  found: list[str],
) -> tuple[Path, list[records.Pair]]:
  """Reads those subsets of a published data set that are there.

  Args:
    directory: The tree, or a folder that it is somewhere in.
    subsets: Subsets of the data set; one is enough.
    expected: The tree as it is published, for the error.
    found: Collects files without partner.

  Returns:
    (the tree's root, pairs in the order of the subsets, by stem in each).

  Raises:
    MissingFileError: if there is no such folder.
    UserError: if it has none of the subsets.
  """
  root = _find_root(Path(directory), subsets, expected)
  pairs = []
  for subset in subsets:
    image_dir, mask_dir = root / subset.images, root / subset.masks
    if image_dir.is_dir() != mask_dir.is_dir():
      missing = mask_dir if image_dir.is_dir() else image_dir
      raise errors.UserError(f'{missing} is missing. Expected\n{expected}')
    if not image_dir.is_dir():
      continue
    matched, problems = folder.pair_by_stem(image_dir, mask_dir)
    found.extend(problems)
    pairs += [
      dataclasses.replace(
        pair,
        source=subset.source,
        split=subset.split,
        category=subset.category,
        label=subset.label,
      )
      for pair in matched
    ]
  if not pairs:
    raise errors.UserError(f'{root}: no pair in it. Expected\n{expected}')
  return root, pairs


def describe_counts(
  pairs: Sequence[records.Pair], published: dict[tuple[str, str], int]
) -> list[str]:
  """Returns a line per source and split: pairs found, of those published."""
  counts = collections.Counter((pair.source, pair.split) for pair in pairs)
  lines = []
  for key in sorted(counts.keys() | published.keys()):
    line = f'{" ".join(key).strip()}: {words.count(counts[key], "pair")}'
    if key in published and counts[key] != published[key]:
      line += f', but {published[key]:,} were published'
    lines.append(line)
  return lines


def _find_root(
  directory: Path, subsets: Sequence[Subset], expected: str
) -> Path:
  if not directory.is_dir():
    raise errors.MissingFileError(f'{directory}: no such folder.')
  level = [directory]
  for _ in range(_DEPTH + 1):
    for candidate in level:
      if any(
        (candidate / place).is_dir()
        for subset in subsets
        for place in (subset.images, subset.masks)
      ):
        return candidate
    level = [
      entry
      for candidate in level
      for entry in sorted(candidate.iterdir())
      if entry.is_dir()
    ]
  raise errors.UserError(
    f'{directory}: not the tree of this data set. Expected\n{expected}'
  )
