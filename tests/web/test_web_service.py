"""What the page does with uploaded files."""

import os
import shutil
import threading
from concurrent import futures
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.io import errors, storage
from rmbg_jax.batch import pipeline
from rmbg_jax.web import options as options_lib
from rmbg_jax.web import service as service_lib
from tests.support import helpers


class _Remover:
  """Half of every photo is foreground."""

  batch_size = 1
  runtime = 'numpy'

  def with_refinement(self, refinement):
    return self

  def resize(self, photos):
    return np.zeros((len(photos), 2, 2, 3), np.uint8)

  def predict(self, batch):
    return np.full(batch.shape[:3], 0.5, np.float32)

  def refine(self, probs, photo):
    return np.full((photo.rgb.height, photo.rgb.width), 0.5, np.float32)


@pytest.fixture
def service(tmp_path, monkeypatch):
  monkeypatch.setattr(
    service_lib.Service, '_load_remover', lambda self, checkpoint: _Remover()
  )
  return service_lib.Service(
    ['any'], limits=options_lib.Limits(), folder=tmp_path / 'results'
  )


def _ask(service, uploads, *, background='transparent', kind='cutout'):
  options = options_lib.Options(
    background, '#ffffff', None, 'none', 'any', kind
  )
  return service.cut_out(uploads, options, report_progress=lambda *_: None)


def _make_old(folder, count):
  for index in range(count):
    old = folder / f'old{index}'
    old.mkdir(parents=True)
    os.utime(old, (1, 1))


def test_requests_at_once_do_not_meet_over_old_results(service, tmp_path):
  photo = tmp_path / 'a.png'
  helpers.make_photo((4, 4)).save(photo)
  _make_old(tmp_path / 'results', 100)
  start = threading.Barrier(4)

  def ask(_):
    start.wait()
    return _ask(service, [photo])

  with futures.ThreadPoolExecutor(4) as pool:
    answers = list(pool.map(ask, range(4)))
  assert [len(answer.results) for answer in answers] == [1] * 4
  assert not any(answer.failures for answer in answers)
  assert not list((tmp_path / 'results').glob('old*'))


def test_requests_at_once_share_the_memory(service, tmp_path, monkeypatch):
  helpers.make_photo((4, 4)).save(tmp_path / 'a.png')
  rooms = []
  flow = pipeline._Flow

  def make_flow(**values):
    rooms.append(values['most_bytes'])
    return flow(**values)

  monkeypatch.setattr(pipeline, '_Flow', make_flow)
  _ask(service, [tmp_path / 'a.png'])
  assert rooms == [pipeline._BYTES_IN_MEMORY // service_lib.AT_ONCE]


def test_results_that_vanish_meanwhile_are_nobody_s_trouble(
  service, tmp_path, monkeypatch
):
  photo = tmp_path / 'a.png'
  helpers.make_photo((4, 4)).save(photo)
  _make_old(tmp_path / 'results', 3)
  stat = Path.stat

  def remove_first(self, **options):
    if self.name.startswith('old'):
      shutil.rmtree(self)
    return stat(self, **options)

  monkeypatch.setattr(Path, 'stat', remove_first)
  assert len(_ask(service, [photo]).results) == 1


def test_a_request_at_work_keeps_its_results(service, tmp_path, monkeypatch):
  photo = tmp_path / 'a.png'
  helpers.make_photo((4, 4)).save(photo)
  run = pipeline.run

  def run_for_hours(*args, **options):
    (folder,) = (tmp_path / 'results').iterdir()
    os.utime(folder, (1, 1))
    monkeypatch.setattr(pipeline, 'run', run)
    assert len(_ask(service, [photo]).results) == 1
    run(*args, **options)

  monkeypatch.setattr(pipeline, 'run', run_for_hours)
  (result,) = _ask(service, [photo]).results
  assert result.image.exists()
  # From its end on, it is kept as long as any other.
  _ask(service, [photo])
  assert result.image.exists()


def test_failures_name_no_path_of_the_server(service, tmp_path, monkeypatch):
  uploads = [tmp_path / f'{index}.png' for index in range(9)]
  for upload in uploads:
    helpers.make_photo((4, 4)).save(upload)
  uploads[1].write_bytes(b'no picture')
  uploads[2].unlink()

  def fail(path, content):
    raise OSError(28, 'No space left on device', str(path))

  monkeypatch.setattr(storage, 'write', fail)
  answer = _ask(service, uploads)
  assert len(answer.failures) == 9 and not answer.results
  assert '2.png: the upload is not there any more' in answer.failures[2]
  assert 'No space left' in answer.failures[0]
  assert not any(str(tmp_path) in failure for failure in answer.failures)


def test_names_of_uploads_are_safe():
  names = [
    'a.jpg',
    'A.JPG',
    'a.jpg',
    '../../etc/passwd',
    '..',
    '.hidden.png',
    'x' * 300 + '.jpeg',
    'ü (1).webp',
    'a\0b/c\\d\n.png',
    '',
    '写' * 90 + '.jpg',
    '\U00020000' * 90 + '.' + '写' * 20,
  ]
  safe = service_lib.name_uploads(names)
  assert safe[:3] == ['a.jpg', 'A (2).JPG', 'a (3).jpg']
  assert safe[7] == 'ü (1).webp'
  assert len({name.casefold() for name in safe}) == len(names)
  for name in safe:
    assert Path(name).name == name and not name.startswith('.')
    assert len(name.encode()) <= 120 and name.isprintable()


def test_other_kinds_than_cutouts(service, tmp_path):
  photo = tmp_path / 'a.png'
  helpers.make_photo((40, 30)).save(photo)

  for kind in options_lib.KINDS:
    (result,) = _ask(service, [photo], kind=kind).results
    assert result.image.parent.name == kind and result.image.exists()
  with pytest.raises(errors.UserError, match='changes nothing in trimap'):
    _ask(service, [photo], kind='trimap', background='blur')
  with pytest.raises(errors.UserError, match='kind=gif: choose one of cutout'):
    _ask(service, [photo], kind='gif')
