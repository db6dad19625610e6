"""Processes uploaded files for the page, without knowing its look."""

import contextlib
import dataclasses
import os
import re
import shutil
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from data_pipelines.io import errors, images
from rmbg_jax.batch import listing, pipeline
from rmbg_jax.batch import report as report_lib
from rmbg_jax.inference import photos, refinement
from rmbg_jax.inference import remover as remover_lib
from rmbg_jax.web import options as options_lib

# Requests that are worked on at once; each uses all cores.
AT_ONCE = 2
# Lifetime of results that wait for their download.
KEPT_SECONDS = 3600

# Files that browsers show; of others they get a JPEG of at most this side.
_SHOWN_FORMATS = ('JPEG', 'MPO', 'PNG', 'WEBP', 'GIF', 'BMP', 'AVIF')
_SHOWN_SIDE = 2000
_NAME_LENGTH = 100  # Bytes; some file systems take no more than 143.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
  """A photo that was cut out.

  Attributes:
    name: Name of the uploaded photo.
    shown: An image file of the photo that browsers can show.
    image: The cut-out, the foreground before another background, or what else
      was asked for; a PNG.
    mask: Alpha as an 8-bit grey PNG.
    entry: Its line of the report, with the size and notes.
  """

  name: str
  shown: Path
  image: Path
  mask: Path
  entry: report_lib.Entry


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
  """The outcome of a request.

  Attributes:
    results: Photos that were cut out, in the order of the request.
    failures: Sentences about the other photos, each beginning with the photo's
      name.
  """

  results: tuple[Result, ...]
  failures: tuple[str, ...]


class Service:
  """Cuts out uploaded photos. Its methods may be called from many threads.

  Attributes:
    checkpoints: Names of the checkpoints on offer, the default first.
    limits: Limits on a request.
  """

  def __init__(
    self,
    checkpoints: Sequence[str],
    *,
    limits: options_lib.Limits,
    folder: Path,
    options: Mapping[str, Any] | None = None,  # Any: each of its own type.
  ):
    """Loads the first checkpoint and compiles its network.

    Args:
      checkpoints: As `load_model` takes them; all but the first are loaded when
        first asked for.
      limits: Limits on a request.
      folder: Folder for results, with a new folder for each request.
      options: Options of `BackgroundRemover`, such as the runtime.

    Raises:
      UserError: if there is no first checkpoint, or it is damaged.
    """
    self.checkpoints = tuple(checkpoints)
    self.limits = limits
    self._folder = folder
    self._remover_options = dict(options or {})
    self._removers: dict[str, remover_lib.BackgroundRemover] = {}
    self._loading = threading.Lock()
    self._cleaning = threading.Lock()
    self._at_work: set[Path] = set()
    # Page and single requests together.
    self._turns = threading.BoundedSemaphore(AT_ONCE)
    self._load_remover(self.checkpoints[0])

  def cut_out(
    self,
    uploads: Sequence[Path],
    options: options_lib.Options,
    *,
    report_progress: Callable[[int, int], None],
  ) -> Answer:
    """Cuts out photos; one's trouble does not touch the others.

    `report_progress` is called, in this thread, as photos are done: with their
    number, and how many there are in all.

    Raises:
      UserError: if the request as a whole cannot be done, and why.
    """
    if not uploads:
      raise errors.UserError('There is no photo. Add one or several first.')
    if len(uploads) > self.limits.files:
      raise errors.UserError(
        f'{len(uploads)} photos are more than the limit of '
        f'{self.limits.files} at once. Remove some.'
      )
    # Before a turn is taken, for which others may wait.
    kind, style = options.make_style(self.limits)
    remover = self._load_remover(options.checkpoint).with_refinement(
      refinement.Refinement(method=options.edges)
    )
    names = name_uploads([upload.name for upload in uploads])
    jobs = [
      listing.Job(photo=upload, result=result, error=self._find_fault(upload))
      for upload, result in zip(
        uploads, listing.name_results([Path(n) for n in names]), strict=True
      )
    ]
    with self._turns, self._open_folder() as folder:
      task = pipeline.Task(
        output=folder,
        kinds=('mask', kind),
        style=style,
        max_pixels=self.limits.pixels,
      )
      entries = self._run(remover, jobs, task, report_progress)
      results, failures = [], []
      for name, job in zip(names, jobs, strict=True):
        entry = entries.get(str(job.photo))
        if entry is None or entry.error:
          # Without either, `pipeline.run` has stopped, as it does on a full
          # disk.
          error = entry.error if entry else job.error
          error = error or 'not done: there is no space left.'
          # Paths of the server are not for visitors.
          error = error.replace(f'{folder}{os.sep}', '')
          error = options_lib.without_path(error, job.photo)
          failures.append(f'{name}: {error}')
          continue
        paths = task.name_results(job)
        results.append(
          Result(
            name=name,
            shown=self._make_shown(job, folder),
            image=folder / paths[kind],
            mask=folder / paths['mask'],
            entry=entry,
          )
        )
    return Answer(results=tuple(results), failures=tuple(failures))

  @contextlib.contextmanager
  def take_turn(self) -> Iterator[Path]:
    """Waits until a single request may be worked on.

    Yields:
      A folder for what must be in a file, removed at the end.
    """
    with self._turns:
      self._folder.mkdir(parents=True, exist_ok=True)
      with tempfile.TemporaryDirectory(dir=self._folder) as folder:
        yield Path(folder)

  def find_alpha(
    self,
    photo: photos.Photo,
    *,
    checkpoint: str | None = None,
    refined: refinement.Refinement | None = None,
  ) -> Float[np.ndarray, 'h w']:
    """Returns the foreground's share in a photo, in [0, 1].

    Raises:
      UserError: if there is no such checkpoint.
    """
    remover = self._load_remover(checkpoint or self.checkpoints[0])
    remover = remover.with_refinement(refined or refinement.Refinement())
    probs = remover.predict(remover.resize([photo.seen]))[0]
    return remover.refine(probs, photo)

  def _run(
    self, remover, jobs, task, report_progress
  ) -> dict[str, report_lib.Entry]:
    """Returns what became of each photo, by its path."""
    entries = {}
    good = [job for job in jobs if not job.error]

    def report():
      report_progress(len(jobs) - len(good) + len(entries), len(jobs))

    def add_entry(entry):
      entries[entry.photo] = entry
      report()

    report()
    pipeline.run(
      remover,
      good,
      task,
      add_entry=add_entry,
      stop=threading.Event(),  # A full disk alone sets it.
      runs_at_once=AT_ONCE,
    )
    return entries

  def _find_fault(self, upload: Path) -> str:
    try:
      return self.limits.find_excess(upload.stat().st_size)
    except OSError:
      return 'the upload is not there any more. Add it again.'

  @contextlib.contextmanager
  def _open_folder(self) -> Iterator[Path]:
    """Yields a new folder, and removes those of requests long past.

    None is removed while its request is at work, however long that takes.
    """
    with self._cleaning:
      self._folder.mkdir(parents=True, exist_ok=True)
      for old in self._folder.iterdir():
        # Somebody may remove it just now.
        with contextlib.suppress(OSError):
          age = time.time() - old.stat().st_mtime
          if age > KEPT_SECONDS and old not in self._at_work:
            shutil.rmtree(old, ignore_errors=True)
      folder = Path(tempfile.mkdtemp(dir=self._folder))
      self._at_work.add(folder)
    try:
      yield folder
    finally:
      with self._cleaning:
        self._at_work.discard(folder)
        # The lifetime begins now, not with the request.
        with contextlib.suppress(OSError):
          os.utime(folder)

  def _make_shown(self, job: listing.Job, folder: Path) -> Path:
    """Returns what a browser can show of a photo: itself, or a JPEG."""
    with images.opened(job.photo) as image:
      if image.format in _SHOWN_FORMATS:
        return job.photo
    photo = photos.read_photo(job.photo, max_pixels=self.limits.pixels)
    shown = photo.rgb.copy()
    shown.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
    path = folder / 'photo' / f'{job.result.name}.jpg'
    path.parent.mkdir(exist_ok=True)
    shown.save(path, icc_profile=photo.icc_profile)
    return path

  def _load_remover(self, checkpoint: str) -> remover_lib.BackgroundRemover:
    """Returns a network that is loaded and compiled, once for all requests."""
    if checkpoint not in self.checkpoints:
      raise errors.UserError(
        f'checkpoint={checkpoint}: choose one of {", ".join(self.checkpoints)}.'
      )
    with self._loading:
      if checkpoint not in self._removers:
        remover = remover_lib.BackgroundRemover.from_checkpoint(
          checkpoint, **self._remover_options
        )
        remover.remove(np.zeros((64, 64, 3), np.uint8))  # Compiles.
        self._removers[checkpoint] = remover
      return self._removers[checkpoint]


def name_uploads(names: Sequence[str]) -> list[str]:
  """Returns names of uploads that are safe to write, and all different."""
  taken, safe = set(), []
  for name in names:
    # No separators, no control characters, nothing hidden.
    path = Path(re.sub(r'[^\w .()+-]', '_', name.strip()).lstrip('. '))
    suffix = path.suffix[:10]
    length = _NAME_LENGTH - len(suffix.encode())
    # A cut may go through a character, which is then left out.
    stem = path.stem.encode()[:length].decode(errors='ignore').strip()
    stem = stem or 'photo'
    candidate, number = f'{stem}{suffix}', 1
    # Some disks take a and A for the same.
    while candidate.casefold() in taken:
      number += 1
      candidate = f'{stem} ({number}){suffix}'
    taken.add(candidate.casefold())
    safe.append(candidate)
  return safe


def save_zip(results: Sequence[Result]) -> Path:
  """Returns an archive of results and masks, beside them."""
  path = results[0].image.parent.parent / 'cutouts.zip'
  # PNGs do not get smaller.
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as archive:
    for file in [r.image for r in results] + [r.mask for r in results]:
      archive.write(file, f'{file.parent.name}/{file.name}')
  return path
