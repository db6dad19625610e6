"""Runs a prediction on a cluster, or a step of somebody's Ray Data pipeline."""

import contextlib
import dataclasses
import json
import logging
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import ray
import ray.exceptions

from data_pipelines.io import errors, parallel, storage
from data_pipelines.io.types import JsonObject
from rmbg_jax.batch import listing, pipeline, report
from rmbg_jax.batch.ray import manifest, worker
from rmbg_jax.weights import load

_NODE_ID = 'ray.io/node-id'  # Ray's label for a machine.
_INIT_DEATHS = 3  # Actors that may die in a row while they load the network.
# Bytes in Ray's object store beside the network: names and the report.
_OBJECT_STORE_BYTES = 200_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
  """Places and numbers of the processes that predict.

  Attributes:
    address: Address of a running cluster ('auto', 'HOST:PORT'), or '' to start
      one on this machine for this run.
    actors: (fewest, most) processes with a network, None for as many as there
      is room for at the start.
    cpus: CPUs per actor; None for as many as leave room for one actor on each
      machine, or on each GPU.
    gpus: GPUs per actor; None for 1 where there are any.
  """

  address: str = ''
  actors: tuple[int, int] | None = None
  cpus: int | float | None = None
  gpus: int | float | None = None


def run(
  jobs: Iterable[listing.Job],
  task: pipeline.Task,
  loaded: load.LoadedModel,
  options: JsonObject,
  *,
  batch_size: int,
  cluster: Cluster,
) -> report.Tally:
  """Does photos on a cluster.

  Each job must have its missing kinds; a thread takes jobs as they are needed.
  The output must be a URL, or on a disk that all machines have. The network is
  read on this machine.

  Raises:
    UserError: if the photos cannot be listed, or the cluster gives up.
  """
  name = report.name_run()
  with manifest.Lister(jobs, task.output, name) as lister:
    # Without work, no cluster is started or reached.
    if not lister.wait_for_work():
      return lister.finish(report.Tally())
    tally, parts = report.Tally(), report.PartedReport(task.output, name)
    with _connected(cluster, loaded), contextlib.closing(parts):
      dataset = cut_out(
        _read_manifest(task.output, name),
        task,
        loaded,
        options,
        batch_size=batch_size,
        cluster=cluster,
        rows_per_task=1,  # A row of the manifest is a task of many photos.
        run_name=name,
      )
      try:
        # Lines are short, so all of them may pass through this process.
        for row in dataset.iter_rows():
          for line in row['line']:
            entry = report.Entry(**json.loads(line))
            tally.add(entry)
            parts.add(entry)
      except ray.exceptions.RayError as error:
        text = str(error).strip() or type(error).__name__
        raise errors.UserError(
          f'The cluster gave up: {text.splitlines()[-1]}. All machines need '
          'this project, the packages of its extras, and what the flags name '
          'by path. The same command goes on.'
        ) from error
    return lister.finish(tally)


def cut_out(
  dataset: ray.data.Dataset,
  task: pipeline.Task,
  loaded: load.LoadedModel,
  options: JsonObject,
  *,
  batch_size: int = 4,
  cluster: Cluster | None = None,
  rows_per_task: int = manifest.LARGEST_TASK,
  run_name: str = '',
) -> ray.data.Dataset:
  """Returns a Ray Data set of the results of the photos of another.

  For a pipeline of one's own: what is returned must be consumed (written, or
  iterated over) for photos to be done. Results that are there are left alone,
  after a request for each.

  Args:
    dataset: Rows with `photo` (a path that all machines have, or a URL) and
      `result` (where its results go below the folder of their kind, without an
      ending: 'sub/a'), each a text, or a list of texts for a task of several.
    task: Work to do on the photos.
    loaded: The network, as `load_model` returns it.
    options: Options of `BackgroundRemover`, except batch size and pixels.
    batch_size: Photos in the network together.
    cluster: Actors and what each gets; its address is not used.
    rows_per_task: Rows of the data set in one call of an actor.
    run_name: Name of the run whose tries are counted; '' for a new one.

  Returns:
    Rows with `photo`, `status` ('done', 'skipped', 'failed') and `line`, the
    report's line in JSON; lists of them for a row of lists.
  """
  cluster = cluster or Cluster()
  pool, resources = _choose_pool(cluster)
  dataset.context.max_consecutive_actor_init_deaths = _INIT_DEATHS
  return dataset.map_batches(
    worker.Worker,
    batch_size=rows_per_task,
    batch_format='pyarrow',
    compute=pool,
    fn_constructor_kwargs={
      # Once in Ray's store, from where each machine fetches it once.
      'loaded': ray.put(loaded.pack()),
      'task': task,
      'options': options,
      'batch_size': batch_size,
      'run_name': run_name or report.name_run(),
    },
    # Ray repeats tasks and actors that die for ever, by default; what bounds
    # that are the tries that `Worker` notes.
    **resources,
  )


def _read_manifest(output: storage.Place, run_name: str) -> ray.data.Dataset:
  context = ray.data.DataContext.get_current()
  logging.getLogger('ray.data').setLevel(logging.WARNING)
  context.print_on_execution_start = False
  context.enable_progress_bars = sys.stderr.isatty()
  # A row, which is a task, is a block: actors get one at a time.
  context.target_max_block_size = 1
  # One task yields all rows: they are done while it waits for more.
  return ray.data.from_items([run_name]).map_batches(
    lambda _: manifest.follow(output, run_name),
    # It mostly waits, and should take no actor's CPU.
    num_cpus=0,
    # Beside the driver: that is the machine that will not be taken away.
    label_selector={_NODE_ID: ray.get_runtime_context().get_node_id()},
  )


@contextlib.contextmanager
def _connected(cluster: Cluster, loaded: load.LoadedModel) -> Iterator[None]:
  """Connects to a cluster, or starts one, until the end of the block."""
  if cluster.address.startswith('ray://'):
    raise errors.UserError(
      f'--address={cluster.address}: Ray Data does not run through a Ray '
      'client. Start the command on the cluster: ray job submit '
      f'--address=http://HOST:8265 -- python -m rmbg_jax.predict --engine=ray '
      '--address=auto ... (docs/scaling.md).'
    )
  options: dict[str, Any] = {'logging_level': 'WARNING', 'log_to_driver': False}
  if not cluster.address:
    # Otherwise Ray reports the start to its makers.
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
    network = loaded.count_bytes()
    options |= {
      'num_cpus': parallel.count_cores(),
      'include_dashboard': False,
      'object_store_memory': _OBJECT_STORE_BYTES + 2 * network,
    }
  try:
    host, _, port = cluster.address.rpartition(':')
    if port.isdecimal():  # Ray would try for many minutes.
      socket.create_connection((host, int(port)), timeout=10).close()
    # 'local': without an address, Ray joins a cluster that it finds here.
    ray.init(address=cluster.address or 'local', **options)
  except (OSError, ValueError, RuntimeError) as error:
    raise errors.UserError(
      f'--address={cluster.address}: no Ray cluster can be reached there '
      f'({error}). Pass auto on a machine of the cluster, or leave it out to '
      'start one here.'
    ) from error
  try:
    yield
  finally:
    ray.shutdown()


def _choose_pool(
  cluster: Cluster,
) -> tuple[ray.data.ActorPoolStrategy, dict[str, Any]]:
  """Returns the pool of actors and what each one needs."""
  machines = [
    (found.get('CPU', 0), found.get('GPU', 0))
    for found in (node['Resources'] for node in ray.nodes() if node['Alive'])
  ]
  # A GPU can be shared: `gpus` may be a part of one.
  gpus = cluster.gpus
  if gpus is None:
    gpus = 1 if any(machine[1] for machine in machines) else 0
  fit = [
    # As many actors as its GPUs are enough for.
    (machine, machine[1] // gpus if gpus else 1)
    for machine in machines
    if machine[0] and machine[1] >= gpus
  ]
  cpus = cluster.cpus
  if cpus is None:  # All actors get the same, so the smallest share counts.
    cpus = min((max(1, machine[0] // on) for machine, on in fit), default=1)
  # 10**6 is no bound: without GPUs, only the CPUs set one.
  room = sum(
    int(min(machine[0] // cpus if cpus else on, on if gpus else 10**6))
    for machine, on in fit
  )
  fewest, most = cluster.actors or (room, room)
  if not room and not cluster.actors:
    raise errors.UserError(
      f'--cpus_per_actor={cpus:g} --gpus_per_actor={gpus:g}: no machine of the '
      f'cluster has that (CPUs, GPUs: {machines}). Pass less, or --actors=1:N '
      'to wait for machines that are started.'
    )
  pool = ray.data.ActorPoolStrategy(
    min_size=fewest,
    max_size=most,
    max_concurrent_calls_per_actor=worker.CALLS_PER_ACTOR,
    # Otherwise Ray runs the calls of an actor one after the other.
    enable_true_multi_threading=True,
  )
  return pool, {'num_cpus': cpus, 'num_gpus': gpus}
