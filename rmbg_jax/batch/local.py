"""Does photos and clips of this machine, once or as they appear."""

import collections
from collections.abc import Sequence
from pathlib import Path

import tqdm

from data_pipelines.io import errors
from rmbg_jax.batch import (
  clip_names,
  listing,
  record,
  session,
  summary,
  watching,
)
from rmbg_jax.weights import load


def run(
  sources: Sequence[str], request: session.Request, *, are_frames: bool
) -> bool:
  """Does all photos and clips of the sources; returns whether any failed.

  With `are_frames`, the source is a folder of numbered frames, one clip.

  Raises:
    SystemExit: if it was interrupted.
    UserError: if there is nothing to do, or no place for the results.
  """
  task, others = request.task, collections.Counter()
  if are_frames:
    jobs = _list_frames(sources[0])
  elif len(sources) > 1:
    jobs = listing.list_files(sources)
  else:
    jobs = listing.list_jobs(sources[0], others)
  # Both checks come before the network, which takes seconds to load.
  task.check_output()
  task.check_photos([job.photo for job in jobs])
  # Before results are looked for: shards that run at once see different ones.
  jobs = jobs[listing.parse_shard(request.shard)]
  jobs = list(record.find_missing(jobs, task, request.read_record()))
  todo = [job for job in jobs if not job.error and job.kinds]
  remover = None
  if todo:
    # One photo must not go through the network with three empty ones.
    alone = len(todo) == 1 and not todo[0].is_clip
    remover = request.load(batch_size=1 if alone else request.batch_size)
  else:  # Nothing to do, but a wrong flag is named.
    load.check_exists(request.checkpoint)
  work = session.Session(request, remover)
  with work, tqdm.tqdm(total=len(jobs), unit='file') as progress:
    work.do(jobs, show=lambda _: progress.update())
  outcome = work.outcome
  summary.print_counts(outcome, summary.count_jobs(len(jobs), jobs), task)
  summary.print_others(others)
  left = len(jobs) - outcome.counts.total()
  if left and outcome.interrupted:
    print(summary.describe_stop(overwrite=task.overwrite))
    raise SystemExit(summary.INTERRUPTED)
  if left or outcome.trouble:
    also = f' with {summary.count_jobs(left, jobs)} left' if left else ''
    print(
      f'Stopped{also}: {outcome.trouble}. Free space; the same command goes on.'
    )
  return bool(outcome.counts['failed'] or outcome.trouble)


def watch(folder: Path, request: session.Request) -> bool:
  """Does the files that appear in a folder until SIGINT.

  Returns whether any failed.

  Raises:
    UserError: if it cannot be watched.
  """
  errors.check_extra('watch', '--watch needs watchfiles', 'watchfiles')
  if not folder.is_dir():
    raise errors.UserError(
      f'--input={folder}: --watch takes a folder of photos and clips.'
    )
  task = request.task
  task.check_output()
  task.check_photos([folder / '*'])  # Those that will come.

  def list_jobs():
    try:
      jobs = listing.list_jobs(str(folder))
    except FileNotFoundError:
      return []  # Nothing yet, or removed while it is listed.
    shard = listing.parse_shard(request.shard)
    found = record.find_missing(jobs[shard], task, made)
    return [job for job in found if job.kinds]

  made = request.read_record()
  statuses = {}  # The latest of each: a file that changes is done again.

  def show(entry):
    made.add(entry.made)  # So that a later change of the photo is noticed.
    statuses[entry.photo] = entry.status
    said = ''.join(f': {text}' for text in (entry.remark, entry.error) if text)
    print(f'{entry.status.capitalize()}: {entry.photo}{said}', flush=True)

  remover = request.load(batch_size=request.batch_size)
  with session.Session(request, remover) as work:
    print(f'Watching {folder} (Ctrl-C ends it)', flush=True)
    watching.watch(
      folder,
      list_jobs=list_jobs,
      do=lambda jobs, put_back: work.do(jobs, show=show, put_back=put_back),
      stop=work.stop,
    )
  failed = sum(status == 'failed' for status in statuses.values())
  print(f'{len(statuses) - failed} done, {failed} failed.')
  if work.outcome.trouble:
    print(f'Stopped: {work.outcome.trouble}.')
  return bool(failed or work.outcome.trouble)


def _list_frames(source: str) -> list[listing.Job]:
  """Returns a folder of frames as one clip."""
  folder = Path(source)
  if not folder.is_dir():
    raise errors.UserError(
      f'--input={source}: --frames takes a folder of numbered frames.'
    )
  clip_names.check_support()
  # For its errors: better now than after the network is loaded.
  clip_names.find_frames(folder)
  name = Path(folder.resolve().name or 'frames')  # `.` has no name of its own.
  return [listing.Job(photo=folder, result=name, is_clip=True)]
