"""Lists photos into a manifest of tasks, and reads it as it is written."""

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent import futures
from pathlib import Path

import pyarrow as pa

from data_pipelines.io import errors, storage
from rmbg_jax.batch import listing, report

# Folders below the report, until the run is over: what there is to do, and
# what was begun.
_MANIFEST, TRIES = 'manifest', 'tries'
# Photos of a task: few at first, so that all actors have some.
_SMALLEST_TASK, LARGEST_TASK, _TASKS_AT_FIRST = 8, 64, 16
_LARGEST_PART = 256  # Tasks.
_POLL = (0.1, 2.0)  # Seconds, the shortest and the longest.

_SCHEMA = pa.schema(
  [
    (name, pa.list_(pa.string()))
    for name in ('photo', 'result', 'kinds', 'stamp', 'remark')
  ]
)


class Lister:
  """Writes the manifest in a thread, and reports photos that need no work.

  A context: what it wrote into the manifest is removed at the end.
  """

  def __init__(
    self, jobs: Iterable[listing.Job], output: storage.Place, run_name: str
  ):
    self._jobs = jobs
    self._output = output
    self._run_name = run_name
    self._tally = report.Tally()
    self._stop = threading.Event()
    self._has_work = False
    self._first = threading.Event()  # There is work, or there will be none.
    self._pool = futures.ThreadPoolExecutor(1)

  def __enter__(self) -> 'Lister':
    self._listing = self._pool.submit(self._list)
    return self

  def __exit__(self, *exc_info):
    self._stop.set()
    # First, or the thread would go on writing what is removed here.
    self._pool.shutdown()
    folder = self._output / report.FOLDER
    with contextlib.suppress(errors.UserError):  # Files left there do no harm.
      for name in (_MANIFEST, TRIES):
        storage.remove(folder / f'{name}-{self._run_name}')

  def wait_for_work(self) -> bool:
    """Waits for the first task; returns whether there is any."""
    self._first.wait()
    return self._has_work

  def finish(self, tally: report.Tally) -> report.Tally:
    """Returns the tally of all photos, those that needed no work too.

    Raises:
      Exception: that ended the listing before its end.
    """
    self._listing.result()
    self._tally.merge(tally)
    return self._tally

  def _list(self) -> None:
    skipped = report.PartedReport(self._output, f'{self._run_name}-before')
    try:
      with contextlib.closing(skipped):
        self._write_manifest(self._choose(skipped))
    finally:
      # On errors too: `wait_for_work` waits for it.
      self._first.set()

  def _choose(self, skipped: report.PartedReport) -> Iterator[listing.Job]:
    """Yields the photos to do, and reports the rest."""
    for job in self._jobs:
      if self._stop.is_set():
        return
      wrong = job.error
      try:
        str(job.photo).encode()
      except UnicodeEncodeError:  # Ray cannot take it.
        problem = 'its name is not UTF-8. Rename it, or leave out --engine.'
        wrong = wrong or problem
      if job.kinds and not wrong:
        yield job
        continue
      entry = report.pass_over(job, wrong)
      self._tally.add(entry)
      skipped.add(entry)

  def _write_manifest(self, jobs: Iterator[listing.Job]) -> None:
    tasks, written, parts = [], 0, 0
    try:
      while True:
        # A sixteenth of what there is so far: tasks grow slowly.
        size = written // _TASKS_AT_FIRST
        size = max(_SMALLEST_TASK, min(LARGEST_TASK, size))
        if not (batch := list(itertools.islice(jobs, size))):
          break
        tasks.append(batch)
        written += len(batch)
        # Parts grow as well: the first ones are wanted at once.
        if len(tasks) >= min(_LARGEST_PART, 2**parts):
          self._write_part(parts, tasks, is_last=False)
          tasks, parts = [], parts + 1
    finally:  # Where listing fails, too: the listed photos are still done.
      self._write_part(parts, tasks, is_last=True)

  def _write_part(
    self, number: int, tasks: Sequence[Sequence[listing.Job]], *, is_last: bool
  ) -> None:
    part = {'tasks': [_make_row(jobs) for jobs in tasks], 'is_last': is_last}
    storage.write(
      _name_part(self._output, self._run_name, number),
      json.dumps(part).encode(),
    )
    if tasks:
      self._has_work = True
      self._first.set()


def follow(output: storage.Place, run_name: str) -> Iterator[pa.Table]:
  """Yields the tasks of a manifest, each a row; the same ones every time.

  Parts that are not written yet are waited for.
  """
  for number in itertools.count():
    part = json.loads(_wait_for(_name_part(output, run_name, number)))
    for row in part['tasks']:
      yield pa.Table.from_pylist([row], schema=_SCHEMA)
    if part['is_last']:
      return


def _wait_for(place: storage.Place) -> bytes:
  seconds, longest = _POLL
  while True:
    try:
      return storage.read(place)
    except FileNotFoundError:
      time.sleep(seconds)
      seconds = min(2 * seconds, longest)


def _name_part(
  output: storage.Place, run_name: str, number: int
) -> storage.Place:
  folder = output / report.FOLDER / f'{_MANIFEST}-{run_name}'
  return folder / f'{number:06}.json'


def _make_row(jobs: Sequence[listing.Job]) -> dict[str, list[str]]:
  return {
    'photo': [str(job.photo) for job in jobs],
    'result': [job.result.as_posix() for job in jobs],
    'kinds': [','.join(job.kinds or ()) for job in jobs],
    'stamp': [job.state.stamp if job.state else '' for job in jobs],
    'remark': [job.remark for job in jobs],
  }


def read_jobs(table: pa.Table) -> list[listing.Job]:
  """Returns the photos of rows, which hold a text in each column, or a list."""
  jobs = []
  for row in table.to_pylist():
    columns = [row.get(name) for name in _SCHEMA.names]
    if isinstance(row['photo'], str):
      # Rows of others' data sets hold one photo each.
      columns = [[value] for value in columns]
    # Columns that such a data set does not have are filled with None.
    for photo, result, kinds, stamp, remark in itertools.zip_longest(
      *(column or () for column in columns)
    ):
      jobs.append(
        listing.Job(
          photo=storage.parse(photo),
          result=Path(result),
          kinds=tuple(kinds.split(',')) if kinds else None,
          # Only the stamp is needed: the report keeps it.
          state=storage.State(0, 0, stamp) if stamp else None,
          remark=remark or '',
        )
      )
  return jobs
