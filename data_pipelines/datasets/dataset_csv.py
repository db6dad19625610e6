"""`Dataset.csv`: the list of a data set's pairs.

Its columns are Image Name, Category, Image Path, Mask Path (paths relative to
the file), and if wanted Source, Label, Split. Where some rows have a split,
those without one are for training.
"""

import csv
import dataclasses
import io
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from data_pipelines.datasets.records import LABELS, SPLITS, Pair
from data_pipelines.io import files
from data_pipelines.io.errors import UserError

NAME = 'Dataset.csv'
COLUMNS = ('Image Name', 'Category', 'Image Path', 'Mask Path')
_OPTIONAL = ('Source', 'Label', 'Split')
# Says what a folder must hold to be a data set.
EXPECTED = (
  f'Expected a {NAME} with the columns {", ".join(COLUMNS)}, or the folders '
  'Images/ and Masks/.'
)

_SAVE_AS = 'Save it as CSV with commas, in UTF-8.'


def write(path: Path, pairs: Sequence[Pair]) -> None:
  """Writes `Dataset.csv` with paths relative to it, atomically."""
  rows = (
    {
      'Image Name': pair.name,
      'Category': pair.category,
      'Image Path': pair.image_path.relative_to(path.parent).as_posix(),
      'Mask Path': pair.mask_path.relative_to(path.parent).as_posix(),
      'Source': pair.source,
      'Label': pair.label,
      'Split': pair.split,
    }
    for pair in pairs
  )
  files.write_csv(path, (*COLUMNS, *_OPTIONAL), rows)


def read(path: Path) -> tuple[list[Pair[Path]], list[str]]:
  """Returns the pairs, and what is wrong with the rows that are left out.

  Raises:
    UserError: if it is no CSV with the columns.
  """
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
  """Returns a CSV's rows, each with the number of its last line in the file."""
  # Names of files need not be UTF-8 on Linux. Spreadsheets put a byte order
  # mark in front, and their quotes are the only ones.
  content = path.read_bytes()
  if content[:2] in (b'\xff\xfe', b'\xfe\xff'):
    raise UserError(f'{path}: its encoding is UTF-16. {_SAVE_AS}')
  text = content.decode('utf-8-sig', 'surrogateescape')
  reader = csv.DictReader(io.StringIO(text, newline=''), strict=True)
  rows, first = [], 1
  try:
    columns = {column.lower(): column for column in (*COLUMNS, *_OPTIONAL)}
    for found in reader.fieldnames or ():
      column = columns.get(found.strip().lower(), found)
      if column != found:  # Else a column `split` would be left out.
        raise UserError(
          f'{path}: a column is called {found!r}. Write {column!r}.'
        )
    missing = [c for c in COLUMNS if c not in (reader.fieldnames or ())]
    if missing:
      raise UserError(
        f'{path}: column {", ".join(missing)} is missing; the header is '
        f'{reader.fieldnames}. {EXPECTED} {_SAVE_AS}'
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


def is_foreign(text: str) -> bool:
  """Returns whether a name has bytes that are not UTF-8."""
  return any('\udc80' <= character <= '\udcff' for character in text)


def _describe_missing(written: str, file: Path) -> str:
  if is_foreign(written):
    return f'{file} does not exist; its name is not UTF-8. {_SAVE_AS}'
  if PureWindowsPath(written).drive or PurePosixPath(written).is_absolute():
    return (
      f'{written} does not exist here; write paths relative to {NAME}, '
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
    # A quote that is never closed takes further lines into its field.
    if '\n' in (value or ''):
      raise UserError(
        f'{column} goes over several lines; remove the quote (") that opens it'
      )
  # A file may be named in another encoding; the rest is what people wrote.
  file_is_foreign = is_foreign(row['Image Path'] or '')
  for column in ('Image Name', 'Category', 'Source'):
    text = row.get(column) or ''
    if is_foreign(text) and not (column == 'Image Name' and file_is_foreign):
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
    # Lists that were written on Windows have backslashes.
    image_path=path.parent / row['Image Path'].replace('\\', '/'),
    mask_path=path.parent / row['Mask Path'].replace('\\', '/'),
    source=row.get('Source') or '',
    label=label,
    split=split,
  )
