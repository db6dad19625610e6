"""The folder layout that data sets are read from.

```
DIR/
  Images/    photos; folder names in any case, `Image` or `Images`
  Masks/     masks of the same size and stem; `Mask` or `Masks`
  Dataset.csv   optional: Image Name, Category, Image Path, Mask Path (paths
                relative to the CSV), and if wanted Source, Label, Split
```

Without a CSV, images and masks are paired by stem. Where some rows have a
split, those without one are for training.
"""

import csv
import dataclasses
import io
import math
import os
import unicodedata
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Generic, TypeVar

import numpy as np
from PIL import Image

from data_pipelines.io import files, images
from data_pipelines.io.errors import MissingFileError, UserError

COLUMNS = ('Image Name', 'Category', 'Image Path', 'Mask Path')
OPTIONAL_COLUMNS = ('Source', 'Label', 'Split')
LABELS = ('gt', 'alpha', 'pseudo')
SPLITS = ('train', 'val', 'test')

CSV_NAME = 'Dataset.csv'
PAIRING_REMEDY = 'Add what is missing or remove these files'

_SAVE_AS = 'Save it as CSV with commas, in UTF-8.'
_EXPECTED = (
  'Expected a Dataset.csv with the columns '
  f'{", ".join(COLUMNS)}, or the folders Images/ and Masks/.'
)


File = TypeVar('File', Path, images.Encoded)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair(Generic[File]):
  """A photo and its mask.

  Attributes:
    name: of the photo, unique in its data set.
    category: such as 'human', or '' where unknown.
    image_path: the photo's file; its content where there is no file of it.
    mask_path: the mask's, likewise.
    source: the data set that the pair is from, or ''.
    label: how the mask was made: 'gt' (by people), 'alpha' (a soft matte),
      'pseudo' (by another model).
    split: 'train', 'val', 'test', or '' where the data set has none.
  """

  name: str
  category: str
  image_path: File
  mask_path: File
  source: str = ''
  label: str = 'gt'
  split: str = ''


def read_folder(
  directory: str | os.PathLike, problems: list[str] | None = None
) -> list[Pair]:
  """Reads a data set's list of pairs, sorted by name.

  Args:
    directory: a folder of the layout in the module's docstring.
    problems: given, it collects what is wrong with single rows and files,
      which are left out; otherwise that is an error.

  Raises:
    FileNotFoundError: if the folder, or a file that the CSV names, is missing.
    ValueError: if the layout is not recognised, the CSV is wrong, the set is
      empty, or photos and masks do not pair up; the first ten are named.
  """
  directory = Path(directory)
  if not directory.is_dir():
    raise MissingFileError(
      f'{directory}: no such data folder. Set --config.data.dir.'
    )
  entries = {entry.name.lower(): entry for entry in directory.iterdir()}
  if 'dataset.csv' in entries:
    remedy = f'{entries["dataset.csv"]}: correct these rows'
    pairs, found = _read_csv(entries['dataset.csv'])
  else:
    image_dir = entries.get('images') or entries.get('image')
    mask_dir = entries.get('masks') or entries.get('mask')
    if image_dir is None or mask_dir is None:
      raise UserError(f'{directory}: not a data set. {_EXPECTED}')
    remedy = PAIRING_REMEDY
    pairs, found = pair_by_stem(image_dir, mask_dir)
  report(found, remedy=remedy, problems=problems)
  if not pairs:
    report(found, remedy=remedy)  # Nothing is left: they are the reason.
    raise UserError(f'{directory}: the data set is empty. {_EXPECTED}')
  return sorted(pairs, key=lambda pair: pair.name)


def write_csv(path: Path, pairs: Sequence[Pair]) -> None:
  """Writes `Dataset.csv` with paths relative to it, atomically."""
  with (
    files.write_atomically(path) as partial,
    partial.open(
      'w', newline='', encoding='utf-8', errors='surrogateescape'
    ) as file,
  ):
    writer = csv.writer(file)
    writer.writerow(COLUMNS + OPTIONAL_COLUMNS)
    for pair in pairs:
      writer.writerow(
        (
          pair.name,
          pair.category,
          pair.image_path.relative_to(path.parent).as_posix(),
          pair.mask_path.relative_to(path.parent).as_posix(),
          pair.source,
          pair.label,
          pair.split,
        )
      )


def read_pair(
  pair: Pair,
  *,
  allow_empty: bool,
  reduce_to: tuple[int, int] | None = None,
) -> tuple[Image.Image, Image.Image]:
  """Reads a photo as RGB and its mask as 8-bit grey, of equal size.

  Args:
    pair: to read.
    allow_empty: whether a mask without any foreground is accepted.
    reduce_to: the (height, width) that the photo will be resized to, if it may
      come reduced where that is cheap; the mask never is.

  Raises:
    FileNotFoundError: if a file is missing.
    ValueError: if a file is unreadable, the sizes differ, or the mask is empty
      though `allow_empty` is False. The message names the file.
  """
  if reduce_to is None:
    photo = images.open_image(pair.image_path)
    size = photo.height, photo.width
  else:
    photo, size = images.open_reduced(pair.image_path, size=reduce_to)
  mask = images.open_image(pair.mask_path)
  if size != (mask.height, mask.width):
    raise UserError(
      f'{pair.image_path} is {size[1]}x{size[0]} pixels, its mask '
      f'{pair.mask_path.name} {mask.width}x{mask.height}. Repair or remove '
      'the pair.'
    )
  mask = convert_mask(mask, pair)
  if not allow_empty and mask.getextrema()[1] == 0:
    raise UserError(
      f'{pair.mask_path}: the mask is empty (all values are 0). Remove the '
      'pair, or if the photo really has no foreground, allow it '
      '(--allow_empty_masks; in training --config.data.allow_empty_masks=true).'
    )
  with images.named(pair.image_path):
    return images.to_rgb(photo), mask


def convert_mask(
  stored: Image.Image, pair: Pair, *, is_graded: bool = False
) -> Image.Image:
  """Converts a pair's mask to 8-bit grey, 255 for all foreground.

  Every use of a truth goes through here.

  Args:
    stored: what `images.open_image` returns of `pair.mask_path`.
    pair: names it, and says whether it is a soft matte.
    is_graded: whether the mask is an average of several people's, and may be
      low everywhere.

  Raises:
    UserError: if it is unclear what is foreground; the file is named.
  """
  with images.named(pair.mask_path):
    plane = images.read_plane(stored)
    mask = images.to_8_bit_mask(plane)
    highest = plane.values.max(initial=0)
    clear = {'integers': 2, 'wide integers': 128}.get(plane.stored, 0)
    if pair.label == 'alpha' and 0 < highest < clear:
      raise UserError(
        f'its largest value is {highest}: next to nothing in a soft matte, or '
        'all of a mask of another range. Store it in 8 bits, from 0 to 255'
      )
    is_soft = is_graded or pair.label == 'alpha'
    if 0 < mask.max(initial=0) < 128 and not is_soft:
      raise UserError(
        f'its largest value is {highest:g}; foreground must be 1, or 255 (in '
        'a soft matte it may be less: set its Label to alpha)'
      )
  return Image.fromarray(mask)


def check_pairs(pairs: Sequence[Pair]) -> None:
  """Checks from the headers that all files are images of matching sizes.

  Raises:
    ValueError: naming up to ten files and what is wrong with each.
  """
  with futures.ThreadPoolExecutor() as pool:
    problems = [
      problem for problem in pool.map(_find_problem, pairs) if problem
    ]
  report(problems, remedy='Repair or remove these pairs')


def split_pairs(
  pairs: Sequence[Pair], *, validation_share: float
) -> tuple[list[Pair], list[Pair]]:
  """Splits into training and validation.

  The data set's own split counts where it has validation pairs. Otherwise what
  is not for tests is split as the original project splits the sorted list with
  scikit-learn's `train_test_split` and seed 42 (see `permute`).

  Args:
    pairs: sorted by name.
    validation_share: in (0, 1); not used if there are validation pairs.

  Returns:
    (training pairs, validation pairs), both sorted by name.

  Raises:
    ValueError: if either would be empty.
  """
  if any(pair.split == 'val' for pair in pairs):
    # A pair that is not said to be held out is trained on.
    training = [pair for pair in pairs if pair.split in ('train', '')]
    validation = [pair for pair in pairs if pair.split == 'val']
  else:
    usable = [pair for pair in pairs if pair.split != 'test']
    parts = permute(len(usable), validation_share=validation_share)
    training, validation = ([usable[i] for i in part] for part in parts)
  for split, name in ((training, 'training'), (validation, 'validation')):
    if not split:
      raise UserError(
        f'No pair is left for {name} out of {len(pairs)}. Change the Split '
        'column of Dataset.csv, or config.data.validation_share '
        f'(={validation_share}).'
      )
  return training, validation


def pair_by_stem(
  image_dir: Path, mask_dir: Path
) -> tuple[list[Pair], list[str]]:
  """Pairs the images of two folders by the stems of their names.

  Returns:
    (pairs sorted by stem, what has no partner or shares its stem). Of images
    that share a stem none is used: which one the mask belongs to is unknown.
  """
  photos, problems = _list_by_stem(image_dir)
  masks, more = _list_by_stem(mask_dir)
  problems += more
  for own, others, missing in (
    (photos, masks, f'has no mask in {mask_dir.name}/'),
    (masks, photos, f'has no image in {image_dir.name}/'),
  ):
    alike = {_simplify(s): others[s][0] for s in others.keys() - own.keys()}
    for stem in sorted(own.keys() - others.keys()):
      problem = f'{own[stem][0]} {missing}'
      if near := alike.get(_simplify(stem)):
        problem += f' ({near.name} is there: rename it to the same stem)'
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


def permute(
  count: int, *, validation_share: float
) -> tuple[list[int], list[int]]:
  """Returns (training, validation) indices of a random split, always the same.

  The first ceil(count x share) of a permutation are for validation.
  """
  order = np.random.RandomState(42).permutation(count)
  held_out = math.ceil(count * validation_share)
  return sorted(order[held_out:].tolist()), sorted(order[:held_out].tolist())


def assign_splits(
  pairs: Sequence[Pair], *, validation_share: float
) -> list[Pair]:
  """Returns all pairs with the split that `split_pairs` puts them in.

  Splits of the pairs' own are not regarded.
  """
  bare = [dataclasses.replace(pair, split='') for pair in pairs]
  _, validation = split_pairs(bare, validation_share=validation_share)
  held_out = {pair.name for pair in validation}
  return [
    dataclasses.replace(pair, split='val' if pair.name in held_out else 'train')
    for pair in bare
  ]


def _read_csv(path: Path) -> tuple[list[Pair], list[str]]:
  pairs, problems, seen = [], [], {}
  for line, row in _read_rows(path):
    try:
      pair = _parse_row(path, row)
      if pair.name in seen:
        raise UserError(f'{pair.name} is also line {seen[pair.name]}')
      for column, file in (
        ('Image Path', pair.image_path),
        ('Mask Path', pair.mask_path),
      ):
        if not os.path.isfile(file):  # noqa: PTH113 It never raises.
          raise UserError(_describe_missing(row[column], file))
    except UserError as error:
      problems.append(f'{path.name}, line {line}: {error}')
      continue
    seen[pair.name] = line
    pairs.append(pair)
  if any(pair.split for pair in pairs):
    pairs = [dataclasses.replace(p, split=p.split or 'train') for p in pairs]
  return pairs, problems


def _read_rows(path: Path) -> list[tuple[int, dict[str | None, Any]]]:
  """Returns a CSV's rows, each with the number of its last line in the file.

  Raises:
    UserError: if it is no CSV with the columns.
  """
  # Names of files need not be UTF-8 on Linux. Spreadsheets put a byte order
  # mark in front, and their quotes are the only ones.
  content = path.read_bytes()
  if content[:2] in (b'\xff\xfe', b'\xfe\xff'):
    raise UserError(f'{path}: its encoding is UTF-16. {_SAVE_AS}')
  text = content.decode('utf-8-sig', 'surrogateescape')
  reader = csv.DictReader(io.StringIO(text, newline=''), strict=True)
  rows, first = [], 1
  try:
    missing = [c for c in COLUMNS if c not in (reader.fieldnames or ())]
    if missing:
      raise UserError(
        f'{path}: column {", ".join(missing)} is missing; the header is '
        f'{reader.fieldnames}. {_EXPECTED} {_SAVE_AS}'
      )
    first = reader.line_num + 1
    for row in reader:
      rows.append((reader.line_num, row))
      first = reader.line_num + 1
  except csv.Error as error:
    raise UserError(
      f'{path}, line {first} or below: {error}. Perhaps a quote (") opens '
      'there that is never closed: remove it, or double it within a name.'
    ) from error
  return rows


def _is_foreign(text: str) -> bool:
  """Whether it has bytes that are not UTF-8, as names of files may."""
  return any('\udc80' <= character <= '\udcff' for character in text)


def _describe_missing(written: str, file: Path) -> str:
  if _is_foreign(written):
    return f'{file} does not exist; its name is not UTF-8. {_SAVE_AS}'
  if PureWindowsPath(written).drive or PurePosixPath(written).is_absolute():
    return (
      f'{written} does not exist here; write paths relative to {CSV_NAME}, '
      'such as Images/a.jpg'
    )
  return f'{file} does not exist'


def _parse_row(path: Path, row: dict[str | None, Any]) -> Pair:
  if None in row:
    raise UserError(
      f'it has {len(row[None])} fields more than the header; quote names with '
      'a comma'
    )
  for column, value in row.items():
    if '\n' in (value or ''):
      raise UserError(
        f'{column} goes over several lines; remove the quote (") that opens it'
      )
  # A file may be named in another encoding; the rest is what people wrote.
  file_is_foreign = _is_foreign(row['Image Path'] or '')
  for column in ('Image Name', 'Category', 'Source'):
    text = row.get(column) or ''
    if _is_foreign(text) and not (column == 'Image Name' and file_is_foreign):
      raise UserError(f'{column} {text!a} is not UTF-8. {_SAVE_AS}')
  for column in ('Image Name', 'Image Path', 'Mask Path'):
    if not row[column]:
      raise UserError(f'{column} is empty')
  label = row.get('Label') or 'gt'
  split = row.get('Split') or ''
  if label not in LABELS:
    raise UserError(f'Label is {label!r}, not one of {", ".join(LABELS)}')
  if split and split not in SPLITS:
    raise UserError(f'Split is {split!r}, not one of {", ".join(SPLITS)}')
  return Pair(
    name=row['Image Name'],
    category=row['Category'] or '',
    image_path=path.parent / row['Image Path'].replace('\\', '/'),
    mask_path=path.parent / row['Mask Path'].replace('\\', '/'),
    source=row.get('Source') or '',
    label=label,
    split=split,
  )


def _simplify(stem: str) -> str:
  """Returns what is left of a name but for what often differs in pairs."""
  simple = unicodedata.normalize('NFC', stem).casefold()
  return simple.removesuffix('_mask').removesuffix('.jpg')


def _list_by_stem(directory: Path) -> tuple[dict[str, list[Path]], list[str]]:
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
    elif images.is_image_file(file):
      by_stem.setdefault(file.stem, []).append(file)
  for same in by_stem.values():
    problems += [f'{file} has the stem of {same[0].name}' for file in same[1:]]
  return by_stem, problems


def _find_problem(pair: Pair) -> str | None:
  try:
    image_size = images.read_size(pair.image_path)
    mask_size = images.read_size(pair.mask_path)
  except (OSError, ValueError) as error:
    return str(error)
  if image_size != mask_size:
    return (
      f'{pair.image_path} is {image_size[1]}x{image_size[0]} pixels, its mask '
      f'{pair.mask_path.name} {mask_size[1]}x{mask_size[0]}'
    )
  return None
