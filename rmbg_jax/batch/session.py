"""Does the jobs of a run: photos, clips, the report, and Ctrl-C."""

import dataclasses
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from data_pipelines.io import errors, storage
from rmbg_jax.batch import listing, pipeline, record, report
from rmbg_jax.inference import remover as remover_lib
from rmbg_jax.inference import runtimes
from rmbg_jax.inference.predictor import Predictor

# Does clips; called as `pipeline.run` is.
DoClips = Callable[..., None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
  """A prediction that is asked for.

  Attributes:
    task: Work to do on each photo.
    checkpoint: Path or name that `load_model` takes.
    options: Options of `BackgroundRemover.from_checkpoint`.
    batch_size: Photos that go through the network together.
    shard: 'i/n' for every n-th photo from the i-th on; '' for all.
    do_clips: Does the clips.
  """

  task: pipeline.Task
  checkpoint: str
  options: dict[str, Any]  # Each of its own type.
  batch_size: int
  shard: str
  do_clips: DoClips

  def load(self, *, batch_size: int) -> Predictor:
    """Returns the network, in a process that is set up for it."""
    runtimes.start_process(self.options['runtime'])
    return remover_lib.BackgroundRemover.from_checkpoint(
      self.checkpoint, batch_size=batch_size, **self.options
    )

  def read_record(self) -> record.Record:
    """Returns the record of earlier results, empty with `overwrite`."""
    return record.Record(None if self.task.overwrite else self.task.output)


class Session:
  """Does jobs, with a report, until SIGINT. A context.

  Attributes:
    outcome: What became of the jobs so far.
    stop: Set once no other job is to be begun.
  """

  def __init__(self, request: Request, remover: Predictor | None):
    """Takes the network, None where nothing is to be done."""
    self.outcome = report.Tally()
    self.stop = threading.Event()
    self._request = request
    self._task = request.task
    self._remover: Any = remover

  def __enter__(self) -> 'Session':
    # Ctrl-C lets what was begun be finished, instead of raising anywhere.
    self._previous = signal.signal(signal.SIGINT, self._interrupt)
    if isinstance(self._task.output, storage.Url):
      self._report = report.PartedReport(self._task.output)
      return self
    suffix = self._request.shard.replace('/', '-of-')
    name = f'report-{suffix}.jsonl' if suffix else 'report.jsonl'
    self._report = report.Report(self._task.output / name)
    return self

  def __exit__(self, *exc_info):
    outcome = self.outcome
    try:
      self._report.close()
    except (errors.UserError, OSError) as error:
      outcome.trouble = str(error)
    # Not before: Ctrl-C may not cut off the report's last write.
    signal.signal(signal.SIGINT, self._previous)
    # Set for neither of these reasons, it means a full disk.
    if self.stop.is_set() and not (outcome.interrupted or outcome.trouble):
      outcome.trouble = f'no space is left for {self._task.output}'

  def _interrupt(self, *_):
    self.outcome.interrupted = True
    self.stop.set()

  def do(
    self,
    jobs: Iterable[listing.Job],
    *,
    show: Callable[[report.Entry], object],
    put_back: Callable[[str], bool] = lambda _: False,
  ) -> None:
    """Does photos and clips; `show` is called with each result.

    If `jobs` is no sequence, photos are taken from it as their turn comes. What
    failed and is taken by `put_back` is not reported.
    """

    def add_entry(entry):
      if entry.status == 'failed' and put_back(entry.photo):
        return
      try:
        # First: it may know what computed a photo that was skipped.
        self._report.add(entry)
      except (errors.UserError, OSError) as error:
        self.outcome.trouble = str(error)
        self.stop.set()
      self.outcome.add(entry)
      show(entry)

    clips_to_do = []

    def choose_photos():
      for job in jobs:
        if job.error or not self._task.missing(job):
          add_entry(report.pass_over(job, job.error))
        elif job.is_clip:
          clips_to_do.append(job)
        else:
          yield job

    photos_to_do = choose_photos()
    if isinstance(jobs, Sequence):  # Then it is known at once what is done.
      photos_to_do = list(photos_to_do)
    # In this order: choosing photos finds the clips.
    for do, todo in (
      (pipeline.run, photos_to_do),
      (self._request.do_clips, clips_to_do),
    ):
      if todo:
        do(self._remover, todo, self._task, add_entry=add_entry, stop=self.stop)
