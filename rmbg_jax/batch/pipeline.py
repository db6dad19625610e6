"""Reads, predicts and writes photos at once, in bounded memory."""

import collections
import dataclasses
import errno
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent import futures
from pathlib import Path
from typing import Any, Generic

import numpy as np

from data_pipelines.io import errors, images, parallel, storage, stores
from rmbg_jax import choices
from rmbg_jax.batch import clip_names, listing, report
from rmbg_jax.inference import photos, rendering
from rmbg_jax.inference.predictor import Predictor

# Memory that photos may take at once. A single larger one still gets its turn,
# alone.
_BYTES_IN_MEMORY = 2_500_000_000
# What a pixel takes while its photo waits, with 8 and with 16 bits per channel,
# and what more while its results are made and written (measured, all kinds).
_WAITING_BYTES = 10
_DEEP_WAITING_BYTES = 16
_WRITING_BYTES = 46

# Photos that are fetched from a store ahead of their turn, as files.
_FETCHED = 16

# No other photo will be written either.
FULL = (errno.ENOSPC, errno.EDQUOT)

AddEntry = Callable[[report.Entry], object]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Generic[storage.PlaceT]):
  """The work to be done on every photo.

  Attributes:
    output: Folder, or place on a store, with a sub-folder for each kind.
    kinds: Kinds to write, of `choices.KINDS`.
    style: Look of the results.
    overwrite: Do results again that are there.
    max_pixels: Photos with more are refused.
    clip_format: Format of cut-out clips, one of `choices.CLIP_FORMATS`.
  """

  output: storage.PlaceT
  kinds: tuple[str, ...]
  style: rendering.Style
  overwrite: bool = False
  max_pixels: int = choices.MAX_PIXELS
  clip_format: str = 'prores'

  def check_output(self) -> None:
    """Checks that a disk takes results, making nothing; stores are asked later.

    Raises:
      UserError: naming what is in the way.
    """
    if isinstance(self.output, storage.Url):
      return
    for folder in (self.output, *(self.output / kind for kind in self.kinds)):
      # A missing folder is made in its nearest existing parent.
      existing = next(
        path for path in (folder, *folder.parents) if os.access(path, os.F_OK)
      )
      if not existing.is_dir():
        raise errors.UserError(
          f'--output={self.output}: {existing} is a file, not a folder. Pass '
          'another folder.'
        )
      if not os.access(existing, os.W_OK | os.X_OK):
        raise errors.UserError(
          f'--output={self.output}: no permission to write in {existing}. '
          'Allow it (chmod u+rwx), or pass another folder.'
        )

  def check_photos(self, photos_to_do: Iterable[Path]) -> None:
    """Checks that no result will be among the photos.

    Raises:
      UserError: naming the photo, and where it is.
    """
    real = {
      os.path.realpath(str(self.output / kind)): self.output / kind
      for kind in choices.KINDS
    }
    checked = set()
    for photo in photos_to_do:
      # A link to a photo may lead there as well as its folder.
      place = Path(os.path.realpath(photo)) if photo.is_symlink() else photo
      if place.parent in checked:
        continue
      checked.add(place.parent)
      folder = Path(os.path.realpath(place.parent))
      for parent in (folder, *folder.parents):
        if str(parent) in real:
          raise errors.UserError(
            f'{photo} is in {real[str(parent)]}, where --output={self.output} '
            'has its results: they would be taken for photos, or replace them. '
            'Pass another --output.'
          )

  def _suffix(self, kind: str, job: listing.Job) -> str:
    if job.is_clip:
      return clip_names.suffix(kind, self.clip_format)
    return self.style.suffix(kind)

  def name_results(self, job: listing.Job) -> dict[str, str]:
    """Returns the names of a photo's results, relative to the output."""
    return {
      kind: f'{kind}/{job.result.as_posix()}{self._suffix(kind, job)}'
      for kind in self.kinds
    }

  def missing(self, job: listing.Job) -> dict[str, storage.PlaceT]:
    """Returns the files that are still to be written, by kind."""
    paths: dict[str, Any] = {
      kind: self.output / name
      for kind, name in self.name_results(job).items()
      if job.kinds is None or kind in job.kinds
    }
    if self.overwrite or job.kinds is not None:
      return paths
    return {
      kind: path for kind, path in paths.items() if not storage.exists(path)
    }


def run(
  remover: Predictor,
  jobs: Iterable[listing.Job],
  task: Task,
  *,
  add_entry: AddEntry,
  stop: threading.Event,
  runs_at_once: int = 1,
) -> None:
  """Does photos; one that fails stops no other.

  A full disk is everybody's: no other photo is begun then.

  Args:
    remover: A `BackgroundRemover`; its batch size is used.
    jobs: The photos, taken as their turn comes.
    task: Work to do on them.
    add_entry: Called, in this thread, with the result of each photo.
    stop: Once set, no other photo is begun; those begun are finished.
    runs_at_once: Number of runs in this process that share the memory.
  """
  threads = parallel.count_cores()
  # Who writes to a store mostly waits for it.
  patience = 4 if isinstance(task.output, storage.Url) else 1
  with (
    futures.ThreadPoolExecutor(stores.CONNECTIONS) as fetchers,
    futures.ThreadPoolExecutor(threads) as readers,
    futures.ThreadPoolExecutor(patience * threads) as writers,
  ):
    queue = _Queue(jobs, fetchers)
    flow = _Flow(
      remover,
      queue,
      task,
      add_entry,
      stop,
      readers,
      writers,
      most_bytes=_BYTES_IN_MEMORY // runs_at_once,
    )
    while flow.begin_reading():
      batch = flow.collect_batch()
      flow.begin_reading()  # Reads while the network is at work.
      flow.predict(batch)


class _Queue:
  """The photos that wait; files on stores are fetched ahead."""

  def __init__(self, jobs: Iterable[listing.Job], fetchers: futures.Executor):
    self._jobs = iter(jobs)
    self._fetchers = fetchers
    self._next: collections.deque = collections.deque()

  def peek(self) -> tuple[listing.Job, images.Source, int] | None:
    """Returns the next job, where its photo is read from, and its pixels."""
    while len(self._next) < _FETCHED and (job := next(self._jobs, None)):
      source = job.photo
      if isinstance(source, storage.Url):
        content = self._fetchers.submit(storage.read, source)
        source = images.Encoded(
          str(source), stamp='', read_bytes=content.result
        )
      self._next.append((job, source))
      if source is job.photo:
        break  # Nothing is gained by looking ahead.
    if not self._next:
      return None
    job, source = self._next[0]
    return job, source, _count_pixels(source)

  def pop(self) -> None:
    """Takes the next job out."""
    self._next.popleft()


class _Flow:
  """The photos on their way. Only the main thread uses it."""

  def __init__(
    self,
    remover: Predictor,
    queue: _Queue,
    task: Task,
    add_entry: AddEntry,
    stop: threading.Event,
    readers: futures.Executor,
    writers: futures.Executor,
    *,
    most_bytes: int,
  ):
    self._remover = remover
    self._queue = queue
    self._task = task
    self._add_entry = add_entry
    self._stop = stop
    self._readers = readers
    self._writers = writers
    self._most_bytes = most_bytes
    self._reading: collections.deque = collections.deque()
    self._writing: collections.deque = collections.deque()
    self._waiting_bytes = 0  # Bytes of all photos under way.
    self._writing_bytes = 0  # Further bytes of those being written.

  def begin_reading(self) -> bool:
    """Begins to read photos while there is room; False when all is done."""
    depth = 2 * self._remover.batch_size
    while (
      len(self._reading) < depth
      and not self._stop.is_set()
      and (first := self._queue.peek())
    ):
      job, source, pixels = first
      # Room to write the largest of them must be left.
      largest = max([pixels, *(pixels for _, pixels, _ in self._reading)])
      needed = (
        self._waiting_bytes
        + pixels * _WAITING_BYTES
        + max(self._writing_bytes, largest * _WRITING_BYTES)
      )
      if self._waiting_bytes and needed > self._most_bytes:
        if self._reading or not self._writing:
          break
        self._finish(limit=len(self._writing) - 1)
        continue
      self._queue.pop()
      self._waiting_bytes += pixels * _WAITING_BYTES
      future = self._readers.submit(
        _read, job, source, self._task, self._remover
      )
      self._reading.append((job, pixels, future))
    if not self._reading:
      self._finish(limit=0)
    return bool(self._reading)

  def collect_batch(self) -> list[tuple]:
    """Waits for photos to be read, a batch of them at most."""
    batch = []
    while self._reading and len(batch) < self._remover.batch_size:
      job, pixels, future = self._reading.popleft()
      self._waiting_bytes -= pixels * _WAITING_BYTES
      if error := future.exception():
        self._add_entry(_failed(job, error))
        continue
      read = future.result()
      self._waiting_bytes += read.waiting_bytes
      batch.append((job, read))
    return batch

  def predict(self, batch: list[tuple]) -> None:
    """Runs the network and leaves the rest to the writers."""
    if not batch:
      return
    probs = self._remover.predict(
      np.concatenate([read.resized for _, read in batch])
    )
    for one in probs:
      job, read = batch.pop(0)  # Or it would keep what is written.
      while self._writing and (
        self._waiting_bytes + self._writing_bytes + read.writing_bytes
        > self._most_bytes
      ):
        self._finish(limit=len(self._writing) - 1)
      self._writing_bytes += read.writing_bytes
      future = self._writers.submit(
        _write, job, self._task, self._remover, read, one
      )
      self._writing.append(
        (job, read.waiting_bytes, read.writing_bytes, future)
      )
    # No more than two batches wait to be written.
    self._finish(limit=2 * self._remover.batch_size)

  def _finish(self, *, limit: int) -> None:
    while len(self._writing) > limit:
      job, waiting_bytes, writing_bytes, future = self._writing.popleft()
      error = future.exception()
      self._waiting_bytes -= waiting_bytes
      self._writing_bytes -= writing_bytes
      if error:
        self._add_entry(_failed(job, error))
        continue
      entry, is_full = future.result()
      if is_full:
        self._stop.set()
      self._add_entry(entry)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Read:
  photo: photos.Photo
  stamp: str  # State of the photo's file before it was read.
  resized: np.ndarray  # (1, h, w, 3), of the network's input size.
  seconds: float

  @property
  def waiting_bytes(self) -> int:
    """Bytes that it takes in memory, about."""
    is_deep = self.photo.deep is not None
    each = _DEEP_WAITING_BYTES if is_deep else _WAITING_BYTES
    return each * self.photo.rgb.width * self.photo.rgb.height

  @property
  def writing_bytes(self) -> int:
    """Bytes that making its results takes besides, about."""
    return _WRITING_BYTES * self.photo.rgb.width * self.photo.rgb.height


def _read(
  job: listing.Job, source: images.Source, task: Task, remover
) -> _Read:
  began = time.perf_counter()
  state = job.find_state()
  photo = photos.read_photo(source, max_pixels=task.max_pixels)
  resized = remover.resize([photo.seen])
  return _Read(
    photo=photo,
    stamp=state.stamp if state else '',
    resized=resized,
    seconds=time.perf_counter() - began,
  )


def _write(
  job: listing.Job, task: Task, remover, read: _Read, probs: np.ndarray
) -> tuple[report.Entry, bool]:
  """Writes what is missing, each kind for itself.

  Returns:
    (what became of the photo, whether the disk is full).
  """
  began = time.perf_counter()
  alpha = remover.refine(probs, read.photo)
  missing, names, made = task.missing(job), task.name_results(job), {}
  colours = task.style.find_colours(read.photo, alpha, tuple(missing))
  failed = {}
  for kind, path in missing.items():
    try:
      content = task.style.encode(kind, read.photo, alpha, colours)
      storage.write(path, content)
      made[names[kind]] = len(content), read.stamp
    except Exception as error:  # One bad file stops no other.
      failed[kind] = error
  entry = report.Entry(
    photo=str(job.photo),
    status='failed' if failed else 'done',
    width=read.photo.rgb.width,
    height=read.photo.rgb.height,
    seconds=round(read.seconds + time.perf_counter() - began, 3),
    foreground=round(float(alpha.mean()), 4),
    notes=read.photo.notes,
    error='; '.join(
      describe(error) if len(missing) == 1 else f'{kind}: {describe(error)}'
      for kind, error in failed.items()
    ),
    made=made,
    runtime=remover.runtime,
    remark=job.remark,
  )
  return entry, any(
    isinstance(error, OSError) and error.errno in FULL
    for error in failed.values()
  )


def _failed(job: listing.Job, error: BaseException) -> report.Entry:
  # The entry says which photo.
  text = describe(error).removeprefix(f'{job.photo}: ')
  return report.Entry(photo=str(job.photo), status='failed', error=text)


def describe(error: BaseException) -> str:
  """Returns an error in words, with the class of an unexpected one."""
  if isinstance(error, OSError | ValueError) and str(error):
    text = str(error)
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
      text += '. Shorten the name of the photo'
    return text
  return f'{type(error).__name__}: {error}'.removesuffix(': ')


def _count_pixels(source: images.Source) -> int:
  try:
    height, width = images.read_size(source)
  except Exception:  # Decoders raise anything. Reading it will say why.
    return 0
  return height * width
