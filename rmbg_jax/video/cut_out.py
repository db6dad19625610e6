"""Cuts out clips in parts, so that finished parts stay done."""

import contextlib
import dataclasses
import functools
import itertools
import json
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent import futures
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import tqdm

from data_pipelines.io import errors, files, parallel, storage
from rmbg_jax.batch import clip_names, listing, pipeline, report
from rmbg_jax.inference.predictor import Predictor
from rmbg_jax.video import clips, encoding, temporal

_PART = 120  # Frames, at least: what an interruption costs at most.
# Bytes that frames may take while they wait for the network, and as many while
# they wait to be written; and what a pixel takes, about.
_WAITING_BYTES = 500_000_000
_PIXEL_BYTES = 16
_FOLDER = '.parts'  # Folder in the output for unfinished clips.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """Options for clips, beside those of a `Task`.

  Attributes:
    steadiness: Steadiness of masks over time, 0 to 1; see `temporal.Steadier`.
    frame_rate: Frames per second of folders of frames.
    find_key: Returns a text for what else results depend on, such as the
      network; parts of another one are not used.
  """

  steadiness: float = 0.0
  frame_rate: Fraction = Fraction(25)
  find_key: Callable[[], str] = str

  def __post_init__(self):
    if not 0 <= self.steadiness <= 1:
      raise errors.UserError(f'--temporal={self.steadiness}: choose 0 to 1.')
    if not 0 < self.frame_rate <= 1000:
      raise errors.UserError(
        f'--frame_rate={self.frame_rate}: pass frames per second, such as 25.'
      )


def parse_frame_rate(text: str) -> Fraction:
  """Returns frames per second, of a number or a fraction.

  Raises:
    UserError: if it is neither.
  """
  try:
    return Fraction(text)
  except (ValueError, ZeroDivisionError) as error:
    raise errors.UserError(
      f'--frame_rate={text}: pass frames per second, such as 25 or 30000/1001.'
    ) from error


def run(
  remover: Predictor,
  jobs: Sequence[listing.Job],
  task: pipeline.Task,
  options: Options,
  *,
  add_entry: pipeline.AddEntry,
  stop: threading.Event,
) -> None:
  """Does clips, one after the other, as `pipeline.run` does photos.

  Once `stop` is set, the part at work is given up; those before are kept.
  """
  key = options.find_key()
  for job in jobs:
    if stop.is_set():
      return
    work = _Work(
      remover=remover, job=job, task=task, options=options, key=key, stop=stop
    )
    try:
      entry = work.run()
    except Exception as error:  # Any error concerns this clip only.
      text = pipeline.describe(error).removeprefix(f'{job.photo}: ')
      entry = report.pass_over(job, text)
      if isinstance(error, errors.UserError):
        work.clear()  # Parts of a broken clip are useless.
      if isinstance(error, OSError) and error.errno in pipeline.FULL:
        stop.set()
    if entry:
      add_entry(entry)


@dataclasses.dataclass(kw_only=True)
class _Work:
  """A clip that is being done."""

  remover: Predictor
  job: listing.Job
  task: pipeline.Task
  options: Options
  key: str
  stop: threading.Event

  def __post_init__(self):
    task = self.task
    # All frames of a clip have one size, and videos formats of their own.
    self._style = dataclasses.replace(task.style, format='png', trim=False)
    self._missing = task.missing(self.job)
    # None is within another one's, as `a/b` is within `a`.
    name = report.digest(str(self.job.result)).hex()
    self._folder = task.output / _FOLDER / name
    self._steadier = temporal.Steadier(self.options.steadiness)
    self._size = self.remover.batch_size

  def run(self) -> report.Entry | None:
    """Returns what became of it; None if it was stopped."""
    began = time.perf_counter()
    job, options, form = self.job, self.options, self.task.clip_format
    names, made = self.task.name_results(job), {}
    state = job.find_state()  # Before it is read.
    stamp = state.stamp if state else ''
    # All that a part depends on, and where parts end: parts of another key are
    # made again.
    self._key = repr(
      (
        *(stamp, sorted(self._missing), self._style, form, self.key),
        *(options.steadiness, options.frame_rate, self.remover.batch_size),
      )
    )
    with clips.opened(
      job.photo,
      max_pixels=self.task.max_pixels,
      frame_rate=options.frame_rate,
    ) as clip:
      # Before the first frame: what cannot be is known then.
      sounds = {
        kind: encoding.plan_sound(kind, form, job.photo)
        for kind in self._missing
      }
      states = self._restore()
      if not (states and states[-1]['is_last']):
        states = self._do_parts(clip, states)
      if states is None:
        return None
      for kind, path in self._missing.items():
        parts = [
          (self._find_part(index, kind), state['times'])
          for index, state in enumerate(states)
        ]
        encoding.join(
          kind, form, parts, clip.time_base, job.photo, sounds[kind][0], path
        )
        result = storage.find_state(path)
        made[names[kind]] = (result.size if result else 0, stamp)
    # Not before all results are there.
    self.clear()
    count = sum(len(state['times']) for state in states)
    said = [note for _, notes in sounds.values() for note in notes]
    notes = (*clip.notes, *dict.fromkeys(said))
    if self.task.style.trim:
      notes = (*notes, 'not trimmed: all frames of a clip have one size')
    return report.Entry(
      photo=str(job.photo),
      status='done',
      width=clip.size[0],
      height=clip.size[1],
      seconds=round(time.perf_counter() - began, 3),
      foreground=round(sum(state['sum'] for state in states) / count, 4),
      notes=notes,
      frames=count,
      made=made,
      remark=job.remark,
      runtime=self.remover.runtime,
    )

  def clear(self) -> None:
    """Removes all parts."""
    shutil.rmtree(self._folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # There are other clips' parts.
      self._folder.parent.rmdir()

  def _restore(self) -> list[dict[str, Any]]:
    """Returns the states of the parts that are done; removes others."""
    states = []
    for index in itertools.count():
      try:
        # Only an unbroken row of parts from the first one on can be joined.
        state = json.loads(self._find_state(index, '.json').read_text())
      except (OSError, ValueError):
        break
      if state['key'] != self._key:
        break
      states.append(state)
    if not states:
      shutil.rmtree(self._folder, ignore_errors=True)
      self._folder.mkdir(parents=True)
    elif self.options.steadiness:
      with np.load(self._find_state(len(states) - 1, '.npz')) as arrays:
        self._steadier.last = arrays['probs'], arrays['guide']
    return states

  def _find_state(self, index: int, suffix: str) -> Path:
    return self._folder / f'{index:05}{suffix}'

  def _find_part(self, index: int, kind: str) -> Path:
    suffix = clip_names.suffix(kind, self.task.clip_format)
    return self._find_state(index, f'.{kind}{suffix}')

  def _do_parts(self, clip: clips.Clip, states: list) -> list | None:
    """Does what is left and returns all states; None if it was stopped."""
    # Large frames go through the network in smaller batches, to save memory.
    room = _WAITING_BYTES // (_PIXEL_BYTES * clip.size[0] * clip.size[1])
    # Two batches are in memory: one in the network, one that is read.
    self._size = max(1, min(self.remover.batch_size, room // 2))
    done = sum(len(state['times']) for state in states)
    threads = parallel.count_cores()
    with (
      contextlib.closing(clip.read()) as frames,
      futures.ThreadPoolExecutor(1) as reader,
      futures.ThreadPoolExecutor(threads) as pool,
      tqdm.tqdm(
        total=clip.count,
        initial=done,
        unit='frame',
        desc=self.job.photo.name,
        leave=False,
      ) as progress,
    ):
      # Decode finished frames again: seeking is not exact in all formats.
      for _ in itertools.islice(frames, done):
        if self.stop.is_set():
          return None

      def read():
        batch = list(itertools.islice(frames, self._size))
        seen = [frame.photo.seen for frame in batch]
        return batch, self.remover.resize(seen) if batch else None

      batches = _Batches(read, reader)
      while not batches.are_over():
        index = len(states)
        state = self._do_part(clip, batches, index, done, pool, progress)
        if state is None:
          return None
        done += len(state['times'])
        state['is_last'] = batches.are_over()
        for kind in self._missing:  # A state says that its parts are there.
          files.sync(self._find_part(index, kind))
        if self._steadier.last:
          probs, guide = self._steadier.last
          path = self._find_state(index, '.npz')
          np.savez(path, probs=probs, guide=guide)
          files.sync(path)
        # Last: from here on, the part counts as done.
        files.write_text(self._find_state(index, '.json'), json.dumps(state))
        states.append(state)
    return states

  def _do_part(
    self, clip, batches, index, first, pool, progress
  ) -> dict[str, Any] | None:
    """Writes a part; returns its state, or None if it was stopped."""
    part_size = -(-_PART // self._size) * self._size
    times, total, form = [], 0.0, self.task.clip_format
    pending: deque = deque()
    with contextlib.ExitStack() as stack:
      writers = {
        kind: stack.enter_context(
          encoding.make_writer(kind, form, clip, self._find_part(index, kind))
        )
        for kind in self._missing
      }

      def write(limit):
        nonlocal total
        while len(pending) > limit:
          frame, future = pending.popleft()
          pictures, foreground = future.result()
          total += foreground
          for kind, picture in pictures.items():
            writers[kind].add(
              picture, index=first + len(times), start=frame.start
            )
          times.append((frame.start, frame.duration))
          progress.update()

      while len(times) + len(pending) < part_size and not batches.are_over():
        if self.stop.is_set():
          return None
        frames, resized = batches.take()
        probs = self.remover.predict(resized)
        # Steadied in the frames' order, so here; drawn in any.
        for frame, one, seen in zip(frames, probs, resized, strict=True):
          steadied = self._steadier.steady(one, seen)
          drawn = pool.submit(self._draw, frame, steadied, writers)
          pending.append((frame, drawn))
        # No more than two batches wait to be written.
        write(2 * self._size)
      write(0)
    return {'key': self._key, 'times': times, 'sum': total}

  def _draw(
    self, frame: clips.Frame, probs: np.ndarray, writers
  ) -> tuple[dict[str, Any], float]:
    """Returns what the writers take, by kind, and the mean alpha."""
    alpha = self.remover.refine(probs, frame.photo)
    colours = self._style.find_colours(frame.photo, alpha, tuple(writers))
    pictures = {
      kind: writer.prepare(self._style.draw(kind, frame.photo, alpha, colours))
      for kind, writer in writers.items()
    }
    return pictures, float(alpha.mean())


class _Batches:
  """Reads the next batch while the network is at work.

  A batch has frames, and what the network sees of them.
  """

  def __init__(
    self,
    read: Callable[[], tuple[list[clips.Frame], np.ndarray]],
    reader: futures.Executor,
  ):
    self._submit = functools.partial(reader.submit, read)
    self._next = self._submit()

  def are_over(self) -> bool:
    """Returns whether there are no more frames; waits until that is known."""
    return not self._next.result()[0]

  def take(self) -> tuple[list[clips.Frame], np.ndarray]:
    """Returns the next batch."""
    batch = self._next.result()
    self._next = self._submit()
    return batch
