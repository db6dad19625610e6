"""Reads the data sets that this project trains on, as they are published.

P3M-10k: portraits with soft mattes. Faces are blurred in the training set and
in P3M-500-P, not in P3M-500-NP; trimaps are beside `mask/`, with equal names.
Li et al., "Privacy-Preserving Portrait Matting", ACM Multimedia 2021.

COD10K-v3: camouflaged animals. 5,066 photos have a camouflaged object (CAM).
The other 4,934 (NonCAM) have empty masks: 3,000 backgrounds, and 1,934 photos
that do show an object, which would teach a network to remove it. Two photos are
in both splits under the same name. Fan et al., "Camouflaged Object Detection",
CVPR 2020; "Concealed Object Detection", TPAMI 2021.

People Segmentation, of Kaggle's nikhilroxtomar/person-segmentation. The masks
hold 0 and 1 and look black; `masks.to_mask` scales them.
"""

import collections
import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from data_pipelines.datasets import folder, records
from data_pipelines.io import errors, words

BACKGROUND = 'background'  # The category of NonCAM photos without any object.
# Archives are unpacked into a folder of their own name, some twice over.
_DEPTH = 3


class Subset(NamedTuple):
  """Photos and masks of equal stems, in two folders of a published tree.

  The folders are relative to the tree's root; `facts` is what else a
  `records.Pair` says of them all.
  """

  images: str
  masks: str
  facts: dict[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSet:
  """A published data set.

  Attributes:
    layout: The tree, for errors.
    mark: Place in the tree that no other set has.
    subsets: Its parts; one is enough.
    counts: Numbers of published pairs by source and split.
    place: Its address, for a person.
    terms: Its terms, as far as known.
    complete: Gives pairs what only their names or lists below the root say, and
      collects what is wrong with those that are left out; or None.
    kaggle: Its handle at Kaggle, or ''.
    drive: Its archive's id at Google Drive, or ''.
  """

  layout: str
  mark: str
  subsets: tuple[Subset, ...]
  counts: dict[tuple[str, str], int]
  place: str
  terms: str
  complete: (
    Callable[[Path, list[records.Pair], list[str]], list[records.Pair]] | None
  ) = None
  kaggle: str = ''
  drive: str = ''

  def read(
    self, directory: str | os.PathLike, problems: list[str] | None = None
  ) -> list[records.Pair]:
    """Reads those subsets that are there; returns pairs sorted by name.

    The folder holds the tree, at any place. `problems` is as in `read_folder`.

    Raises:
      MissingFileError: if there is no such folder.
      UserError: for another tree, files without a partner, or unknown names.
    """
    root = self._find_root(Path(directory))
    pairs: list[records.Pair] = []
    found: list[str] = []
    for subset in self.subsets:
      image_dir, mask_dir = root / subset.images, root / subset.masks
      if image_dir.is_dir() != mask_dir.is_dir():
        missing = mask_dir if image_dir.is_dir() else image_dir
        raise errors.UserError(f'{missing} is missing. Expected\n{self.layout}')
      if not image_dir.is_dir():
        continue
      matched, unmatched = folder.pair_by_stem(image_dir, mask_dir)
      found += unmatched
      pairs += [dataclasses.replace(p, **subset.facts) for p in matched]
    if not pairs:
      raise errors.UserError(f'{root}: no pair in it. Expected\n{self.layout}')
    if self.complete:
      pairs = self.complete(root, pairs, found)
    folder.report(found, remedy=folder.PAIRING_REMEDY, problems=problems)
    # Names alone would not do: COD10K has some in both splits.
    return sorted(pairs, key=lambda pair: (pair.name, pair.split))

  def _find_root(self, directory: Path) -> Path:
    if not directory.is_dir():
      raise errors.MissingFileError(f'{directory}: no such folder.')
    places = [place for s in self.subsets for place in (s.images, s.masks)]
    level = [directory]
    # Level by level, so that the outermost tree is found.
    for _ in range(_DEPTH + 1):
      for candidate in level:
        if any((candidate / place).is_dir() for place in places):
          return candidate
      level = [
        entry
        for candidate in level
        for entry in sorted(candidate.iterdir())
        if entry.is_dir()
      ]
    raise errors.UserError(
      f'{directory}: not the tree of this data set. Expected\n{self.layout}'
    )


def describe_counts(
  pairs: Sequence[records.Pair], published: dict[tuple[str, str], int]
) -> str:
  """Returns a line per source and split: pairs found, of those published."""
  counts = collections.Counter((pair.source, pair.split) for pair in pairs)
  lines = []
  for key in sorted(counts.keys() | published.keys()):
    line = f'{" ".join(key).strip()}: {words.count(counts[key], "pair")}'
    if key in published and counts[key] != published[key]:
      line += f', but {published[key]:,} were published'
    lines.append(line)
  return '\n'.join(lines)


def _parse_names(
  root: Path, pairs: list[records.Pair], found: list[str]
) -> list[records.Pair]:
  """Reads names such as COD10K-CAM-1-Aquatic-1-BatFish-2.

  NonCAM names may lack the parts of the sub-class: COD10K-NonCAM-3-Flying-15.
  The category is the super-class in lower case: aquatic, terrestrial, flying,
  amphibian, other, or `BACKGROUND`.
  """
  del root
  sources = {'CAM': 'cod10k', 'NonCAM': 'cod10k-noncam'}
  named = []
  for pair in pairs:
    parts = pair.image_path.stem.split('-')
    if 5 <= len(parts) <= 7 and parts[1] in sources:
      source, category = sources[parts[1]], parts[3].lower()
      named.append(dataclasses.replace(pair, source=source, category=category))
    else:
      found.append(
        f'{pair.image_path}: the name is not '
        'COD10K-{CAM|NonCAM}-NUMBER-CLASS[-NUMBER-CLASS]-NUMBER'
      )
  return named


def _read_lists(
  root: Path, pairs: list[records.Pair], found: list[str]
) -> list[records.Pair]:
  """Finds the split of each pair in train.txt and val.txt."""
  lists = {
    split: _read_list(root / f'segmentation/{split}.txt')
    for split in ('train', 'val')
  }
  chosen = []
  for pair in pairs:
    splits = [s for s, names in lists.items() if pair.image_path.stem in names]
    if len(splits) == 1:
      chosen.append(dataclasses.replace(pair, split=splits[0]))
    else:
      found.append(
        f'{pair.image_path} is in {len(splits)} of the lists train.txt and '
        'val.txt, not in one'
      )
  stems = {pair.image_path.stem for pair in pairs}
  found += [
    f'{stem}, named in {split}.txt, is no pair of files'
    for split, names in lists.items()
    for stem in sorted(names - stems)
  ]
  return chosen


def _read_list(path: Path) -> set[str]:
  if not path.is_file():
    raise errors.UserError(
      f'{path} is missing. Expected\n{PEOPLE.layout}\nA folder of your own '
      'needs no lists: it is read as the data set "folder".'
    )
  # File names hold any bytes, line separators included, except these.
  lines = path.read_text('utf-8-sig', 'surrogateescape').split('\n')
  return {line.strip() for line in lines if line.strip()}


P3M = DataSet(
  layout="""P3M-10k/
  train/{blurred_image,mask}
  validation/P3M-500-P/{blurred_image,mask,trimap}
  validation/P3M-500-NP/{original_image,mask,trimap}""",
  mark='P3M-500-*/mask',
  subsets=tuple(
    Subset(
      f'{place}/{images}',
      f'{place}/mask',
      {
        'source': source,
        'split': split,
        'category': 'human',
        'label': 'alpha',
      },
    )
    for place, images, source, split in (
      ('train', 'blurred_image', 'p3m-10k', 'train'),
      ('validation/P3M-500-P', 'blurred_image', 'p3m-500-p', 'test'),
      ('validation/P3M-500-NP', 'original_image', 'p3m-500-np', 'test'),
    )
  ),
  counts={
    ('p3m-10k', 'train'): 9421,
    ('p3m-500-p', 'test'): 500,
    ('p3m-500-np', 'test'): 500,
  },
  place='kaggle.com/datasets/rahulbhalley/p3m-10k, a copy',
  terms=(
    "Its authors' release agreement, labelled MIT, is in "
    'github.com/JizhiziLi/P3M: read it there.'
  ),
  kaggle='rahulbhalley/p3m-10k',
)
COD10K = DataSet(
  layout="""COD10K-v3/
  Train/{Image,GT_Object}
  Test/{Image,GT_Object}""",
  mark='Test/GT_Object',
  subsets=tuple(
    Subset(
      f'{place}/Image',
      f'{place}/GT_Object',
      {'source': 'cod10k', 'split': place.lower()},
    )
    for place in ('Train', 'Test')
  ),
  counts={
    ('cod10k', 'train'): 3040,
    ('cod10k', 'test'): 2026,
    ('cod10k-noncam', 'train'): 2960,
    ('cod10k-noncam', 'test'): 1974,
  },
  complete=_parse_names,
  place="its authors' Google Drive (github.com/DengPingFan/SINet)",
  terms='For non-commercial purposes only.',
  drive='1pVq1rWXCwkMbEZpTt4-yUQ3NsnQd_DNY',
)
PEOPLE = DataSet(
  layout="""people_segmentation/
  images/  masks/
  segmentation/{train.txt,val.txt}   one stem per line""",
  mark='segmentation/val.txt',
  subsets=(
    Subset('images', 'masks', {'source': 'people', 'category': 'human'}),
  ),
  counts={('people', 'train'): 5110, ('people', 'val'): 568},
  complete=_read_lists,
  place='kaggle.com/datasets/nikhilroxtomar/person-segmentation',
  terms='See that page; this project has not verified its licence.',
  kaggle='nikhilroxtomar/person-segmentation',
)
DATA_SETS = {'p3m': P3M, 'cod10k': COD10K, 'people': PEOPLE}
SOURCES = frozenset(s for known in DATA_SETS.values() for s, _ in known.counts)
