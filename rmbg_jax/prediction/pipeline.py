"""Reading, the network and writing, all at once, in bounded memory."""

import collections
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from pathlib import Path

import numpy as np

from data_pipelines import images
from rmbg_jax.prediction import listing, photos, rendering, report

# Pixels of photos that may be in memory at once. A single larger photo still
# gets its turn, alone.
_PIXELS_IN_MEMORY = 96_000_000

AddEntry = Callable[[report.Entry], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
  """What is to be done with every photo.

  Attributes:
    output: folder with a sub-folder for each kind.
    kinds: of `rendering.KINDS`.
    style: of the results.
    overwrite: do results again that are there.
    max_pixels: photos with more are refused.
  """

  output: Path
  kinds: tuple[str, ...]
  style: rendering.Style
  overwrite: bool = False
  max_pixels: int = photos.MAX_PIXELS

  def check_output(self) -> None:
    """Checks that results can be written, making nothing.

    Raises:
      ValueError: naming what is in the way.
    """
    for folder in (self.output, *(self.output / kind for kind in self.kinds)):
      # What is not there will be made in the nearest parent that is.
      existing = next(
        path for path in (folder, *folder.parents) if os.access(path, os.F_OK)
      )
      if not existing.is_dir():
        raise ValueError(
          f'--output={self.output}: {existing} is a file, not a folder. Pass '
          'another folder.'
        )
      if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(
          f'--output={self.output}: no permission to write in {existing}. '
          'Allow it (chmod u+rwx), or pass another folder.'
        )

  def missing(self, job: listing.Job) -> dict[str, Path]:
    """Returns the files that are still to be written, by kind."""
    paths = {
      kind: self.output
      / kind
      / job.result.with_name(job.result.name + self.style.suffix(kind))
      for kind in self.kinds
    }
    return {
      kind: path
      for kind, path in paths.items()
      if self.overwrite or not path.exists()
    }


def run(
  remover,
  jobs: Sequence[listing.Job],
  task: Task,
  *,
  add_entry: AddEntry,
  stop: threading.Event,
) -> None:
  """Does photos; one's trouble does not touch the others.

  Args:
    remover: a `BackgroundRemover`; its batch size is used.
    jobs: the photos.
    task: what to do with them.
    add_entry: called, in this thread, with what became of each photo.
    stop: once set, no other photo is begun; those begun are finished.
  """
  threads = os.cpu_count() or 1
  with (
    futures.ThreadPoolExecutor(threads) as readers,
    futures.ThreadPoolExecutor(threads) as writers,
  ):
    flow = _Flow(remover, jobs, task, add_entry, stop, readers, writers)
    while flow.begin_reading():
      batch = flow.collect_batch()
      flow.begin_reading()  # What is read while the network is at work.
      flow.predict(batch)


class _Flow:
  """The photos on their way. Only the main thread uses it."""

  def __init__(self, remover, jobs, task, add_entry, stop, readers, writers):
    self._remover = remover
    self._jobs = collections.deque(jobs)
    self._task = task
    self._add_entry = add_entry
    self._stop = stop
    self._readers = readers
    self._writers = writers
    self._reading: collections.deque = collections.deque()
    self._writing: collections.deque = collections.deque()
    self._pixels = 0  # In memory.

  def begin_reading(self) -> bool:
    """Begins to read what there is room for; False when all is done."""
    depth = 2 * self._remover.batch_size
    while self._jobs and not self._stop.is_set() and len(self._reading) < depth:
      job = self._jobs[0]
      pixels = _count_pixels(job.photo)
      if self._pixels and self._pixels + pixels > _PIXELS_IN_MEMORY:
        if self._reading or not self._writing:
          break
        self._finish(limit=len(self._writing) - 1)
        continue
      self._jobs.popleft()
      self._pixels += pixels
      future = self._readers.submit(_read, job, self._task, self._remover)
      self._reading.append((job, pixels, future))
    if not self._reading:
      self._finish(limit=0)
    return bool(self._reading)

  def collect_batch(self) -> list[tuple]:
    """Waits for photos to be read, a batch of them at most."""
    batch = []
    while self._reading and len(batch) < self._remover.batch_size:
      job, pixels, future = self._reading.popleft()
      if error := future.exception():
        self._pixels -= pixels
        self._add_entry(_failed(job, error))
      else:
        batch.append((job, pixels, future.result()))
    return batch

  def predict(self, batch: list[tuple]) -> None:
    """Runs the network and leaves the rest to the writers."""
    if not batch:
      return
    probs = self._remover.predict(
      np.concatenate([read.resized for _, _, read in batch])
    )
    for (job, pixels, read), one in zip(batch, probs, strict=True):
      future = self._writers.submit(
        _write, job, self._task, self._remover, read, one
      )
      self._writing.append((job, pixels, future))
    # No more than two batches wait to be written.
    self._finish(limit=2 * self._remover.batch_size)

  def _finish(self, *, limit: int) -> None:
    while len(self._writing) > limit:
      job, pixels, future = self._writing.popleft()
      error = future.exception()
      self._pixels -= pixels
      self._add_entry(_failed(job, error) if error else future.result())


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Read:
  photo: photos.Photo
  resized: np.ndarray  # (1, h, w, 3), of the network's input size.
  seconds: float


def _read(job: listing.Job, task: Task, remover) -> _Read:
  began = time.perf_counter()
  photo = photos.read_photo(job.photo, max_pixels=task.max_pixels)
  resized = remover.resize([photo.seen])
  return _Read(
    photo=photo, resized=resized, seconds=time.perf_counter() - began
  )


def _write(
  job: listing.Job, task: Task, remover, read: _Read, probs: np.ndarray
) -> report.Entry:
  began = time.perf_counter()
  alpha = remover.refine(probs, read.photo)
  missing = task.missing(job)
  contents = task.style.render(read.photo, alpha, tuple(missing))
  for kind, content in contents.items():
    rendering.save(content, missing[kind])
  return report.Entry(
    photo=str(job.photo),
    status='done',
    width=read.photo.rgb.width,
    height=read.photo.rgb.height,
    seconds=round(read.seconds + time.perf_counter() - began, 3),
    foreground=round(float(alpha.mean()), 4),
    notes=read.photo.notes,
  )


def _failed(job: listing.Job, error: BaseException) -> report.Entry:
  text = str(error) or type(error).__name__
  text = text.removeprefix(f'{job.photo}: ')  # The entry says which photo.
  if isinstance(error, FileNotFoundError):
    text = 'no such file'
  return report.Entry(photo=str(job.photo), status='failed', error=text)


def _count_pixels(path: Path) -> int:
  try:
    height, width = images.read_size(path)
  except (OSError, ValueError):
    return 0  # Reading it will fail, and say why.
  return height * width
