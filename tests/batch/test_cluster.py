"""Drills on a Ray cluster of two nodes on this machine.

Nodes share its cores: what they have is declared. The command runs in a process
of its own, as users start it, and so do Ray's workers.
"""

import contextlib
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from data_pipelines.io import files, storage
from tests.support import helpers

pytest.importorskip('s3fs')
pytest.importorskip('moto')
ray = pytest.importorskip('ray')
pytest.importorskip('ray.data')

import pyarrow as pa  # noqa: E402
from ray import cluster_utils  # noqa: E402

from rmbg_jax.batch import pipeline  # noqa: E402
from rmbg_jax.batch.ray import cluster as cluster_lib  # noqa: E402
from rmbg_jax.batch.ray import worker  # noqa: E402
from rmbg_jax.inference import rendering  # noqa: E402
from rmbg_jax.weights import load  # noqa: E402
from tests.support import clip_files, object_store  # noqa: E402

COUNT = 200
NODE = {'num_cpus': 1, 'object_store_memory': 80 * 2**20}
PATIENCE = 600  # Seconds for what takes a few on a machine that is not busy.


@pytest.fixture(scope='module')
def store():
  with object_store.serving_store() as store:
    yield store


@pytest.fixture(scope='module')
def cluster(store):
  with pytest.MonkeyPatch.context() as patch:
    # Workers have the environment of the node that starts them.
    for name, value in object_store.environment(store).items():
      patch.setenv(name, value)
    patch.setenv('RAY_AUTH_MODE', 'disabled')
    patch.setenv('RAY_USAGE_STATS_ENABLED', '0')
    cluster = cluster_utils.Cluster(
      initialize_head=True,
      head_node_args={**NODE, 'include_dashboard': False},
    )
    try:
      yield cluster
    finally:
      cluster.shutdown()


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  folder = tmp_path_factory.mktemp('cluster')
  helpers.save_random_release(folder / 'random.safetensors')
  (folder / 'photos/sub').mkdir(parents=True)
  for index in range(COUNT):
    parent = 'photos/sub' if index % 2 else 'photos'
    helpers.make_photo((40, 24), seed=index).save(
      folder / parent / f'{index:03}.jpg'
    )
  process = start(folder, folder / 'expected')
  assert process.wait(PATIENCE) == 0, process.stdout.read()
  process.stdout.close()
  return folder


def start(photos, output, *flags, source=None):
  return subprocess.Popen(
    [
      *(sys.executable, '-m', 'rmbg_jax.predict', f'--output={output}'),
      f'--input={source or photos / "photos"}',
      f'--checkpoint={photos / "random.safetensors"}',
      *flags,
    ],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    start_new_session=True,  # For a Ctrl-C that this process does not get.
  )


def finish(process):
  """Returns what it printed, once it has ended."""
  try:
    text, _ = process.communicate(timeout=PATIENCE)
  finally:
    with contextlib.suppress(ProcessLookupError):
      process.kill()
  return text


def read_results(place):
  """The pixels of every result, by kind and name.

  Not its bytes, which have differed where pixels did not.
  """
  return {
    name: Image.open(io.BytesIO(storage.read(place / name))).tobytes()
    for name in storage.list_names(place)
    if not name.startswith('report')
  }


def read_report(output):
  parts = sorted((output / 'report').glob('*.jsonl'))
  lines = ''.join(part.read_text() for part in parts).splitlines()
  return [json.loads(line) for line in lines]


def wait_for(is_there, process):
  end = time.monotonic() + PATIENCE
  while not is_there():
    assert process.poll() is None, process.stdout.read()
    assert time.monotonic() < end, 'nothing happens'
    time.sleep(0.05)


def count_masks(output):
  return len(list((output / 'mask').rglob('[0-9]*.png')))


def find_actors(store):
  """The processes of this cluster's actors."""
  found = []
  for folder in Path('/proc').glob('[0-9]*'):
    with contextlib.suppress(OSError):
      line = (folder / 'cmdline').read_bytes()
      environment = (folder / 'environ').read_bytes()
      if (
        line.startswith(b'ray::MapWorker') and store.url.encode() in environment
      ):
        found.append(int(folder.name))
  return found


def test_a_killed_actor_and_a_lost_node_cost_nothing(
  cluster, store, photos, tmp_path
):
  node = cluster.add_node(**NODE)
  process = start(
    photos, tmp_path / 'out', '--engine=ray', f'--address={cluster.address}'
  )
  try:
    wait_for(lambda: count_masks(tmp_path / 'out') >= 20, process)
    os.kill(find_actors(store)[0], signal.SIGKILL)
    done = count_masks(tmp_path / 'out')
    wait_for(lambda: count_masks(tmp_path / 'out') >= done + 20, process)
    assert count_masks(tmp_path / 'out') < COUNT
  finally:
    cluster.remove_node(node, allow_graceful=False)
  text = finish(process)
  assert process.returncode == 0, text
  assert f'{COUNT} of {COUNT} photos done: ' in text
  assert read_results(tmp_path / 'out') == read_results(photos / 'expected')
  lines = read_report(tmp_path / 'out')
  assert len({line['photo'] for line in lines}) == len(lines) == COUNT
  assert {line['status'] for line in lines} == {'done'}
  # Nothing is left of what the run was told by.
  assert not list((tmp_path / 'out/report').glob('*-*/*'))


def test_who_kills_its_process_is_given_up_by_name(cluster, store, photos):
  names = [f'{index:03}.jpg' for index in range(0, 40, 2)]
  for name in names:
    store.put(f'photos/{name}', (photos / 'photos' / name).read_bytes())
  store.put('photos/001.jpg', b'no photo')  # In the task of the next one.
  store.put('photos/013.jpg', b'')
  killed = []

  def kill(port):
    killed.append(object_store.find_client(port))
    os.kill(killed[-1], signal.SIGKILL)

  store.faults.append(
    object_store.Fault(None, ('GET',), 'photos/013.jpg', on_meeting=kill)
  )
  bucket = f's3://{object_store.BUCKET}'
  flags = ('--engine=ray', f'--address={cluster.address}')
  process = start(photos, f'{bucket}/out', *flags, source=f'{bucket}/photos')
  text = finish(process)
  assert process.returncode == 1, text
  assert '20 of 22 photos done' in text
  assert f'Failed: {bucket}/photos/001.jpg: cannot be read as' in text
  assert f'Failed: {bucket}/photos/013.jpg: its process died at it 3' in text
  assert len(set(killed)) == 3
  expected = read_results(photos / 'expected')
  found = read_results(storage.parse(f'{bucket}/out'))
  assert len(found) == 40
  assert all(expected[name] == content for name, content in found.items())
  # What is skipped costs no request of its own, and no cluster.
  store.faults.clear()
  for name in ('001.jpg', '013.jpg'):
    store.put(f'photos/{name}', (photos / 'photos/sub' / name).read_bytes())
  store.put('photos/002.jpg', (photos / 'photos/004.jpg').read_bytes())
  store.requests.clear()
  process = start(photos, f'{bucket}/out', *flags, source=f'{bucket}/photos')
  text = finish(process)
  assert process.returncode == 0, text
  assert '22 of 22 photos done (19 of them before)' in text
  assert '1 of them made again: the photo has changed' in text
  found = read_results(storage.parse(f'{bucket}/out'))
  assert found['mask/002.png'] == found['mask/004.png']
  assert not [path for _, path in store.requests if 'photos/000' in path]


def test_it_can_be_interrupted_and_goes_on(photos, tmp_path, cluster):
  flags = ('--engine=ray', '--actors=1', '--cpus_per_actor=1', '--save=mask')
  process = start(photos, tmp_path / 'out', *flags)
  wait_for(lambda: count_masks(tmp_path / 'out') >= 10, process)
  os.killpg(process.pid, signal.SIGINT)
  text = finish(process)
  assert process.returncode == 130, text
  assert 'Interrupted. The same command goes on' in text
  assert 'Traceback' not in text
  before = read_results(tmp_path / 'out')
  assert 10 <= len(before) < COUNT
  process = start(
    photos, tmp_path / 'out', *flags, f'--address={cluster.address}'
  )
  text = finish(process)
  assert process.returncode == 0, text
  assert f'({len(before)} of them before)' in text
  expected = read_results(photos / 'expected')
  assert read_results(tmp_path / 'out') == {
    name: content
    for name, content in expected.items()
    if name.startswith('mask')
  }


@pytest.fixture
def connected(cluster):
  ray.init(address=cluster.address, log_to_driver=False)
  yield
  ray.shutdown()


def test_a_data_set_of_ones_own(connected, photos, tmp_path):
  paths = sorted((photos / 'photos').glob('*.jpg'))[:10]
  (tmp_path / 'out/mask').mkdir(parents=True)
  (tmp_path / 'out/mask/000.png').write_bytes(b'before')
  rows = [{'photo': str(path), 'result': path.stem} for path in paths]
  rows.append({'photo': str(tmp_path / 'none.jpg'), 'result': 'none'})
  task = pipeline.Task(
    output=tmp_path / 'out', kinds=('mask',), style=rendering.Style()
  )
  answers = cluster_lib.cut_out(
    ray.data.from_items(rows),
    task,
    load.load_model(photos / 'random.safetensors'),
    {},
    cluster=cluster_lib.Cluster(actors=(1, 1), cpus=1),
  ).take_all()
  statuses = {row['photo']: row['status'] for row in answers}
  assert statuses == {
    str(path): 'skipped' if path.stem == '000' else 'done' for path in paths
  } | {str(tmp_path / 'none.jpg'): 'failed'}
  assert 'no such file' in answers[-1]['line']
  expected = read_results(photos / 'expected')
  before = tmp_path / 'out/mask/000.png'
  assert before.read_bytes() == b'before'
  before.unlink()
  found = read_results(tmp_path / 'out')
  assert len(found) == 9
  assert all(expected[name] == content for name, content in found.items())


@pytest.fixture
def make_worker(monkeypatch):
  """Makes a worker in this process, for masks below a folder."""
  monkeypatch.setattr(worker.ray, 'get', lambda _: None)
  # As it was again afterwards: a worker has its process for itself.
  monkeypatch.setattr(worker.Image, 'MAX_IMAGE_PIXELS', 10**9)
  monkeypatch.setattr(
    worker.remover_lib,
    'BackgroundRemover',
    lambda *_, **__: clip_files.Remover(),
  )

  def make(output):
    task = pipeline.Task(
      output=output, kinds=('mask',), style=rendering.Style()
    )
    return worker.Worker(
      ray.ObjectRef.nil(), task, {'runtime': 'openvino'}, 4, 'run'
    )

  return make


def draw_photos(folder, count):
  """Photos as rows of a data set."""
  photos = [str(folder / f'{index:02}.jpg') for index in range(count)]
  for photo in photos:
    clip_files.draw(0).save(photo)
  return pa.table({'photo': photos, 'result': [Path(p).stem for p in photos]})


def test_a_full_disk_leaves_nothing_that_counts_as_done(
  make_worker, tmp_path, monkeypatch
):
  write = storage.write

  def refuse(place, content):
    if place.suffix == '.png':
      raise OSError(errno.ENOSPC, 'No space left on device', str(place))
    write(place, content)

  monkeypatch.setattr(storage, 'write', refuse)
  table = draw_photos(tmp_path, 40)
  write(tmp_path / 'out/mask/39.png', b'done before')
  found = make_worker(tmp_path / 'out')(table).to_pydict()
  assert found['photo'] == table.to_pydict()['photo']
  assert found['status'] == 39 * ['failed'] + ['skipped']
  assert 'there is no space left' in found['line'][38]


def test_who_dies_while_it_marks_a_task_has_done_none_of_it(
  make_worker, tmp_path, monkeypatch
):
  class Killed(BaseException):
    pass

  table = draw_photos(tmp_path, 3)
  # What `write_atomically` leaves when the process dies before the rename.
  with monkeypatch.context() as patch:

    def die(partial):
      shutil.copy(partial, tmp_path / partial.name)
      raise Killed

    patch.setattr(files, 'sync', die)
    with pytest.raises(Killed):
      make_worker(tmp_path / 'out')(table)
  (mark,) = tmp_path.glob('.all.*')
  (tries,) = (tmp_path / 'out/report').glob('tries-run/*')
  mark.rename(tries / mark.name)
  found = make_worker(tmp_path / 'out')(table).to_pydict()
  assert found['status'] == ['done', 'done', 'done']
  assert count_masks(tmp_path / 'out') == 3


def test_a_cluster_that_is_not_there_is_named(photos, tmp_path):
  for flags, said in (
    (['--address=127.0.0.1:1'], 'no Ray cluster can be reached there'),
    (['--address=ray://host:10001'], 'ray job submit'),
    (['--actors=0'], '--actors=0: pass a number from 1 on'),
  ):
    process = start(photos, tmp_path / 'out', '--engine=ray', *flags)
    text = finish(process)
    assert process.returncode == 1
    assert said in text and 'Traceback' not in text
