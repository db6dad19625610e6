"""Keeps which results were made here, and from which state of a photo.

The reports have the size of each result, and the size and time of its photo. A
result that no report names, or that has another size, is not of this project
and is never replaced unasked.
"""

import array
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
from pathlib import Path

import numpy as np

from data_pipelines.io import storage, stores
from rmbg_jax.batch import listing, pipeline, report

CHANGED = 'made again: the photo has changed since'
LEFT = (
  'left as it was, though the photo is newer: no report says that it was made '
  'here. --overwrite makes it anew'
)


class Record:
  """The results that were made here. Takes 16 bytes for each."""

  def __init__(self, output: storage.Place | None):
    """Reads what the reports at an output say, of all shards; None for none.

    Raises:
      OSError: if a report on a disk cannot be read.
      UserError: if a store cannot be read.
    """
    results, states = array.array('Q'), array.array('Q')
    for line in _read_lines(output) if output else ():
      # Faster than parsing a line that made nothing.
      if b'"made": {"' not in line:
        continue
      try:
        made = json.loads(line)['made']
      except ValueError:  # Cut off by a kill.
        continue
      for name, (size, stamp) in made.items():
        results.append(_encode(name, size))
        states.append(_encode(name, size, stamp))
    self._results = np.sort(np.asarray(results, np.uint64))
    self._states = np.sort(np.asarray(states, np.uint64))
    self._added: set[int] = set()
    self._latest: dict[int, int] = {}  # By result: its state that was added.

  def add(self, made: Mapping[str, tuple[int, str]]) -> None:
    """Adds results; see `report.Entry`."""
    for name, (size, stamp) in made.items():
      self._added.add(_encode(name, size))
      self._latest[_encode(name)] = _encode(name, size, stamp)

  @property
  def is_empty(self) -> bool:
    """Whether nothing is known."""
    return not self._added and not len(self._results)

  def has(self, name: str, size: int) -> bool:
    """Returns whether a result was made here, of any photo."""
    code = _encode(name, size)
    return code in self._added or self._find(self._results, code)

  def has_state(self, name: str, size: int, stamp: str) -> bool:
    """Returns whether a result was made here of that state of its photo."""
    code = _encode(name, size, stamp)
    # A photo that is put back has an earlier state again. The result of that
    # state is gone, but the one that is there may have the same size.
    latest = self._latest.get(_encode(name))
    return self._find(self._states, code) if latest is None else latest == code

  def _find(self, codes: np.ndarray, code: int) -> bool:
    # A plain int is int64, and NumPy would compare both as float64.
    index = np.searchsorted(codes, np.uint64(code))
    return bool(index < len(codes) and codes[index] == code)


def find_missing(
  jobs: Iterable[listing.Job], task: pipeline.Task, record: Record
) -> Iterator[listing.Job]:
  """Yields jobs on a disk as `check` returns them.

  With `overwrite`, the record is of what was made in this run.
  """

  def find(name):
    return storage.File(name) if storage.exists(task.output / name) else None

  return (check(job, task, record, find) for job in jobs)


def check(
  job: listing.Job,
  task: pipeline.Task,
  record: Record,
  find: Callable[[str], storage.File | None],
) -> listing.Job:
  """Returns a job with the kinds that are still to be made, and a remark.

  `find` returns what there is of a result's name, relative to the output.
  """
  # Nothing there can be up to date, so no file is asked for.
  if job.error or (task.overwrite and record.is_empty):
    return dataclasses.replace(job, kinds=task.kinds)
  missing, remark, photo = [], '', None
  for kind, name in task.name_results(job).items():
    file = find(name)
    if file is None:
      missing.append(kind)
      continue
    # Asked for only where there is a result: on stores it is a request.
    photo = photo or job.find_state()
    result = file.state or storage.find_state(task.output / name)
    if photo is None or result is None:  # Gone, as its turn will show.
      continue
    if record.has_state(name, result.size, photo.stamp):
      continue
    if task.overwrite or record.has(name, result.size):
      missing.append(kind)
      # With `overwrite`, everybody knows why it is made again.
      remark = remark if task.overwrite else CHANGED
    elif photo.modified > result.modified:
      remark = remark or LEFT
  return dataclasses.replace(job, kinds=tuple(missing), remark=remark)


def _encode(*values: str | int) -> int:
  """Returns 64 bits: with ten million, the chance of two alike is 3e-6."""
  text = '\0'.join(map(str, values)).encode(errors='surrogatepass')
  return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), 'big')


def _read_lines(output: storage.Place) -> Iterator[bytes]:
  if isinstance(output, Path):
    for path in sorted(output.glob('report*.jsonl')):
      with path.open('rb') as file:
        yield from file
  parts = (output / report.FOLDER / name for name in report.list_parts(output))
  with futures.ThreadPoolExecutor(stores.CONNECTIONS) as pool:
    # In portions: the pool's `map` would ask for all parts at once.
    while some := list(itertools.islice(parts, stores.CONNECTIONS)):
      for content in pool.map(storage.read, some):
        yield from content.split(b'\n')
