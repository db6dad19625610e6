"""Reads, predicts and writes photos at once, in bounded memory."""

import collections
import dataclasses
import errno
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
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
    """Raises a `UserError` if a disk takes no results; makes nothing there."""
    if isinstance(self.output, storage.Url):
      return
    for folder in (self.output, *(self.output / kind for kind in self.kinds)):
      # A missing folder is made in its nearest existing parent.
      # os.access never raises; Path.exists does in a folder that is closed.
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
    """Raises a `UserError` if a photo is among the results."""
    # Of all kinds: earlier runs may have written others than this one.
    real = {
      os.path.realpath(str(self.output / kind)): self.output / kind
      for kind in choices.KINDS
    }
    checked = set()
    for photo in photos_to_do:
      # A link to a photo may lead there as well as its folder.
      is_link = os.path.islink(photo)  # noqa: PTH114 (It never raises.)
      place = Path(os.path.realpath(photo)) if is_link else photo
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

  def name_results(self, job: listing.Job) -> dict[str, str]:
    """Returns the names of a photo's results, relative to the output."""
    names = {}
    for kind in self.kinds:
      suffix = self.style.suffix(kind)
      if job.is_clip:
        suffix = clip_names.suffix(kind, self.clip_format)
      names[kind] = f'{kind}/{job.result.as_posix()}{suffix}'
    return names

  def missing(self, job: listing.Job) -> dict[str, storage.PlaceT]:
    """Returns the files that are still to be written, by kind."""
    paths: dict[str, Any] = {
      kind: self.output / name
      for kind, name in self.name_results(job).items()
      if job.kinds is None or kind in job.kinds
    }
    # A listing has told which kinds are missing, so no file is asked for.
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
  """Does photos, taken as their turn comes; one that fails stops no other.

  No other is begun once `stop` is set, or the disk is full, which concerns all;
  those begun are finished. `add_entry` is called in this thread. The memory is
  shared by so many runs at once in this process.
  """
  threads = parallel.count_cores()
  # A thread that writes to a store mostly waits for it.
  patience = 4 if isinstance(task.output, storage.Url) else 1
  with (
    futures.ThreadPoolExecutor(stores.CONNECTIONS) as fetchers,
    futures.ThreadPoolExecutor(threads) as readers,
    futures.ThreadPoolExecutor(patience * threads) as writers,
  ):
    flow = _Flow(
      remover=remover,
      queue=_fetch(jobs, fetchers),
      task=task,
      add_entry=add_entry,
      stop=stop,
      readers=readers,
      writers=writers,
      most_bytes=_BYTES_IN_MEMORY // runs_at_once,
    )
    while flow.begin_reading():
      batch = flow.collect_batch()
      flow.begin_reading()  # Reads while the network is at work.
      flow.predict(batch)


# A job, where its photo is read from, and its pixels.
_Waiting = tuple[listing.Job, images.Source, int]


def _fetch(
  jobs: Iterable[listing.Job], fetchers: futures.Executor
) -> Iterator[_Waiting]:
  """Yields jobs in their order; files on stores are fetched ahead."""
  fetched: collections.deque = collections.deque()
  for job in jobs:
    source = job.photo
    if isinstance(source, storage.Url):
      content = fetchers.submit(storage.read, source)
      source = images.Encoded(str(source), stamp='', read_bytes=content.result)
    fetched.append((job, source))
    # Nothing is gained by looking ahead on a disk.
    if len(fetched) == _FETCHED or source is job.photo:
      yield _count_pixels(*fetched.popleft())
  while fetched:
    yield _count_pixels(*fetched.popleft())


@dataclasses.dataclass(kw_only=True)
class _Flow:
  """The photos on their way. Only the main thread uses it."""

  remover: Predictor
  queue: Iterator[_Waiting]
  task: Task
  add_entry: AddEntry
  stop: threading.Event
  readers: futures.Executor
  writers: futures.Executor
  most_bytes: int

  def __post_init__(self):
    self._next: _Waiting | None = None
    self._reading: collections.deque = collections.deque()
    self._writing: collections.deque = collections.deque()
    self._waiting_bytes = 0  # Bytes of all photos under way.
    self._writing_bytes = 0  # Further bytes of those being written.

  def begin_reading(self) -> bool:
    """Begins to read photos while there is room; False when all is done."""
    depth = 2 * self.remover.batch_size
    while len(self._reading) < depth and not self.stop.is_set():
      self._next = self._next or next(self.queue, None)
      if not self._next:
        break
      job, source, pixels = self._next
      # Room to write the largest of them must be left.
      largest = max([pixels, *(pixels for _, pixels, _ in self._reading)])
      needed = (
        self._waiting_bytes
        + pixels * _WAITING_BYTES
        + max(self._writing_bytes, largest * _WRITING_BYTES)
      )
      # A photo larger than all memory is read when it is alone.
      if self._waiting_bytes and needed > self.most_bytes:
        # Photos that are read go through the network first; that makes room.
        if self._reading or not self._writing:
          break
        self._finish(limit=len(self._writing) - 1)
        continue
      self._next = None
      self._waiting_bytes += pixels * _WAITING_BYTES
      future = self.readers.submit(_read, job, source, self.task, self.remover)
      self._reading.append((job, pixels, future))
    if not self._reading:
      # The last writes, of which no photo is left to read.
      self._finish(limit=0)
    return bool(self._reading)

  def collect_batch(self) -> list[tuple]:
    """Waits for photos to be read, a batch of them at most."""
    batch = []
    while self._reading and len(batch) < self.remover.batch_size:
      job, pixels, future = self._reading.popleft()
      self._waiting_bytes -= pixels * _WAITING_BYTES
      if error := future.exception():
        self.add_entry(_failed(job, error))
        continue
      read = future.result()
      # Now its bits per channel are known: another number than at first.
      self._waiting_bytes += read.waiting_bytes
      batch.append((job, read))
    return batch

  def predict(self, batch: list[tuple]) -> None:
    """Runs the network and leaves the rest to the writers."""
    if not batch:
      return
    probs = self.remover.predict(
      np.concatenate([read.resized for _, read in batch])
    )
    for one in probs:
      job, read = batch.pop(0)  # So that the list keeps no written photo.
      while self._writing and (
        self._waiting_bytes + self._writing_bytes + read.writing_bytes
        > self.most_bytes
      ):
        self._finish(limit=len(self._writing) - 1)
      self._writing_bytes += read.writing_bytes
      future = self.writers.submit(
        _write, job, self.task, self.remover, read, one
      )
      self._writing.append(
        (job, read.waiting_bytes, read.writing_bytes, future)
      )
    # No more than two batches wait to be written.
    self._finish(limit=2 * self.remover.batch_size)

  def _finish(self, *, limit: int) -> None:
    """Reports what is written, and waits until no more than these are not."""
    while self._writing and (
      len(self._writing) > limit
      # At once: a killed run would lose its line.
      or self._writing[0][-1].done()
    ):
      job, waiting_bytes, writing_bytes, future = self._writing.popleft()
      error = future.exception()
      self._waiting_bytes -= waiting_bytes
      self._writing_bytes -= writing_bytes
      if error:
        self.add_entry(_failed(job, error))
        continue
      entry, is_full = future.result()
      if is_full:
        self.stop.set()
      self.add_entry(entry)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Read:
  photo: photos.Photo
  stamp: str  # State of the photo's file before it was read.
  resized: np.ndarray  # (1, h, w, 3), of the network's input size.
  waiting_bytes: int  # What it takes in memory, about,
  writing_bytes: int  # and what making its results takes besides.
  seconds: float


def _read(
  job: listing.Job, source: images.Source, task: Task, remover
) -> _Read:
  began = time.perf_counter()
  # Before it is read: if it changes meanwhile, the next run does it again.
  state = job.find_state()
  photo = photos.read_photo(source, max_pixels=task.max_pixels)
  pixels = photo.rgb.width * photo.rgb.height
  each = _WAITING_BYTES if photo.deep is None else _DEEP_WAITING_BYTES
  return _Read(
    photo=photo,
    stamp=state.stamp if state else '',
    resized=remover.resize([photo.seen]),
    waiting_bytes=each * pixels,
    writing_bytes=_WRITING_BYTES * pixels,
    seconds=time.perf_counter() - began,
  )


def _write(
  job: listing.Job, task: Task, remover, read: _Read, probs: np.ndarray
) -> tuple[report.Entry, bool]:
  """Writes what is missing; returns (outcome, whether the disk is full)."""
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
    # Of several kinds, it says which has failed.
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
  return report.pass_over(job, text)


def describe(error: BaseException) -> str:
  """Returns an error in words, with the class of an unexpected one."""
  if isinstance(error, OSError | ValueError) and str(error):
    text = str(error)
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
      text += '. Shorten the name of the photo'
    return text
  # An exception without a text leaves its class alone.
  return f'{type(error).__name__}: {error}'.removesuffix(': ')


def _count_pixels(job: listing.Job, source: images.Source) -> _Waiting:
  try:
    height, width = images.read_size(source)
  except Exception:  # Decoders raise anything. Reading it will say why.
    return job, source, 0
  return job, source, height * width
