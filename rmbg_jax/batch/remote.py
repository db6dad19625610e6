"""Does photos by URL, or on a cluster, and names them as they are listed."""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tqdm

from data_pipelines.io import errors, storage, words
from rmbg_jax.batch import listing, session, stored, summary
from rmbg_jax.weights import load


def run(
  source: str,
  request: session.Request,
  *,
  cluster: Mapping[str, Any] | None = None,  # Any: see `Cluster`.
) -> bool:
  """Does all photos of a path or a URL; returns whether any failed.

  With attributes of `cluster.Cluster`, on a cluster, else in this process.

  Raises:
    SystemExit: if it was interrupted.
    UserError: if there is nothing to do, or no place for the results.
  """
  task = request.task
  if cluster is not None:
    try:
      from rmbg_jax.batch.ray import cluster as cluster_lib
    except ImportError as error:
      raise errors.UserError(
        f'--engine=ray needs Ray Data ({errors.install_command("cluster")}): '
        f'{error}'
      ) from error
  shard = listing.parse_shard(request.shard)
  if storage.is_url(source):
    stored.check_source(source, task)
  counts = stored.Counts()
  # Before the first file is written: a refused run leaves nothing behind.
  jobs = _list_jobs(source, request, shard, counts)
  jobs = itertools.chain(list(itertools.islice(jobs, 1)), jobs)
  loaded = load.load_model(request.checkpoint)
  stored.begin(task, loaded.compute_digest(), request.options)
  if cluster is not None:
    outcome = cluster_lib.run(
      jobs,
      task,
      loaded,
      request.options,
      batch_size=request.batch_size,
      cluster=cluster_lib.Cluster(**cluster),
    )
  else:
    remover = request.load(batch_size=request.batch_size)
    work = session.Session(request, remover)
    with work, tqdm.tqdm(unit='file') as progress:
      work.do(jobs, show=lambda _: progress.update())
    outcome = work.outcome
  summary.print_counts(outcome, words.count(counts.photos, 'photo'), task)
  summary.print_others(counts.others)
  if outcome.interrupted:
    print(summary.describe_stop(overwrite=task.overwrite))
    raise SystemExit(summary.INTERRUPTED)
  if outcome.trouble:
    print(f'Stopped: {outcome.trouble}. The same command goes on.')
  return bool(outcome.counts['failed'] or outcome.trouble)


def _list_jobs(
  source: str, request: session.Request, shard: slice, counts: stored.Counts
) -> Iterator[listing.Job]:
  """Returns photos, by URL or by path, with the missing kinds of each."""
  task = request.task
  if storage.is_url(source):
    jobs = stored.list_jobs(source, counts)
  else:
    jobs = listing.list_jobs(source)
    if isinstance(task.output, Path):
      task.check_output()
      task.check_photos([job.photo for job in jobs])
    photos_alone = [job for job in jobs if not job.is_clip]
    counts.others['clips, which paths and --engine=local are for'] = len(
      jobs
    ) - len(photos_alone)
    counts.photos = len(photos_alone)
    # `find_missing` walks through the results in this order.
    jobs = iter(sorted(photos_alone, key=stored.listing_order))
  return stored.find_missing(
    # Shards are cut before results are compared, so that machines agree.
    itertools.islice(jobs, shard.start, None, shard.step),
    task,
    request.read_record(),
  )
