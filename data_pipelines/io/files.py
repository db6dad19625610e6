"""Writes files atomically, whole or not there, and reads texts."""

import codecs
import contextlib
import csv
import errno
import hashlib
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.io import errors

# The marks at the beginning of a text, the longer ones first: UTF-32's begins
# with UTF-16's.
_MARKS = (
  (codecs.BOM_UTF32_LE, 'utf-32'),
  (codecs.BOM_UTF32_BE, 'utf-32'),
  (codecs.BOM_UTF16_LE, 'utf-16'),
  (codecs.BOM_UTF16_BE, 'utf-16'),
)
# Names of temporary files, of any bytes.
_UNFINISHED = re.compile(r'\..+\.[0-9a-f]{16}\.partial', re.DOTALL)


def to_utf8(content: bytes) -> bytes:
  """Returns a text without its mark, in UTF-8; unmarked bytes as they are.

  Raises:
    ValueError: if it is not in the encoding of its mark, or no text.
  """
  for mark, encoding in _MARKS:
    if content.startswith(mark):
      content = content.decode(encoding).encode()
      break
  content = content.removeprefix(codecs.BOM_UTF8)
  if b'\0' in content:
    raise ValueError('it has bytes of zero')
  return content


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike) -> Iterator[Path]:
  """Yields a temporary path that becomes `path` when the block succeeds.

  The temporary file is in the same folder (a rename across file systems is
  not atomic), has a name that nobody else gives, and is removed when the block
  fails. Parent folders are made. Its content is on the disk before it gets its
  name, so a power loss leaves the whole file or none.

  Raises:
    OSError: of the block, or if the file cannot be written. One that names no
      file, as of a full disk, or the temporary one, names `path`.
  """
  path = Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  name = os.fsencode(path.name)
  # The target's may be as long as names can be: then this one must be shorter.
  stem = path.name if len(name) <= 100 else hashlib.sha256(name).hexdigest()
  # Not the process's number: containers on one disk have the same ones.
  partial = path.with_name(f'.{stem}.{secrets.token_hex(8)}.partial')
  try:
    yield partial
    sync(partial)
    partial.replace(path)
  # Ctrl-C, too, may leave no partial file.
  except BaseException as error:
    with contextlib.suppress(OSError):  # A second error would hide the first.
      partial.unlink(missing_ok=True)
    if isinstance(error, OSError) and error.filename in (None, str(partial)):
      error.filename = str(path)
      if error.filename2 is not None:
        del error.filename2  # None would be printed.
    raise


def is_unfinished(name: str) -> bool:
  """Returns whether a name is one that `write_atomically` gives for a while."""
  return _UNFINISHED.fullmatch(name) is not None


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes a text in UTF-8, atomically; names of any bytes are escaped."""
  with write_atomically(path) as partial:
    partial.write_text(text, encoding='utf-8', errors='backslashreplace')


def write_csv(
  path: str | os.PathLike,
  header: Sequence[str],
  rows: Iterable[Mapping[str, object]],
) -> None:
  """Writes a table, atomically; missing values are left empty.

  Names of files, which may be of any bytes, are kept.
  """
  with (
    write_atomically(path) as partial,
    partial.open(
      'w', newline='', encoding='utf-8', errors='surrogateescape'
    ) as file,
  ):
    writer = csv.DictWriter(file, header)
    writer.writeheader()
    writer.writerows(rows)


def parse_json(
  text: str | bytes, place: object, *, remedy: str
) -> dict[str, Any]:
  """Returns the object that a text in JSON describes.

  Raises:
    UserError: naming the place and the remedy (a sentence), if it is not JSON
      of an object.
  """
  try:
    value = json.loads(text)
    if not isinstance(value, dict):
      raise ValueError(f'a {type(value).__name__} instead of a dict')
  except (ValueError, RecursionError) as error:
    raise errors.UserError(f'{place}: damaged ({error}). {remedy}') from error
  return value


def hash_file(path: Path, kind: str = 'sha256') -> str:
  """Returns the hexadecimal digest of a file, of hashlib's kind."""
  with path.open('rb') as file:
    return hashlib.file_digest(file, kind).hexdigest()


def sync(path: Path) -> None:
  """Waits until the content of a file, or of a folder's files, is on the disk.

  Raises:
    OSError: if it cannot be written there.
  """
  if path.is_dir():
    for file in path.iterdir():
      sync(file)
    return
  with path.open('rb+') as file:
    try:
      os.fsync(file.fileno())
    except OSError as error:  # Some file systems cannot be asked.
      if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
        raise


def check_folder(path: Path, flag: str) -> None:
  """Checks that a folder for results can be written to; leaves nothing there.

  Called before anything is computed for it; it need not be there yet.

  Raises:
    UserError: naming its flag, if it cannot be written to.
  """
  # The deepest first, in the order of their removal.
  made = [folder for folder in (path, *path.parents) if not folder.exists()]
  try:
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
      pass
    for folder in made:
      folder.rmdir()
  except OSError as error:
    reason = error.strerror
    if isinstance(error, FileExistsError | NotADirectoryError):
      reason = 'a file is in the way'
    raise errors.UserError(
      f'--{flag}: {path} cannot be written to ({reason}). Pass another folder.'
    ) from error
