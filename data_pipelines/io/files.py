"""Writes files atomically: whole or not there."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipelines.io import errors


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike) -> Iterator[Path]:
  """Yields a temporary path that becomes `path` when the block succeeds.

  The temporary file is in the same folder (a rename across file systems is
  not atomic) and is removed when the block fails. Parent folders are made.

  Raises:
    OSError: of the block, or if the file cannot be written. One that names no
      file, as of a full disk, or the temporary one, names `path`.
  """
  path = Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  name = os.fsencode(path.name)
  # The target's may be as long as names can be: then this one must be shorter.
  stem = path.name if len(name) <= 100 else hashlib.sha256(name).hexdigest()
  partial = path.with_name(f'.{stem}.{os.getpid()}.partial')
  try:
    yield partial
    partial.replace(path)
  except BaseException as error:
    with contextlib.suppress(OSError):  # A second error would hide the first.
      partial.unlink(missing_ok=True)
    if isinstance(error, OSError) and error.filename in (None, str(partial)):
      error.filename, error.filename2 = str(path), None
    raise


def parse_json(
  text: str | bytes, place: object, *, remedy: str, kind: type = dict
) -> Any:  # What JSON holds.
  """Returns what a text in JSON says.

  Args:
    text: The text.
    place: Names it in the error.
    remedy: Sentence that says what to do if it is damaged.
    kind: Type that it must be of.

  Raises:
    UserError: if it is not JSON of that type.
  """
  try:
    value = json.loads(text)
    if not isinstance(value, kind):
      raise ValueError(f'a {type(value).__name__} instead of a {kind.__name__}')
  except ValueError as error:
    raise errors.UserError(f'{place}: damaged ({error}). {remedy}') from error
  return value
