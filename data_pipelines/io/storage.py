"""Reads, lists and atomically writes files by URL, on stores and disks.

Every function takes a `Place`: a `Path`, or a `Url` of an object store. The
packages that talk to stores are imported when a `Url` is first used.
"""

import contextlib
import dataclasses
import datetime
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from data_pipelines.io import errors, files, stores

_FILE = 'file://'
SCHEMES = ('s3', 'gs', 'az', 'file')
# Names that stores give to an object's time, and to its changing mark.
_TIMES = ('LastModified', 'last_modified', 'mtime', 'updated', 'created')
_MARKS = ('ETag', 'md5Hash', 'etag')


@dataclasses.dataclass(frozen=True, order=True)
class Url:
  """An address on an object store; `/` joins as it does for paths.

  Its text is such as 's3://bucket/photos', without a slash at its end.
  """

  text: str

  def __str__(self) -> str:
    return self.text

  def __truediv__(self, name: str | Path) -> 'Url':
    name = name.as_posix() if isinstance(name, Path) else name
    return Url(f'{self.text}/{name}')

  @property
  def name(self) -> str:
    """The part behind the last slash."""
    return self.text.rpartition('/')[2]

  @property
  def suffix(self) -> str:
    """Its ending, with the dot; '' without one."""
    return Path(self.name).suffix

  @property
  def parent(self) -> 'Url':
    """The part before the last slash."""
    return Url(self.text.rpartition('/')[0])

  @property
  def scheme(self) -> str:
    """The kind of store, such as 's3'."""
    return self.text.partition('://')[0]

  @property
  def path(self) -> str:
    """Bucket and name."""
    return self.text.partition('://')[2]


class State(NamedTuple):
  """The state of a file; another content has another stamp.

  Attributes:
    size: Bytes; 0 for a folder.
    modified: Time of the last change, in seconds since 1970; 0 if not known.
    stamp: Text of the size and the time, or of a store's own mark.
  """

  size: int
  modified: float
  stamp: str


class File(NamedTuple):
  """A file of a listing.

  Attributes:
    name: Its name, relative to what was listed.
    state: Its state; None on a disk, where that would cost a look at each.
  """

  name: str
  state: State | None = None


Place = Path | Url
# For functions and classes whose results are of the type of their arguments.
PlaceT = TypeVar('PlaceT', bound=Place)


def is_url(text: str) -> bool:
  """Returns whether a text is a URL of any kind."""
  return re.match(r'[A-Za-z][A-Za-z0-9+.-]*://', text) is not None


def check_path(text: str, schemes: Collection[str] = ()) -> None:
  """Checks that a text is a path, or a URL of some kinds, such as 's3'.

  Raises:
    UserError: naming the kinds.
  """
  if not is_url(text) or text.partition('://')[0] in schemes:
    return
  also = ''.join(f', or {scheme}://' for scheme in schemes)
  raise errors.UserError(
    f'{text}: a URL of this kind is not read or written here. Pass a '
    f'path{also}.'
  )


def parse(text: str) -> Place:
  """Returns the place that a path or a URL names.

  Raises:
    UserError: if it is a URL of a kind that is not known, or names no bucket.
  """
  if text.startswith(_FILE):
    return Path(text.removeprefix(_FILE))
  if not is_url(text):
    return Path(text)
  scheme, _, rest = text.partition('://')
  if scheme not in stores.PACKAGES:
    raise errors.UserError(
      f'{text}: {scheme}:// is not known. Pass a path, file://, '
      f'{", ".join(f"{name}://" for name in stores.PACKAGES)}.'
    )
  rest = rest.strip('/')
  if not rest:
    raise errors.UserError(
      f'{text}: which bucket? Pass {scheme}://BUCKET/NAME.'
    )
  return Url(f'{scheme}://{rest}')


def read(place: Place) -> bytes:
  """Returns a file's content.

  Raises:
    MissingFileError: if a store has no such file.
    OSError: if it is on a disk and cannot be read.
    UserError: if it is on a store and cannot be read.
  """
  if isinstance(place, Path):
    return place.read_bytes()
  # Without it, s3fs first asks for the size: another request.
  options = {'max_concurrency': 1} if place.scheme == 's3' else {}
  with stores.naming(place.text):
    return stores.open_store(place.scheme).cat_file(place.path, **options)


def write(place: Place, content: bytes) -> None:
  """Writes a file so that it is there whole or not at all.

  Raises:
    OSError: if it is on a disk and cannot be written.
    UserError: if it is on a store and cannot be written.
  """
  if isinstance(place, Path):
    with files.write_atomically(place) as partial:
      partial.write_bytes(content)
    return
  with stores.naming(place.text):
    # Stores show an object when all of it has come.
    stores.open_store(place.scheme).pipe_file(place.path, content)


def exists(place: Place) -> bool:
  """Returns whether there is something: one request. For many, see `Found`.

  Raises:
    UserError: if a store does not say.
  """
  return find_state(place) is not None


def find_state(place: Place) -> State | None:
  """Returns the state of a file; None if there is none.

  Raises:
    UserError: if a store does not say.
  """
  if isinstance(place, Path):
    try:
      found = place.stat()
    except (OSError, ValueError):  # Such as of names that are too long.
      return None
    size = 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    return State(size, found.st_mtime, f'{size}-{found.st_mtime_ns}')
  with stores.naming(place.text):
    try:
      found = stores.open_store(place.scheme).info(place.path)
    except FileNotFoundError:
      return None
  # A store finds a folder where names go on behind this one.
  return _make_state(found) if found['type'] == 'file' else None


def list_names(root: Place) -> Iterator[str]:
  """Yields the names of all files below a place, as `list_files` does."""
  return (file.name for file in list_files(root))


def list_files(root: Place) -> Iterator[File]:
  """Yields all files below a place.

  They come in the order of their characters (sub-a before sub/a), as the store
  gives them: page by page from S3, else folder by folder. Nothing is held but
  a page, or the folders on the way. Links to folders are not followed. As on
  stores, files that a killed process did not finish are none.

  Raises:
    OSError: if a folder on a disk cannot be read.
    UserError: if a store cannot be listed. A place without files is no error,
      a bucket that is not there is.
  """
  if isinstance(root, Path):
    yield from _list_folder(root)
    return
  list_store = _list_s3 if root.scheme == 's3' else _list_folders
  with stores.naming(root.text):
    found = list_store(stores.open_store(root.scheme), root.path)
  # A generator: its errors come with the pages, not with the call.
  while True:
    with stores.naming(root.text):
      file = next(found, None)
    if file is None:
      return
    yield file


def remove(root: Place) -> None:
  """Removes all files below a place; none are no error.

  Raises:
    UserError: if a store refuses.
  """
  if isinstance(root, Path):
    shutil.rmtree(root, ignore_errors=True)
    return
  with stores.naming(root.text), contextlib.suppress(FileNotFoundError):
    stores.open_store(root.scheme).rm(root.path, recursive=True)


class Found:
  """Finds files by name in a listing, while it is read.

  Asked in the listing's order, it reads each page once and holds a few names,
  however many there are.
  """

  def __init__(self, files: Iterator[File]):
    """Begins with a listing as `list_files` yields it."""
    self._files = files
    self._kept: dict[str, File] = {}  # What may be asked for again.
    self._low = ''
    self._last: str | None = ''

  def find(self, name: str, *, low: str) -> File | None:
    """Returns the file of a name; None if the listing has none.

    Args:
      name: Name to look for.
      low: Beginning of the name, such as 'sub/a.b.' of 'sub/a.b.png'. No later
        call may ask for a name before it. (The exception: beginnings of it,
        so that 'sub/a.png' may follow.)

    Raises:
      ValueError: if names do not come in that order.
      UserError: if a store cannot be listed.
    """
    if low < self._low and not self._low.startswith(low):
      raise ValueError(f'{low} comes before {self._low}.')
    while self._last is not None and self._last < name:
      file = next(self._files, None)
      self._last = file.name if file else None
      if file:
        self._kept[file.name] = file
    if low > self._low:
      self._low = low
      self._kept = {
        kept: file
        for kept, file in self._kept.items()
        if kept >= low or low.startswith(kept.rpartition('.')[0] + '.')
      }
    return self._kept.get(name)


def _list_folder(folder: Path, prefix: str = '') -> Iterator[File]:
  try:
    with os.scandir(folder) as entries:
      # With its slash, a folder is sorted as the names of its files are.
      found = sorted(
        f'{entry.name}/' if entry.is_dir(follow_symlinks=False) else entry.name
        for entry in entries
        if not files.is_unfinished(entry.name)
      )
  except FileNotFoundError:
    return
  for name in found:
    if name.endswith('/'):
      yield from _list_folder(folder / name, prefix + name)
    else:
      yield File(prefix + name)


def _list_folders(store: Any, path: str, prefix: str = '') -> Iterator[File]:
  try:
    entries = store.ls(path, detail=True)
  except FileNotFoundError:
    # A missing folder has no files; a missing bucket is an error.
    if '/' in path:
      return
    raise
  found = {}
  for entry in entries:
    is_folder = entry['type'] == 'directory'
    name = entry['name'].rstrip('/').rpartition('/')[2] + '/' * is_folder
    found[name] = entry
  found.pop(path.rpartition('/')[2], None)  # A mark that some put for itself.
  for name in sorted(found):
    if name.endswith('/'):
      inner = found[name]['name'].rstrip('/')
      yield from _list_folders(store, inner, prefix + name)
    else:
      yield File(prefix + name, _make_state(found[name]))


def _list_s3(store: Any, path: str) -> Iterator[File]:
  bucket, _, prefix = path.partition('/')
  # With the slash, or names below `photos2` would be listed as well.
  prefix = f'{prefix}/' if prefix else ''
  token = {}
  while True:
    # Not `ls`, which would hold the names of a whole folder.
    page = store.call_s3(
      'list_objects_v2', Bucket=bucket, Prefix=prefix, **token
    )
    for entry in page.get('Contents', ()):
      name = entry['Key'].removeprefix(prefix)
      if name and not name.endswith('/'):  # Else it stands for a folder.
        yield File(name, _make_state(entry))
    if not page.get('IsTruncated'):
      return
    token = {'ContinuationToken': page['NextContinuationToken']}


def _make_state(entry: Mapping[str, Any]) -> State:
  """Returns the state of an object; stores use other words for it."""
  size = entry.get('Size', entry.get('size')) or 0
  time = next((entry[name] for name in _TIMES if entry.get(name)), 0)
  if isinstance(time, str):
    time = datetime.datetime.fromisoformat(time)
  if isinstance(time, datetime.datetime):
    time = time.timestamp()
  mark = next((entry[name] for name in _MARKS if entry.get(name)), time)
  return State(size, time, f'{size}-{mark}'.replace('"', ''))
