"""Writes files atomically, whole or not there, and reads texts."""

import codecs
import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

# The marks at the beginning of a text, the longer ones first.
_MARKS = (
  (codecs.BOM_UTF32_LE, 'utf-32'),
  (codecs.BOM_UTF32_BE, 'utf-32'),
  (codecs.BOM_UTF16_LE, 'utf-16'),
  (codecs.BOM_UTF16_BE, 'utf-16'),
)


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
