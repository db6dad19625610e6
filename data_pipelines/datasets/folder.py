"""The folder layout that data sets are read from.

```
DIR/
  Images/    photos; folder names in any case, `Image` or `Images`
  Masks/     masks of the same size and stem; `Mask` or `Masks`
  Dataset.csv   optional, see `dataset_csv.py`
```

Without a CSV, images and masks are paired by stem.
"""

import os
import unicodedata
from collections.abc import Set
from pathlib import Path

from data_pipelines.datasets import dataset_csv
from data_pipelines.datasets.records import Pair
from data_pipelines.io import images, suffixes
from data_pipelines.io.errors import MissingFileError, UserError

PAIRING_REMEDY = 'Add what is missing or remove these files'


def read_folder(
  directory: str | os.PathLike, problems: list[str] | None = None
) -> list[Pair]:
  """Reads a data set's list of pairs, sorted by name.

  Args:
    directory: A folder of the layout in the module's docstring.
    problems: Given, it collects what is wrong with single rows and files,
      which are left out; otherwise that is an error.

  Raises:
    FileNotFoundError: if the folder, or a file that the CSV names, is missing.
    ValueError: if the layout is not recognised, the CSV is wrong, the set is
      empty, or photos and masks do not pair up; the first ten are named.
  """
  directory = Path(directory)
  if not directory.is_dir():
    raise MissingFileError(
      f'{directory}: no such data folder. Correct the path; in training it is '
      '--config.data.dir.'
    )
  entries = {entry.name.lower(): entry for entry in directory.iterdir()}
  image_dir = entries.get('images') or entries.get('image')
  mask_dir = entries.get('masks') or entries.get('mask')
  if 'dataset.csv' in entries:
    remedy = f'{entries["dataset.csv"]}: correct these rows'
    if image_dir and mask_dir:
      remedy += ', or move the file away, to find pairs by their names'
    pairs, found = dataset_csv.read(entries['dataset.csv'])
  elif image_dir is None or mask_dir is None:
    raise UserError(f'{directory}: not a data set. {dataset_csv.EXPECTED}')
  else:
    remedy = PAIRING_REMEDY
    pairs, found = pair_by_stem(image_dir, mask_dir)
  report(found, remedy=remedy, problems=problems)
  if not pairs:
    report(found, remedy=remedy)  # Nothing is left: they are the reason.
    raise UserError(
      f'{directory}: the data set is empty. {dataset_csv.EXPECTED}'
    )
  return sorted(pairs, key=lambda pair: pair.name)


def pair_by_stem(
  image_dir: Path,
  mask_dir: Path,
  image_endings: Set[str] = suffixes.IMAGE,
  mask_endings: Set[str] = suffixes.IMAGE,
) -> tuple[list[Pair], list[str]]:
  """Pairs the images of two folders by the stems of their names.

  Returns:
    (pairs sorted by stem, what has no partner or shares its stem). Of images
    that share a stem none is used: which one the mask belongs to is unknown.
  """
  photos, problems = _list_by_stem(image_dir, image_endings)
  masks, more = _list_by_stem(mask_dir, mask_endings)
  problems += [one for one in more if one not in problems]  # Or one folder.
  # Both ways: photos without masks, then masks without photos.
  for own, others, place, missing in (
    (photos, masks, mask_dir, f'has no mask in {mask_dir.name}/'),
    (masks, photos, image_dir, f'has no image in {image_dir.name}/'),
  ):
    unread = {file.stem: file.name for file in place.iterdir()}
    alike = {_simplify(s): others[s][0] for s in others.keys() - own.keys()}
    for stem in sorted(own.keys() - others.keys()):
      problem = f'{own[stem][0]} {missing}'
      if near := alike.get(_simplify(stem)):
        problem += f' ({near.name} is there: rename it to the same stem)'
      elif stem in unread and place != own[stem][0].parent:
        problem += f' ({unread[stem]} is there, of a format that is not read)'
      problems.append(problem)
  pairs = [
    Pair(
      name=photos[stem][0].name,
      category='',
      image_path=photos[stem][0],
      mask_path=masks[stem][0],
    )
    for stem in photos
    if len(photos[stem]) == 1 and len(masks.get(stem, ())) == 1
  ]
  return pairs, problems


def report(
  found: list[str], *, remedy: str, problems: list[str] | None = None
) -> None:
  """Collects problems where a list is given for them.

  Raises:
    ValueError: otherwise, if there are any, naming up to ten.
  """
  if problems is not None:
    problems.extend(found)
  elif found:
    shown = '\n  '.join(found[:10])
    more = f'\n  and {len(found) - 10} more' if len(found) > 10 else ''
    raise UserError(f'{remedy}:\n  {shown}{more}')


def _simplify(stem: str) -> str:
  """Returns a name without the parts that often differ in pairs."""
  simple = unicodedata.normalize('NFC', stem).casefold()
  return simple.removesuffix('_mask').removesuffix('.jpg')


def _list_by_stem(
  directory: Path, endings: Set[str]
) -> tuple[dict[str, list[Path]], list[str]]:
  """Returns a folder's image files by stem, and what is wrong with them."""
  by_stem, problems = {}, []
  for file in sorted(directory.iterdir()):
    if file.is_dir():
      if not file.name.startswith('.') and any(
        map(images.is_image_file, file.iterdir())
      ):
        problems.append(
          f'{file} is a folder, whose images are not read; move them up'
        )
    elif images.is_image_file(file) and file.suffix.lower() in endings:
      by_stem.setdefault(file.stem, []).append(file)
  for same in by_stem.values():
    problems += [f'{file} has the stem of {same[0].name}' for file in same[1:]]
  return by_stem, problems
