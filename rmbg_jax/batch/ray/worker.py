"""Does tasks in an actor: a network, compiled once."""

import collections
import contextlib
import dataclasses
import json
import threading
from collections.abc import Iterator, Sequence

import pyarrow as pa
import ray
from PIL import Image

from data_pipelines.io import storage
from data_pipelines.io.types import JsonObject
from rmbg_jax.batch import listing, pipeline, record, report
from rmbg_jax.batch.ray import manifest
from rmbg_jax.inference import remover as remover_lib
from rmbg_jax.inference import runtimes

# One call's first photos are read while another's last ones are written.
CALLS_PER_ACTOR = 2
# How often a process may have died at a photo that it did alone.
_LONE_TRIES = 2
# Name of the mark of a task that was begun: the photos that had no results.
_ALL = 'all'


class Worker:
  """An actor: a network, compiled once, that does tasks."""

  def __init__(
    self,
    loaded: ray.ObjectRef,
    task: pipeline.Task,
    options: JsonObject,
    batch_size: int,
    run_name: str,
  ):
    """Loads the network; see `cut_out`."""
    runtimes.start_process(options.get('runtime', 'auto'))
    Image.MAX_IMAGE_PIXELS = None  # Photos are held against `max_pixels`.
    self._task = task
    self._tries = task.output / report.FOLDER / f'{manifest.TRIES}-{run_name}'
    self._remover = remover_lib.BackgroundRemover(
      ray.get(loaded),
      batch_size=batch_size,
      max_pixels=task.max_pixels,
      **options,
    )
    # All calls at once, or one alone that does what may kill the process.
    self._places = threading.Semaphore(CALLS_PER_ACTOR)
    self._taking_all = threading.Lock()

  def __call__(self, table: pa.Table) -> pa.Table:
    """Does a task; see `cut_out` for what comes in and out."""
    jobs = manifest.read_jobs(table)
    entries = {}
    try:
      self._do(jobs, entries)
    # Other tasks go on, and the photos are named.
    except Exception as error:
      text = pipeline.describe(error)
      # Photos that were done before the error keep their lines.
      for job in jobs:
        entries.setdefault(str(job.photo), report.pass_over(job, text))
    found = [entries[str(job.photo)] for job in jobs]
    columns = {
      'photo': [entry.photo for entry in found],
      'status': [entry.status for entry in found],
      'line': [report.to_line(entry) for entry in found],
    }
    # Rows go back in the form in which they came.
    if pa.types.is_list(table.schema.field('photo').type):
      columns = {name: [values] for name, values in columns.items()}
    return pa.table(columns)

  def _do(
    self, jobs: Sequence[listing.Job], entries: dict[str, report.Entry]
  ) -> None:
    # A name that a task has on every try, and no other task has.
    names = '\n'.join(str(job.photo) for job in jobs)
    tries = self._tries / report.digest(names).hex()
    before = list(storage.list_names(tries))
    # Without this mark, the process died before it began anything.
    if _ALL in before:
      with self._alone():
        self._do_again(jobs, entries, tries, before)
      return
    # Before waiting: meanwhile, a process that is cut off, but alive, may do
    # some, which would then count as done before.
    todo = [job for job in jobs if self._task.missing(job)]
    with self._places:
      # Before the work, which may end the process. Lists what had no results,
      # so that a second try can tell.
      storage.write(
        tries / _ALL, json.dumps([str(job.photo) for job in todo]).encode()
      )
      self._run(todo, entries)
      for job in jobs:
        # A full disk has ended it before some of them.
        error = 'not done: there is no space left.' if job in todo else ''
        entries.setdefault(str(job.photo), report.pass_over(job, error))

  def _do_again(
    self,
    jobs: Sequence[listing.Job],
    entries: dict[str, report.Entry],
    tries: storage.Place,
    before: Sequence[str],
  ) -> None:
    """Does the rest of a task whose process died, one photo at a time."""
    todo = set(json.loads(storage.read(tries / _ALL)))
    # Other marks have the names INDEX-TRY and INDEX-ended.
    lone = collections.Counter(name.partition('-')[0] for name in before)
    for index, job in enumerate(jobs):
      # Their results may have been there before the first try.
      is_anew = self._task.overwrite or job.remark == record.CHANGED
      if not is_anew:  # Its kinds are those from before the first try.
        job = dataclasses.replace(job, kinds=None)
      name = str(job.photo)
      if f'{index}-ended' in before:
        line = json.loads(storage.read(tries / f'{index}-ended'))
        entries[name] = report.Entry(**line)
      elif name not in todo:
        entries[name] = report.pass_over(job, '')
      elif not is_anew and not self._task.missing(job):
        entries[name] = report.Entry(
          photo=name,
          status='done',
          notes=('by a process that died afterwards',),
        )
      elif lone[str(index)] >= _LONE_TRIES:
        entries[name] = report.pass_over(
          job,
          f'its process died at it {_LONE_TRIES + 1} times (too little '
          'memory?). Do it on a machine with more, or leave it out.',
        )
      else:
        # Also before the work.
        storage.write(tries / f'{index}-{lone[str(index)]}', b'')
        self._run([job], entries)
        # Kept, since the next photo may end the process.
        line = report.to_line(entries[name]).encode()
        storage.write(tries / f'{index}-ended', line)

  def _run(
    self, jobs: Sequence[listing.Job], entries: dict[str, report.Entry]
  ) -> None:
    pipeline.run(
      self._remover,
      jobs,
      self._task,
      add_entry=lambda entry: entries.setdefault(entry.photo, entry),
      stop=threading.Event(),
      runs_at_once=CALLS_PER_ACTOR,
    )

  @contextlib.contextmanager
  def _alone(self) -> Iterator[None]:
    # Two calls that took half of the places each would wait for ever.
    with self._taking_all:
      for _ in range(CALLS_PER_ACTOR):
        self._places.acquire()
    try:
      yield
    finally:
      self._places.release(CALLS_PER_ACTOR)
