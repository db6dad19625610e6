"""Lists photos by URL, and finds those that are not done.

An object store lists its files page by page. This module holds a few pages in
memory, however many there are.
"""

import collections
import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from data_pipelines.io import errors, files, storage, suffixes
from data_pipelines.io.types import JsonObject
from rmbg_jax import choices
from rmbg_jax.batch import listing, pipeline, places, record, report

# Beside the parts of the report: what the results are made with.
_MADE_WITH = 'made_with.json'


class Counts:
  """Numbers of photos and, by their ending, other files found so far."""

  def __init__(self):
    self.photos = 0
    self.others: collections.Counter[str] = collections.Counter()


def list_jobs(source: str, counts: Counts) -> Iterator[listing.Job]:
  """Yields the photos that `--input=URL` names, in the order of their names.

  Their results are named as `listing.name_results` does, with two exceptions:
  names that differ in upper and lower case alone stay as they are, and a name
  such as `a.jpg.webp` always keeps its ending. `counts` is kept up to date.

  Raises:
    UserError: if it cannot be listed, or has no photos.
  """
  root = storage.parse(source)
  if _is_photo_name(root.name) and storage.exists(root):
    counts.photos += 1
    yield listing.Job(photo=root, result=Path(Path(root.name).stem))
    return
  if root.suffix.lower() == '.txt' or set('*?[') & set(source):
    raise errors.UserError(
      f'--input={source}: by URL, pass a photo or a folder; patterns and lists '
      'are for paths.'
    )
  for file, result in _name_results(_choose_photos(root, counts)):
    # Stores have names that no path can have.
    wrong = bool({'', '.', '..'} & set(file.name.split('/')))
    yield listing.Job(
      photo=root / file.name,
      result=Path() if wrong else Path(result),
      error='its name has parts that are empty, . or .., as no path has. '
      'Rename it.'
      if wrong
      else '',
      state=file.state,
    )
  if not counts.photos:
    raise errors.MissingFileError(f'--input={source}: no photos in it.')


def find_missing(
  jobs: Iterable[listing.Job], task: pipeline.Task, made: record.Record
) -> Iterator[listing.Job]:
  """Yields jobs as `record.check` returns them.

  The output is listed beside the photos, page by page: no request for each. So
  jobs must come as from `list_jobs`, or be sorted by `listing_order`.

  Raises:
    UserError: if the output cannot be listed.
  """
  found = {
    kind: storage.Found(storage.list_files(task.output / kind))
    for kind in task.kinds
  }
  for job in jobs:
    low = job.result.as_posix()
    # A result that keeps its photo's ending is listed among those of its stem.
    if _is_photo_name(low):
      low = _drop_suffix(low)

    def find(name, low=f'{low}.'):
      kind, _, name = name.partition('/')
      return found[kind].find(name, low=low)

    yield record.check(job, task, made, find)


def listing_order(job: listing.Job) -> str:
  """Returns the key that sorts jobs as their results are listed."""
  # With the dot, since `a-b.png` is listed before `a.png`.
  return f'{job.result.as_posix()}.'


def check_source(source: str, task: pipeline.Task) -> None:
  """Raises a `UserError` if the photos are among the results."""
  root, output = storage.parse(source), task.output
  for kind in (*choices.KINDS, report.FOLDER):
    if places.is_below(root, output / kind):
      raise errors.UserError(
        f'--input={source} is in {output / kind}, where --output={output} has '
        'its results: they would be taken for photos, or replace them. Pass '
        'another --output.'
      )


def begin(task: pipeline.Task, network: str, options: JsonObject) -> None:
  """Notes at the output what its results are made with, or compares it.

  That is the network, by its digest, the remover's options and the style. It is
  written first, and so shows whether anything can be written.

  Raises:
    UserError: if the results there were made with something else, and are not
      made again; or if nothing can be written.
  """
  values = {'network': network, **options, **dataclasses.asdict(task.style)}
  del values['format']  # Results of two formats have two names.
  del values['threads']  # They change the time alone.
  made_with = {name: str(value) for name, value in values.items()}
  place = task.output / report.FOLDER / _MADE_WITH
  try:
    before = files.parse_json(storage.read(place), place, remedy='Remove it.')
  except FileNotFoundError:
    before = made_with
  changed = [
    f'{name} was {before.get(name)}, is {value}'
    for name, value in sorted(made_with.items())
    if before.get(name) != value
  ]
  if changed and not task.overwrite:
    raise errors.UserError(
      f'--output={task.output}: the results there were made otherwise '
      f'({"; ".join(changed)}). Pass what they were made with, --overwrite to '
      'make all of them anew, or another --output.'
    )
  storage.write(place, json.dumps(made_with, indent=2).encode())


def _choose_photos(
  root: storage.Place, counts: Counts
) -> Iterator[storage.File]:
  for file in storage.list_files(root):
    base = file.name.rpartition('/')[2]
    if _is_photo_name(base):
      counts.photos += 1
      yield file
    elif not base.startswith(listing.METADATA_PREFIX):
      counts.others[PurePosixPath(base).suffix.lower() or 'no ending'] += 1


def _is_photo_name(name: str) -> bool:
  suffix = PurePosixPath(name).suffix.lower()
  return suffix in suffixes.PHOTO and not name.startswith(
    listing.METADATA_PREFIX
  )


def _drop_suffix(name: str) -> str:
  return name.removesuffix(PurePosixPath(name).suffix)


def _name_results(
  photos: Iterator[storage.File],
) -> Iterator[tuple[storage.File, str]]:
  """Yields (photo, its result's name) of files sorted by name.

  Names that share all but their ending keep it. They need not be neighbours
  (a.jpg, a.b.jpg, a.png): names wait until the last that may share theirs.
  """
  waiting: collections.deque[tuple[storage.File, str]] = collections.deque()
  # By waiting stem: the number found, and the number yielded.
  there: collections.Counter[str] = collections.Counter()
  gone: collections.Counter[str] = collections.Counter()

  def take():
    file, stem = waiting.popleft()
    gone[stem] += 1
    keeps_ending = there[stem] > 1 or _is_photo_name(stem)
    if gone[stem] == there[stem]:
      del gone[stem], there[stem]
    return file, file.name if keeps_ending else stem

  for file in photos:
    name = file.name
    # '/' follows '.' in the order: all that begin with `stem.` have passed.
    while waiting and name >= f'{waiting[0][1]}/':
      yield take()
    stem = _drop_suffix(name)
    there[stem] += 1
    waiting.append((file, stem))
  while waiting:
    yield take()
