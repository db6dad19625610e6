"""Prediction by URL: the same results, promises and few requests."""

import io
import json
import os
import sys
from pathlib import Path

import pytest
from absl.testing import flagsaver
from PIL import Image

from data_pipelines import cli
from data_pipelines.io import errors, storage
from rmbg_jax import predict
from rmbg_jax.batch import listing, record, report, stored
from tests.support import helpers

pytest.importorskip('s3fs')
pytest.importorskip('moto')

from tests.support import object_store  # noqa: E402

INPUT = f's3://{object_store.BUCKET}/photos'
OUTPUT = f's3://{object_store.BUCKET}/out'


@pytest.fixture(scope='module')
def server():
  with object_store.serving_store() as server:
    yield server


@pytest.fixture
def store(server, monkeypatch):
  with object_store.visiting(server, monkeypatch):
    yield server


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
  path = tmp_path_factory.mktemp('release') / 'random.safetensors'
  helpers.save_random_release(path)
  return path


def _run(checkpoint, source=INPUT, output=OUTPUT, **flags):
  flags = {'input': source, 'output': output, **flags}
  flags['checkpoint'] = str(checkpoint)
  with flagsaver.flagsaver(**flags), cli.reporting():
    predict.main(['predict'])


def _fill(store, folder):
  """The same photos in a folder and in the store."""
  names = ['a.jpg', 'a.png', 'b.c.jpg', 'sub dir/ü.webp', 'b.jpg']
  for index, name in enumerate(names):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    helpers.make_photo((40, 24), seed=index).save(path)
    store.put(f'photos/{name}', path.read_bytes())
  store.put('photos/notes.txt', b'')
  store.requests.clear()


def test_results_are_those_of_paths(store, checkpoint, tmp_path, capsys):
  _fill(store, tmp_path / 'photos')
  _run(checkpoint, str(tmp_path / 'photos'), str(tmp_path / 'out'))
  _run(checkpoint)
  assert '.txt: 1' in capsys.readouterr().out
  # One request for each photo, one for each result, few others.
  reads = [path for _, path in store.requests if '/photos/' in path]
  assert len(reads) == 5
  assert store.count('HEAD') == 0
  assert store.count('PUT') == 2 * 5 + 2
  for where in (OUTPUT, f'file://{tmp_path}/second'):
    _run(checkpoint, f'file://{tmp_path}/photos', where)
  _run(checkpoint, INPUT, str(tmp_path / 'third'))
  expected = {
    str(path.relative_to(tmp_path / 'out')): path.read_bytes()
    for path in (tmp_path / 'out').glob('[mc]*/**/*.png')
  }
  assert len(expected) == 10
  for place in (storage.parse(OUTPUT), tmp_path / 'second', tmp_path / 'third'):
    found = {
      name: storage.read(place / name)
      for name in storage.list_names(place)
      if not name.startswith('report')
    }
    assert found == expected


def test_the_same_command_goes_on(store, checkpoint, tmp_path, capsys):
  _fill(store, tmp_path / 'photos')
  _run(checkpoint)
  for name in ('mask/b.png', 'cutout/sub dir/ü.png'):
    store._client.delete_object(Bucket=object_store.BUCKET, Key=f'out/{name}')
  store.put('photos/broken.jpg', b'\xff\xd8\xff')
  before = store.contents('out')
  store.requests.clear()
  with pytest.raises(SystemExit) as info:
    _run(checkpoint)
  assert info.value.code == 1
  text = capsys.readouterr().out
  assert '5 of 6 photos done (3 of them before)' in text
  assert f'Failed: {INPUT}/broken.jpg: cannot be read' in text
  # Only what was missing is made: two results, and two files of the report.
  assert store.count('PUT') == 2 + 2
  after = store.contents('out')
  assert len(after) == len(before) + 3
  assert {key: after[key] for key in before} == before

  # As `cli.print_any_name` sets up a console that knows few characters.
  sys.stdout.reconfigure(encoding='ascii', errors='backslashreplace')
  with flagsaver.flagsaver(print_report=True, output=OUTPUT):
    predict.main(['predict'])
  lines = map(json.loads, capsys.readouterr().out.splitlines())
  entries = {line['photo'].removeprefix(f'{INPUT}/'): line for line in lines}
  assert {name: line['status'] for name, line in entries.items()} == {
    'a.jpg': 'skipped',
    'a.png': 'skipped',
    'b.c.jpg': 'skipped',
    'b.jpg': 'done',
    'broken.jpg': 'failed',
    'sub dir/ü.webp': 'done',
  }
  # What the run that did it found out.
  assert entries['a.jpg']['width'] == 40


def test_a_replaced_photo_is_done_again(store, checkpoint, tmp_path, capsys):
  _fill(store, tmp_path / 'photos')
  for source in (INPUT, str(tmp_path / 'photos')):
    output = f'{OUTPUT}-{source[:2]}'
    _run(checkpoint, source, output)
    name = 'sub dir/ü.webp'
    helpers.make_photo((24, 40), seed=9).save(tmp_path / 'photos' / name)
    content = (tmp_path / 'photos' / name).read_bytes()
    store.put(f'photos/{name}', content)
    capsys.readouterr()
    _run(checkpoint, source, output)
    said = capsys.readouterr().out
    assert '5 of 5 photos done (4 of them before)' in said
    assert f'1 of them {record.CHANGED}' in said
    results = store.contents(f'out-{source[:2]}/mask')
    changed = results[f'out-{source[:2]}/mask/sub dir/ü.png']
    with Image.open(io.BytesIO(changed)) as mask:
      assert mask.size == (24, 40)
    store.requests.clear()
    _run(checkpoint, source, output)
    assert not [path for _, path in store.requests if '/photos/' in path]
    helpers.make_photo((40, 24), seed=3).save(tmp_path / 'photos' / name)


def test_results_made_otherwise_are_refused(store, checkpoint, tmp_path):
  _fill(store, tmp_path / 'photos')
  _run(checkpoint)
  before = store.contents('out')
  with pytest.raises(SystemExit, match='flip was None, is True'):
    _run(checkpoint, flip=True)
  assert store.contents('out') == before
  _run(checkpoint, threads=1)  # The same masks, in another time.
  _run(checkpoint, save=['mask'], format='webp')  # Beside it: other names.
  _run(checkpoint, flip=True, overwrite=True)
  assert (
    store.contents('out/mask')['out/mask/b.png'] != (before['out/mask/b.png'])
  )


@pytest.mark.parametrize('count', [2, 10**9])
def test_trouble_is_waited_for_or_named(
  store, checkpoint, tmp_path, capsys, count
):
  _fill(store, tmp_path / 'photos')
  store.faults += [
    object_store.Fault(object_store.SLOW_DOWN, ('GET',), 'b.jpg', count),
    object_store.Fault(None, ('PUT',), 'mask/a.jpg', count),
  ]
  if count == 2:
    _run(checkpoint)
    assert '5 of 5 photos done' in capsys.readouterr().out
    return
  with pytest.raises(SystemExit) as info:
    _run(checkpoint)
  assert info.value.code == 1
  text = capsys.readouterr().out
  assert '3 of 5 photos done' in text
  assert f'Failed: {INPUT}/b.jpg: ' in text and 'SlowDown' in text
  assert f'Failed: {INPUT}/a.jpg: mask: {OUTPUT}/mask/a.jpg.png: ' in text
  store.faults.clear()
  for name, content in store.contents('out').items():
    assert '/a.jpg' not in name or '/cutout/' in name
    if name.endswith('.png'):  # Whole.
      path = tmp_path / 'result.png'
      path.write_bytes(content)
      with Image.open(path) as image:
        image.load()


@pytest.mark.parametrize(
  ('fault', 'said'),
  [
    (object_store.Fault(object_store.DENIED, ('PUT', 'POST')), 'AccessDenied'),
    (
      object_store.Fault(('403 Forbidden', 'InvalidAccessKeyId')),
      'InvalidAccessKeyId',
    ),
  ],
)
def test_a_store_that_refuses_ends_the_run(
  store, checkpoint, tmp_path, fault, said
):
  _fill(store, tmp_path / 'photos')
  store.faults.append(fault)
  with pytest.raises(SystemExit, match=f'{OUTPUT}/report.*{said}.*credentials'):
    _run(checkpoint)
  store.faults.clear()
  assert store.contents('out') == {}


def test_what_urls_cannot_do_is_said(store, checkpoint, tmp_path):
  with pytest.raises(SystemExit, match='--watch: '):
    _run(checkpoint, watch=True)
  with pytest.raises(SystemExit, match='no photos in it'):
    _run(checkpoint)
  with pytest.raises(SystemExit, match='patterns and lists are for paths'):
    _run(checkpoint, f'{INPUT}/*.jpg')
  with pytest.raises(SystemExit, match='is inside'):
    _run(checkpoint, INPUT, f'{INPUT}/out')
  with pytest.raises(SystemExit, match='for photos'):
    _run(checkpoint, f'{OUTPUT}/mask/sub')
  assert not store.contents('out')


def test_one_photo_and_odd_names(store, checkpoint, tmp_path, capsys):
  helpers.make_photo((20, 20)).save(tmp_path / 'a.png')
  content = (tmp_path / 'a.png').read_bytes()
  store.put('photos/a.png', content)
  store.put('photos//b.png', content)
  _run(checkpoint, str(tmp_path / 'a.png'), f'{OUTPUT}/one.png', save=['mask'])
  assert set(store.contents('out')) == {'out/one.png'}
  _run(checkpoint, f'{INPUT}/a.png', save=['mask'])
  assert set(store.contents('out/mask')) == {'out/mask/a.png'}
  with pytest.raises(SystemExit):
    _run(checkpoint, save=['mask'])
  assert 'b.png: its name has parts that are empty' in capsys.readouterr().out


def test_names_are_those_of_folders(rng, tmp_path):
  stems = ['a', 'a.b', 'a-', 'b', 'c.d.e', 'sub/a', 'sub.x/a', 'sub']
  for round_number in range(60):
    folder = tmp_path / str(round_number)
    for stem in stems:
      for suffix in ('.jpg', '.png', '.webp'):
        if rng.random() < 0.35:
          path = folder / f'{stem}{suffix}'
          path.parent.mkdir(parents=True, exist_ok=True)
          path.touch()
    (folder / 'z.jpg').parent.mkdir(exist_ok=True)
    (folder / 'z.jpg').touch()
    expected = {job.photo: job.result for job in listing.list_jobs(str(folder))}
    jobs = list(stored.list_jobs(f'file://{folder}', stored.Counts()))
    assert {job.photo: job.result for job in jobs} == expected
    order = [job.photo.relative_to(folder).as_posix() for job in jobs]
    assert order == sorted(order)


def test_names_of_results_never_meet():
  names = ['a.jpg', 'a.jpg.png', 'a.png', 'a.png.jpg.webp']
  files = map(storage.File, names)
  results = [result for _, result in stored._name_results(files)]
  assert results == ['a.jpg', 'a.jpg.png', 'a.png', 'a.png.jpg.webp']


def test_parts_of_a_report_are_written_as_they_fill(tmp_path, monkeypatch):
  parted = report.PartedReport(tmp_path)
  for index in range(report._PART + 1):
    parted.add(report.Entry(photo=str(index), status='done'))
  assert len(os.listdir(tmp_path / 'report')) == 1  # noqa: PTH208
  parted.close()
  assert len(list(report.join_parts(tmp_path))) == report._PART + 1
  with pytest.raises(
    errors.MissingFileError, match='no parts.*others leave report.jsonl'
  ):
    list(report.join_parts(Path(tmp_path / 'other')))


def test_a_refused_cluster_run_leaves_nothing(checkpoint, tmp_path):
  pytest.importorskip('ray')
  helpers.make_photo((40, 30)).save(tmp_path / 'photo.png')
  output = tmp_path / 'out'
  output.mkdir()
  (output / 'mask').touch()
  with pytest.raises(SystemExit, match='mask is a file, not a folder'):
    _run(checkpoint, str(tmp_path / '*.png'), str(output), engine='ray')
  assert [path.name for path in output.iterdir()] == ['mask']
