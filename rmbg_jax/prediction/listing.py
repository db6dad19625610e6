"""Which photos there are to do, and what their results are called."""

import collections
import dataclasses
import glob
import os
from collections.abc import Sequence
from pathlib import Path

from rmbg_jax.prediction import photos


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
  """A photo to do.

  Attributes:
    photo: its file.
    result: where its results go, relative to the folder of their kind and
      without the ending of the format.
    error: why it cannot be done, where that is known before; then `photo` may
      be a folder of which nobody knows what is in it.
  """

  photo: Path
  result: Path
  error: str = ''


def list_jobs(source: str) -> list[Job]:
  """Returns the photos that `--input` names, sorted.

  A folder in its tree that cannot be read is among them, with its error.

  Args:
    source: a photo; a folder, whose tree the results mirror; a pattern such as
      `photos/**/*.jpg`; or a `.txt` file with a path on each line, relative
      to it.

  Raises:
    FileNotFoundError: if it names nothing.
  """
  closed = []
  if Path(source).suffix.lower() == '.txt' and Path(source).is_file():
    found = _read_list(Path(source))
  elif Path(source).is_dir():
    found, closed = _list_folder(Path(source))
  elif Path(source).is_file():
    found = [Path(source)]
  elif glob.has_magic(source):
    found = [Path(path) for path in glob.glob(source, recursive=True)]  # noqa: PTH207
    found = [path for path in found if path.is_file()]
  else:
    raise FileNotFoundError(f'--input={source}: no such file or folder.')
  if not found and not closed:
    raise FileNotFoundError(
      f'--input={source}: no photos in it (looked for files ending in '
      f'{", ".join(sorted(photos.SUFFIXES))}).'
    )
  found = sorted(set(found))
  root = Path(source) if Path(source).is_dir() else _common_folder(found)
  results = name_results([path.relative_to(root) for path in found])
  jobs = [
    Job(photo=path, result=result)
    for path, result in zip(found, results, strict=True)
  ]
  return sorted(jobs + closed, key=lambda job: job.photo)


def take_shard(jobs: Sequence[Job], shard: str) -> list[Job]:
  """Returns this process's part of the jobs.

  Args:
    jobs: of all processes.
    shard: 'i/n' with i from 0 to n - 1, or '' for all.

  Raises:
    ValueError: if it is not of that form.
  """
  if not shard:
    return list(jobs)
  index, _, count = shard.partition('/')
  if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
    raise ValueError(
      f'--shard={shard}: pass i/n with i from 0 to n - 1, such as 0/4.'
    )
  return list(jobs[int(index) :: int(count)])


def name_results(relative: Sequence[Path]) -> list[Path]:
  """Returns each photo's result, without the ending of the format.

  `a.jpg` becomes `a`; where names would meet, also on file systems that do not
  tell a from A, they keep their extension (`a.jpg`, `a.webp`), so that no
  result replaces another.
  """
  results = [path.with_suffix('') for path in relative]
  while True:
    taken = collections.Counter(_fold(result) for result in results)
    longer = [
      path if taken[_fold(result)] > 1 else result
      for path, result in zip(relative, results, strict=True)
    ]
    if longer == results:
      return results
    results = longer


def _fold(path: Path) -> str:
  return path.as_posix().casefold()


def _list_folder(folder: Path) -> tuple[list[Path], list[Job]]:
  """Returns the photos of a tree, and its folders that cannot be read."""
  found, closed = [], []

  def add_closed(error: OSError):
    path = Path(error.filename)
    closed.append(
      Job(
        photo=path,
        result=path.relative_to(folder),
        error=f'the folder cannot be read ({error.strerror}), so its photos '
        'are not done. Allow reading it (chmod u+rx), or leave it out.',
      )
    )

  # rglob and glob would leave out silently what they may not read.
  for parent, _, names in os.walk(folder, onerror=add_closed):
    found += [
      path
      for path in (Path(parent, name) for name in names)
      if path.suffix.lower() in photos.SUFFIXES and _may_be_file(path)
    ]
  return found, closed


def _may_be_file(path: Path) -> bool:
  """Whether it is a file, or hidden by its folder's permissions."""
  try:
    return path.is_file()
  except PermissionError:
    return True  # Named when its turn comes.


def _read_list(path: Path) -> list[Path]:
  """Files that are missing are kept: they are named when their turn comes."""
  lines = path.read_text(encoding='utf-8-sig').splitlines()
  return [path.parent / line.strip() for line in lines if line.strip()]


def _common_folder(found: Sequence[Path]) -> Path:
  return Path(os.path.commonpath([path.parent for path in found]))
