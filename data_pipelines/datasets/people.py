"""People Segmentation of Kaggle's nikhilroxtomar/person-segmentation.

The masks hold 0 and 1 and look black; `masks.to_mask` scales them.
"""

import dataclasses
import os
from pathlib import Path

from data_pipelines.datasets import directories, folder, records
from data_pipelines.io import errors

LAYOUT = """people_segmentation/
  images/  masks/
  segmentation/{train.txt,val.txt}   one stem per line"""

SUBSET = directories.Subset(
  images='images',
  masks='masks',
  source='people',
  split='',  # In the lists.
  category='human',
  label='gt',
  count=5678,
)
PUBLISHED = {('people', 'train'): 5110, ('people', 'val'): 568}


def read_people(
  directory: str | os.PathLike, problems: list[str] | None = None
) -> list[records.Pair]:
  """Reads People Segmentation's pairs, sorted by name.

  Args:
    directory: The tree above or a folder that it is in.
    problems: Given, it collects what is wrong with single files, which are
      left out; otherwise that is an error.

  Returns:
    Pairs of the source 'people', split 'train' or 'val' as its lists say,
    labelled 'gt', of the category 'human'.

  Raises:
    MissingFileError: if there is no such folder.
    UserError: for another tree, files without a partner, or files that are
      not in exactly one list.
  """
  found: list[str] = []
  root, pairs = directories.read_subsets(
    directory, (SUBSET,), expected=LAYOUT, found=found
  )
  lists = {
    split: _read_list(root / f'segmentation/{split}.txt')
    for split in ('train', 'val')
  }
  stems = {pair.image_path.stem for pair in pairs}
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
  found += [
    f'{stem}, named in {split}.txt, is no pair of files'
    for split, names in lists.items()
    for stem in sorted(names - stems)
  ]
  folder.report(found, remedy=folder.PAIRING_REMEDY, problems=problems)
  return sorted(chosen, key=lambda pair: pair.name)


def _read_list(path: Path) -> set[str]:
  if not path.is_file():
    raise errors.UserError(
      f'{path} is missing. Expected\n{LAYOUT}\nA folder of your own needs no '
      'lists: it is read as the data set "folder".'
    )
  # File names hold any bytes, line separators included, except these.
  lines = path.read_text('utf-8-sig', 'surrogateescape').split('\n')
  return {line.strip() for line in lines if line.strip()}
