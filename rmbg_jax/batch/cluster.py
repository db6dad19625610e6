"""Predicts on a Ray cluster: the one file that knows Ray.

The driver lists photos and writes their names, in tasks of some dozens, into
parts of a manifest at the output. One Ray task reads parts as they appear, a
pool of actors does what is in them by `pipeline.run`, as one machine would,
and what became of the photos is the rows that Ray writes as the report.

A task whose process dies is done again, wherever there is room. It notes that
it begins, so the next try knows that there was one, and then does photos one by
one, noting each: who kills its process time and again is given up, by name.
"""

import collections
import contextlib
import dataclasses
import io
import itertools
import json
import logging
import os
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.exceptions
from PIL import Image
from ray.data import block as block_lib
from ray.data import datasource

from data_pipelines.io import errors, parallel, storage
from data_pipelines.io.types import JsonObject
from rmbg_jax.batch import listing, pipeline, record, report
from rmbg_jax.inference import remover as remover_lib
from rmbg_jax.inference import runtimes
from rmbg_jax.weights import load

# Below the report, until the run is over: what there is to do, what was begun.
_MANIFEST, _TRIES = 'manifest', 'tries'
# Photos of a task: few at first, so that all actors have some.
_SMALLEST_TASK, _LARGEST_TASK, _TASKS_AT_FIRST = 8, 64, 16
_LARGEST_PART = 256  # Tasks.
_NODE_ID = 'ray.io/node-id'  # Ray's label for a machine.
_LAST = b'last'  # Marks the manifest's end, in the metadata of a part.
_POLL = (0.1, 2.0)  # Seconds, the shortest and the longest.
# One call's first photos are read while another's last ones are written.
_CALLS_PER_ACTOR = 2
# Deaths of its process that a photo may have been at, alone.
_LONE_TRIES = 2
_INIT_DEATHS = 3  # In a row, of actors that load the network.
_LINES_PER_PART = 10_000
# What Ray's object store holds beside the network: names and the report.
_OBJECT_STORE_BYTES = 200_000_000

_SCHEMA = pa.schema(
  [
    (name, pa.list_(pa.string()))
    for name in ('photo', 'result', 'kinds', 'stamp', 'remark')
  ]
)


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

  Args:
    jobs: Photos with their missing kinds (`stored.find_missing`), taken as
      needed, in a thread.
    task: Work to do on them; its output is a URL, or on a disk that all
      machines have.
    loaded: The network, which need not be on the other machines.
    options: Options of the remover.
    batch_size: Photos in the network together.
    cluster: Cluster to run on.

  Raises:
    UserError: if the photos cannot be listed, or the cluster gives up.
  """
  name = report.name_run()
  lister = _Lister(jobs, task.output, name)
  with lister:
    if not lister.wait_for_work():
      return lister.finish(report.Tally())
    with _connected(cluster, loaded):
      try:
        dataset = _read_manifest(task.output, name)
        dataset = cut_out(
          dataset,
          task,
          loaded,
          options,
          batch_size=batch_size,
          cluster=cluster,
          rows_per_task=1,
          run_name=name,
        )
        sink = _ReportSink(task.output, name)
        dataset.write_datasink(sink, ray_remote_args={'num_cpus': 0})
      except ray.exceptions.RayError as error:
        raise _give_up(error) from error
    return lister.finish(sink.tally)


def cut_out(
  dataset: ray.data.Dataset,
  task: pipeline.Task,
  loaded: load.LoadedModel,
  options: JsonObject,
  *,
  batch_size: int = 4,
  cluster: Cluster | None = None,
  rows_per_task: int = _LARGEST_TASK,
  run_name: str = '',
) -> ray.data.Dataset:
  """Returns a Ray Data set of what becomes of the photos of another.

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
    Worker,
    batch_size=rows_per_task,
    batch_format='pyarrow',
    compute=pool,
    fn_constructor_kwargs={
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
    warnings.simplefilter('ignore', Image.DecompressionBombWarning)
    Image.MAX_IMAGE_PIXELS = None  # Photos are held against `max_pixels`.
    self._task = task
    self._tries = task.output / report.FOLDER / f'{_TRIES}-{run_name}'
    self._remover = remover_lib.BackgroundRemover(
      ray.get(loaded),
      batch_size=batch_size,
      max_pixels=task.max_pixels,
      **options,
    )
    # All calls at once, or one alone that does what may kill the process.
    self._places = threading.Semaphore(_CALLS_PER_ACTOR)
    self._taking_all = threading.Lock()

  def __call__(self, table: pa.Table) -> pa.Table:
    """Does a task; see `cut_out` for what comes in and out."""
    jobs = [
      _make_job(*values)
      for values in zip(
        *(_read_column(table, name) for name in _SCHEMA.names), strict=True
      )
    ]
    entries = {}
    try:
      self._do(jobs, entries)
    # Whatever it is, the tasks of others go on, and the photos are named.
    except Exception as error:
      for job in jobs:
        entries.setdefault(
          str(job.photo),
          report.Entry(
            photo=str(job.photo),
            status='failed',
            error=pipeline.describe(error),
          ),
        )
    found = [entries[str(job.photo)] for job in jobs]
    columns = {
      'photo': [entry.photo for entry in found],
      'status': [entry.status for entry in found],
      'line': [report.to_line(entry) for entry in found],
    }
    if pa.types.is_list(table.schema.field('photo').type):
      columns = {name: [values] for name, values in columns.items()}
    return pa.table(columns)

  def _do(
    self, jobs: Sequence[listing.Job], entries: dict[str, report.Entry]
  ) -> None:
    tries = self._tries / _name_task(jobs)
    before = list(storage.list_names(tries))
    if before:
      with self._alone():
        self._do_again(jobs, entries, tries, before)
      return
    with self._places:
      todo = [job for job in jobs if self._task.missing(job)]
      storage.write(
        tries / 'all', json.dumps([str(job.photo) for job in todo]).encode()
      )
      self._run(todo, entries)
      for job in jobs:
        entries.setdefault(
          str(job.photo), report.Entry(photo=str(job.photo), status='skipped')
        )

  def _do_again(
    self,
    jobs: Sequence[listing.Job],
    entries: dict[str, report.Entry],
    tries: storage.Place,
    before: Sequence[str],
  ) -> None:
    """Does one by one what is left of a task whose process died."""
    todo = set()
    if 'all' in before:
      todo = set(json.loads(storage.read(tries / 'all')))
    lone = collections.Counter(name.partition('-')[0] for name in before)
    for index, job in enumerate(jobs):
      # Of these, what is there may have been there before the first try.
      is_anew = self._task.overwrite or job.remark == record.CHANGED
      if not is_anew:  # What the listing knew was before the first try.
        job = dataclasses.replace(job, kinds=None)
      name = str(job.photo)
      if f'{index}-ended' in before:
        line = json.loads(storage.read(tries / f'{index}-ended'))
        entries[name] = report.Entry(**line)
      elif name not in todo:
        entries[name] = report.Entry(photo=name, status='skipped')
      elif not is_anew and not self._task.missing(job):
        entries[name] = report.Entry(
          photo=name,
          status='done',
          notes=('by a process that died afterwards',),
        )
      elif lone[str(index)] >= _LONE_TRIES:
        entries[name] = report.Entry(
          photo=name,
          status='failed',
          error=f'its process died at it {_LONE_TRIES + 1} times (too little '
          'memory?). Do it on a machine with more, or leave it out.',
        )
      else:
        storage.write(tries / f'{index}-{lone[str(index)]}', b'')
        self._run([job], entries)
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
      runs_at_once=_CALLS_PER_ACTOR,
    )

  @contextlib.contextmanager
  def _alone(self) -> Iterator[None]:
    with self._taking_all:
      for _ in range(_CALLS_PER_ACTOR):
        self._places.acquire()
    try:
      yield
    finally:
      self._places.release(_CALLS_PER_ACTOR)


class _Lister:
  """Writes the manifest in a thread, and the report of what needs no work.

  A context: what it wrote into the manifest is removed at the end.
  """

  def __init__(
    self, jobs: Iterable[listing.Job], output: storage.Place, run_name: str
  ):
    self._jobs = jobs
    self._output = output
    self._run_name = run_name
    self._tally = report.Tally()
    self._error: Exception | None = None
    self._stop = threading.Event()
    self._has_work = False
    self._first = threading.Event()  # There is work, or there will be none.
    self._thread = threading.Thread(target=self._list, daemon=True)

  def __enter__(self) -> '_Lister':
    self._thread.start()
    return self

  def __exit__(self, *exc_info):
    self._stop.set()
    self._thread.join()
    folder = self._output / report.FOLDER
    with contextlib.suppress(errors.UserError):  # It is in nobody's way.
      for name in (_MANIFEST, _TRIES):
        storage.remove(folder / f'{name}-{self._run_name}')

  def wait_for_work(self) -> bool:
    """Waits for the first task; returns whether there is any."""
    self._first.wait()
    return self._has_work

  def finish(self, tally: report.Tally) -> report.Tally:
    """Returns what became of all photos, those that needed no work too.

    Raises:
      Exception: that ended the listing before its end.
    """
    self._thread.join()
    if self._error:
      raise self._error
    self._tally.merge(tally)
    return self._tally

  def _list(self) -> None:
    skipped = report.PartedReport(self._output, f'{self._run_name}-before')
    try:
      self._write_manifest(self._choose(skipped))
    except Exception as error:  # The main thread's to raise.
      self._error = error
    finally:
      try:
        skipped.close()
      except (errors.UserError, OSError) as error:
        self._error = self._error or error
      self._first.set()

  def _choose(self, skipped: report.PartedReport) -> Iterator[listing.Job]:
    """Yields what there is to do, and reports the rest."""
    for job in self._jobs:
      if self._stop.is_set():
        return
      wrong = job.error or _find_fault(str(job.photo))
      if job.kinds and not wrong:
        yield job
        continue
      entry = report.Entry(
        photo=str(job.photo),
        status='failed' if wrong else 'skipped',
        error=wrong,
        remark=job.remark,
      )
      self._tally.add(entry)
      skipped.add(entry)

  def _write_manifest(self, jobs: Iterator[listing.Job]) -> None:
    tasks, written, parts = [], 0, 0
    error = None
    try:
      while batch := list(itertools.islice(jobs, _choose_size(written))):
        tasks.append(batch)
        written += len(batch)
        # Parts grow as well: the first ones are wanted at once.
        if len(tasks) >= min(_LARGEST_PART, 2**parts):
          self._write_part(parts, tasks, is_last=False)
          tasks, parts = [], parts + 1
    except Exception as raised:  # What is listed is done all the same.
      error = raised
    self._write_part(parts, tasks, is_last=True)
    if error:
      raise error

  def _write_part(
    self, number: int, tasks: Sequence[Sequence[listing.Job]], *, is_last: bool
  ) -> None:
    columns = {
      'photo': [[str(job.photo) for job in jobs] for jobs in tasks],
      'result': [[job.result.as_posix() for job in jobs] for jobs in tasks],
      'kinds': [[','.join(job.kinds or ()) for job in jobs] for jobs in tasks],
      'stamp': [
        [job.state.stamp if job.state else '' for job in jobs] for jobs in tasks
      ],
      'remark': [[job.remark for job in jobs] for jobs in tasks],
    }
    schema = _SCHEMA.with_metadata({_LAST: b'1'} if is_last else None)
    file = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), file)
    storage.write(
      _name_part(self._output, self._run_name, number), file.getvalue()
    )
    if tasks:
      self._has_work = True
      self._first.set()


class _Manifest(datasource.Datasource):
  """Reads the parts of a manifest, those too that are not written yet."""

  def __init__(self, output: storage.Place, run_name: str):
    super().__init__()
    self._output = output
    self._run_name = run_name

  def estimate_inmemory_data_size(self) -> int | None:
    """Returns nothing: nobody knows."""
    return None

  def get_read_tasks(
    self, parallelism: int, *args: object, **kwargs: object
  ) -> list[Any]:  # Of `ReadTask`, whose hints beartype warns of.
    """Returns the one task that follows the manifest."""
    output, run_name = self._output, self._run_name
    metadata = block_lib.BlockMetadata(
      num_rows=None, size_bytes=None, input_files=None, exec_stats=None
    )
    return [
      datasource.ReadTask(lambda: _follow_manifest(output, run_name), metadata)
    ]


def _follow_manifest(
  output: storage.Place, run_name: str
) -> Iterator[pa.Table]:
  """Yields the tasks of a manifest, each a row; the same ones every time."""
  for number in itertools.count():
    content = _wait_for(_name_part(output, run_name, number))
    table = pq.read_table(io.BytesIO(content))
    is_last = _LAST in (table.schema.metadata or {})
    table = table.replace_schema_metadata(None)
    for start in range(len(table)):
      yield table.slice(start, 1)
    if is_last:
      return


def _wait_for(place: storage.Place) -> bytes:
  seconds, longest = _POLL
  while True:
    try:
      return storage.read(place)
    except FileNotFoundError:
      time.sleep(seconds)
      seconds = min(2 * seconds, longest)


class _ReportSink(datasource.Datasink):
  """Writes rows of `Worker` as parts of the report, and counts them.

  Attributes:
    tally: Numbers of photos by outcome, once all are written.
  """

  def __init__(self, output: storage.Place, run_name: str):
    self._output = output
    self._run_name = run_name
    self.tally = report.Tally()

  @property
  def min_rows_per_write(self) -> int:
    """Tasks in one part."""
    return _LINES_PER_PART // _LARGEST_TASK

  def write(
    self,
    blocks: Iterable[pa.Table],
    ctx: Any,  # Of a class that Ray keeps to itself.
  ) -> report.Tally:
    """Writes a part; a task that is tried again writes the same one."""
    lines = [
      line or '' for table in blocks for line in _read_column(table, 'line')
    ]
    tally = report.Tally()
    for line in lines:
      tally.add(report.Entry(**json.loads(line)))
    report.write_part(
      self._output, f'{self._run_name}-{ctx.task_idx:06}', lines
    )
    return tally

  def on_write_complete(
    self,
    write_result: Any,  # As `ctx`.
  ) -> None:
    """Adds up what the parts say."""
    for tally in write_result.write_returns:
      self.tally.merge(tally)


def _read_manifest(output: storage.Place, run_name: str) -> ray.data.Dataset:
  context = ray.data.DataContext.get_current()
  logging.getLogger('ray.data').setLevel(logging.WARNING)
  context.print_on_execution_start = False
  context.enable_progress_bars = sys.stderr.isatty()
  # A row, which is a task, is a block: actors get one at a time.
  context.target_max_block_size = 1
  return ray.data.read_datasource(
    _Manifest(output, run_name),
    override_num_blocks=1,
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
  """Returns the pool of actors and what each one needs.

  Raises:
    UserError: if no machine has that.
  """
  machines = [
    (found.get('CPU', 0), found.get('GPU', 0))
    for found in (node['Resources'] for node in ray.nodes() if node['Alive'])
  ]
  gpus = cluster.gpus
  if gpus is None:
    gpus = 1 if any(machine[1] for machine in machines) else 0
  fit = [
    (machine, machine[1] // gpus if gpus else 1)
    for machine in machines
    if machine[0] and machine[1] >= gpus
  ]
  cpus = cluster.cpus
  if cpus is None:  # Each machine's shared by its actors.
    cpus = min((max(1, machine[0] // on) for machine, on in fit), default=1)
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
    max_concurrent_calls_per_actor=_CALLS_PER_ACTOR,
    enable_true_multi_threading=True,
  )
  return pool, {'num_cpus': cpus, 'num_gpus': gpus}


def _find_fault(name: str) -> str:
  """Returns why Ray cannot be told a name; '' if it can."""
  try:
    name.encode()
  except UnicodeEncodeError:
    return 'its name is not UTF-8. Rename it, or leave out --engine.'
  return ''


def _choose_size(written: int) -> int:
  """Returns how many photos the next task gets."""
  size = written // _TASKS_AT_FIRST
  return max(_SMALLEST_TASK, min(_LARGEST_TASK, size))


def _name_part(
  output: storage.Place, run_name: str, number: int
) -> storage.Place:
  folder = output / report.FOLDER / f'{_MANIFEST}-{run_name}'
  return folder / f'{number:06}.parquet'


def _name_task(jobs: Sequence[listing.Job]) -> str:
  """Returns a name that a task has on every try, and no other task has."""
  return report.digest('\n'.join(str(job.photo) for job in jobs)).hex()


def _make_job(
  photo: str,
  result: str,
  kinds: str | None,
  stamp: str | None,
  remark: str | None,
) -> listing.Job:
  return listing.Job(
    photo=storage.parse(photo),
    result=Path(result),
    kinds=tuple(kinds.split(',')) if kinds else None,
    state=storage.State(0, 0, stamp) if stamp else None,
    remark=remark or '',
  )


def _read_column(table: pa.Table, name: str) -> list[str | None]:
  """Returns a column's texts; those of lists one after the other."""
  if name not in table.column_names:
    return [None] * len(_read_column(table, 'photo'))
  column = table.column(name).combine_chunks()
  if pa.types.is_list(column.type):
    column = column.flatten()
  return column.to_pylist()


def _give_up(error: Exception) -> errors.UserError:
  lines = [line for line in str(error).splitlines() if line.strip()]
  return errors.UserError(
    f'The cluster gave up: {lines[-1] if lines else type(error).__name__}. All '
    'machines need this project, the packages of its extras, and what the '
    'flags name by path. The same command goes on.'
  )
