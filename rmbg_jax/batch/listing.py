"""Lists the photos to do, and names their results."""

import collections
import dataclasses
import glob
import hashlib
import itertools
import os
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Generic

from data_pipelines.io import errors, files, storage
from rmbg_jax.batch import clip_names

# A Mac puts such a file beside each one on disks of other systems.
METADATA_PREFIX = '._'

_GONE = storage.State(0, 0, '')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job(Generic[storage.PlaceT]):
  """A photo to do.

  Attributes:
    photo: Its file.
    result: Path of its results, relative to the folder of their kind and
      without the format's ending; never outside of that folder.
    is_clip: Whether it is a moving picture, a file or a folder of frames.
    error: Why it cannot be done; '' if nothing is known. `photo` may then be a
      folder that cannot be listed.
    kinds: Kinds of results still to be made, None if no listing has told.
    state: State of its file as a store has listed it; None on a disk.
    remark: What is to be said of results that are there; '' for nothing.
  """

  photo: storage.PlaceT
  result: Path
  is_clip: bool = False
  error: str = ''
  kinds: tuple[str, ...] | None = None
  state: storage.State | None = None
  remark: str = ''

  def __post_init__(self):
    # Results' names come from stores and from others' data sets, too.
    if self.result.is_absolute() or '..' in self.result.parts:
      raise ValueError(f'{self.result} may lie outside of its folder.')

  def find_state(self) -> storage.State | None:
    """Returns the state of the photo's file; None if it is not there.

    That of a folder of frames is that of all frames.

    Raises:
      UserError: if a store does not say.
    """
    if self.state is not None:
      return self.state
    photo = self.photo
    if not (self.is_clip and isinstance(photo, Path) and photo.is_dir()):
      return storage.find_state(photo)
    frames = clip_names.find_frames(photo)
    # A frame may vanish between the listing and this question.
    states = [storage.find_state(frame) or _GONE for frame in frames]
    # Names count: a frame that is renamed plays at another time.
    text = repr([frame.name for frame in frames] + states)
    return storage.State(
      size=sum(state.size for state in states),
      modified=max(state.modified for state in states),
      # Bytes of names that are not UTF-8 are lone surrogates in Python.
      stamp=hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest(),
    )


def list_jobs(
  source: str, others: collections.Counter[str] | None = None
) -> list[Job]:
  """Returns the photos that `--input` names, sorted.

  Places in a tree that cannot be reached are among them, with an error. The
  name of a result depends on its photo and `source` alone (and on photos beside
  it that differ in their endings), not on the other photos.

  Args:
    source: A photo; a folder, whose tree the results mirror; a pattern such as
      `photos/**/*.jpg`; or a `.txt` file with a path on each line, relative
      to it.
    others: Given, it counts a folder's files that are no photos, by ending.

  Raises:
    UserError: if it names nothing.
  """
  unreachable = []
  path = Path(source)
  if path.suffix.lower() == '.txt' and path.is_file():
    root, found = path.parent, _read_list(path)
    if not found:
      raise errors.MissingFileError(
        f'--input={source}: no photos in it. Write a path on each line.'
      )
  elif path.is_dir():
    root, found = path, []
    for place, error in _walk_files(path):
      if error:
        result = place.relative_to(path)
        unreachable.append(Job(photo=place, result=result, error=error))
      elif _is_photo_name(place):
        found.append(place)
      elif others is not None:
        others[place.suffix.lower() or 'no ending'] += 1
  # Before patterns: a file's own name may have brackets in it.
  elif path.is_file():
    root, found = path.parent, [path]
  elif glob.has_magic(source):
    # Results mirror the tree below the part without wildcards.
    parts = itertools.takewhile(lambda p: not glob.has_magic(p), path.parts)
    root, found = Path(*parts), _match_pattern(source)
    if not found:
      raise errors.MissingFileError(f'--input={source}: no file matches it.')
  else:
    raise errors.MissingFileError(f'--input={source}: no such file or folder.')
  if not found and not unreachable:
    raise errors.MissingFileError(
      f'--input={source}: no photos in it (looked for files ending in '
      f'{", ".join(sorted(clip_names.list_endings()))}).'
    )
  return _make_jobs(root, found, unreachable)


def list_files(sources: Sequence[str]) -> list[Job]:
  """Returns photos that are named one by one, as `list_jobs` does.

  Results mirror the folders below the one that all photos are in.
  """
  found = [Path(source) for source in sources]
  # Absolute: commonpath refuses relative paths beside absolute ones.
  root = os.path.commonpath([path.absolute().parent for path in found])
  return _make_jobs(Path(root), found, [])


def _make_jobs(
  root: Path, found: Sequence[Path], unreachable: list[Job]
) -> list[Job]:
  """Returns the jobs of photos, each once, and of unreachable places."""
  # Path.is_dir raises below a folder that may not be entered.
  folders = {path for path in found if os.path.isdir(path)}  # noqa: PTH112
  unreachable = unreachable + [
    Job(photo=path, result=Path(), error='a folder, where a photo is expected.')
    for path in folders
  ]
  # By its real path: a photo may be named in several ways. Reversed, so that
  # the first of its names is kept.
  once = {_resolve_folder(path): path for path in reversed(found)}
  found = sorted(path for path in once.values() if path not in folders)
  results = name_results([_place(path, root) for path in found])
  jobs = [
    Job(photo=path, result=result, is_clip=clip_names.is_clip(path))
    for path, result in zip(found, results, strict=True)
  ]
  return sorted(jobs + unreachable, key=lambda job: job.photo)


def parse_shard(shard: str) -> slice:
  """Returns which jobs are those of the shard 'i/n'; all for ''.

  Raises:
    UserError: if it is not of that form, with i from 0 to n - 1.
  """
  index, _, count = (shard or '0/1').partition('/')
  if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
    raise errors.UserError(
      f'--shard={shard}: pass i/n with i from 0 to n - 1, such as 0/4.'
    )
  return slice(int(index), None, int(count))


def name_results(relative: Sequence[Path]) -> list[Path]:
  """Returns each photo's result, without the ending of the format.

  `a.jpg` becomes `a`; where names would meet, also on file systems that do not
  tell a from A, they keep their extension (`a.jpg`, `a.webp`), so that no
  result replaces another. Names that are the same even so get a number.
  """
  results = [
    # `...jpg` without its ending would be a folder's name.
    path if set(path.stem) == {'.'} else path.with_suffix('')
    for path in relative
  ]
  while True:  # A name that keeps its ending may meet one that was alone.
    taken = collections.Counter(_fold(result) for result in results)
    longer = [
      path if taken[_fold(result)] > 1 else result
      for path, result in zip(relative, results, strict=True)
    ]
    if longer == results:
      return _number_repeated(results)
    results = longer


def _number_repeated(results: Sequence[Path]) -> list[Path]:
  taken = {_fold(result) for result in results}
  seen, numbered = set(), []
  for result in results:
    candidate, number = result, 1
    # A numbered name may be another photo's own.
    while _fold(candidate) in seen or (
      number > 1 and _fold(candidate) in taken
    ):
      number += 1
      candidate = result.with_name(f'{result.name} ({number})')
    seen.add(_fold(candidate))
    numbered.append(candidate)
  return numbered


def _fold(path: Path) -> str:
  """Returns the same text for names that some file system cannot tell apart."""
  # Macs normalise names; they and Windows ignore upper and lower case.
  return unicodedata.normalize('NFC', path.as_posix()).casefold()


def _resolve_folder(path: Path) -> Path:
  """Returns the path as it is without `..` and without links to folders.

  A link to a file stays one: it has a name of its own.
  """
  # Such a path has no last part that could be kept.
  if path.name in ('', '..'):
    return Path(os.path.realpath(path))
  return Path(os.path.realpath(path.parent), path.name)


def _place(path: Path, root: Path) -> Path:
  """Returns where below the folder of a kind a photo's results belong.

  That of photos outside of the root is their whole path, so that it does not
  depend on what others there are.
  """
  # A comparison of texts, for which `root/../a` is below `root`.
  if path.is_relative_to(root) and '..' not in path.relative_to(root).parts:
    return path.relative_to(root)
  # A link in one of them may hide that the photo is below the root.
  whole, real_root = _resolve_folder(path), Path(os.path.realpath(root))
  if whole.is_relative_to(real_root):
    return whole.relative_to(real_root)
  drive = whole.drive.strip('\\/').replace(':', '')  # On Windows.
  return Path(drive, *whole.parts[1:])


def _walk_files(folder: Path) -> Iterator[tuple[Path, str]]:
  """Yields (path, fault) of a tree's files; '' where a file can be read.

  Of what cannot be read, only what may be photos is named. Folders that cannot
  be read come last.
  """
  root = os.path.realpath(folder)
  closed: list[OSError] = []
  # rglob and glob would leave out silently what they may not read.
  for parent, folders, names in os.walk(folder, onerror=closed.append):
    for path in (Path(parent, name) for name in folders):
      # A file in the tree is found there, by its own name.
      if path.is_symlink() and not (
        Path(os.path.realpath(path)).is_relative_to(root)
      ):
        yield (
          path,
          'a link to a folder is not followed, so its photos are not done. '
          'Pass it as --input of its own, or remove it.',
        )
    for path in (Path(parent, name) for name in names):
      if path.name.startswith(METADATA_PREFIX):
        continue
      fault = _find_fault(path)
      if not fault:
        yield path, ''
      # Without an ending, it may have led to a folder of photos.
      elif _is_photo_name(path) or (fault == _DEAD and not path.suffix):
        yield path, f'{fault}. Mend or remove it.'
  for error in closed:
    yield (
      Path(error.filename),
      f'the folder cannot be read ({error.strerror}), so its photos are not '
      'done. Allow reading it (chmod u+rx), or leave it out.',
    )


_DEAD = 'a link that leads nowhere'


def _find_fault(path: Path) -> str:
  """Returns why a file cannot be read, '' if it is one that may be."""
  try:
    mode = path.stat().st_mode
  except PermissionError:
    return ''  # Hidden by its folder: named when its turn comes.
  except OSError:
    return _DEAD
  return '' if stat.S_ISREG(mode) else 'not a file that can be read'


def _is_photo_name(path: Path) -> bool:
  return path.suffix.lower() in clip_names.list_endings()


def _match_pattern(pattern: str) -> list[Path]:
  # Path.glob takes no absolute patterns.
  found = [Path(path) for path in glob.glob(pattern, recursive=True)]  # noqa: PTH207
  return sorted(
    path
    for path in found
    if not os.path.isdir(path)  # noqa: PTH112 (never raises)
    and not path.name.startswith(METADATA_PREFIX)
  )


def _read_list(path: Path) -> list[Path]:
  """Returns the paths in a list; missing files are named at their turn.

  Names are read as the file system has them, whatever their encoding.
  """
  content = path.read_bytes()
  try:
    text = os.fsdecode(files.to_utf8(content))
  except ValueError as error:
    raise errors.UserError(
      f'--input={path}: not a text ({error}). Save it as UTF-8, with a path on '
      'each line.'
    ) from error
  # Not `splitlines`: names may hold what it takes for ends of lines too.
  lines = (line.removesuffix('\r') for line in text.split('\n'))
  return [_find_line(path.parent, line) for line in lines if line.strip()]


def _find_line(folder: Path, line: str) -> Path:
  """Returns the path in a line; blanks around it may belong to the name."""
  if not os.path.lexists(folder / line):
    line = line.strip()
  if line.startswith('~/') and not os.path.lexists(folder / line):
    line = os.path.expanduser(line)  # noqa: PTH111 (never raises)
  return folder / line
