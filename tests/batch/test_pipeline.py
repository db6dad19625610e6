"""Photos on their way: bounded memory, and trouble that touches no other."""

import errno
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.io import errors, storage
from rmbg_jax import choices
from rmbg_jax.batch import listing, pipeline
from rmbg_jax.inference import rendering
from tests.support import helpers


class _Remover:
  """Half of every photo is foreground; counts those that are in memory."""

  batch_size = 4
  runtime = 'numpy'

  def __init__(self):
    self.held = self.most_held = 0
    self._lock = threading.Lock()

  def resize(self, photos):
    with self._lock:
      self.held += len(photos)
      self.most_held = max(self.most_held, self.held)
    return np.zeros((len(photos), 2, 2, 3), np.uint8)

  def predict(self, batch):
    return np.full(batch.shape[:3], 0.5, np.float32)

  def refine(self, probs, photo):
    return np.full((photo.rgb.height, photo.rgb.width), 0.5, np.float32)


def _make_jobs(folder, count, size=(20, 10)):
  folder.mkdir(exist_ok=True)
  jobs = []
  for index in range(count):
    path = folder / f'{index}.png'
    helpers.make_photo(size, index).save(path)
    jobs.append(listing.Job(photo=path, result=Path(path.stem)))
  return jobs


def _run(jobs, output, remover=None, kinds=('mask',), **options):
  style = rendering.Style(**options)
  task = pipeline.Task(output=output, kinds=kinds, style=style)
  entries = []

  def add_entry(entry):
    entries.append(entry)
    if remover:
      remover.held -= 1

  pipeline.run(
    remover or _Remover(),
    jobs,
    task,
    add_entry=add_entry,
    stop=threading.Event(),
  )
  return {Path(entry.photo).name: entry for entry in entries}


@pytest.mark.parametrize('room', [1, 2, 3])
def test_photos_in_memory_are_those_there_is_room_for(
  room, tmp_path, monkeypatch
):
  pixels = 20 * 10
  needed = room * pipeline._WAITING_BYTES + pipeline._WRITING_BYTES
  monkeypatch.setattr(pipeline, '_BYTES_IN_MEMORY', pixels * needed)
  remover = _Remover()
  entries = _run(_make_jobs(tmp_path / 'in', 9), tmp_path / 'out', remover)
  assert {entry.status for entry in entries.values()} == {'done'}
  assert len(entries) == 9
  assert 1 <= remover.most_held <= room


def test_what_is_written_is_reported_before_all_is_done(tmp_path):
  held = []

  class Remover(_Remover):
    def predict(self, batch):
      time.sleep(0.3)  # Meanwhile, the batch before is written.
      held.append(self.held)
      return super().predict(batch)

  _run(_make_jobs(tmp_path / 'in', 16), tmp_path / 'out', Remover())
  assert held[2] <= 12


def test_a_photo_without_room_is_done_alone(tmp_path, monkeypatch):
  monkeypatch.setattr(pipeline, '_BYTES_IN_MEMORY', 1)
  remover = _Remover()
  entries = _run(_make_jobs(tmp_path / 'in', 3), tmp_path / 'out', remover)
  assert len(entries) == 3 and remover.most_held == 1


def test_no_exception_of_a_decoder_ends_the_batch(tmp_path, monkeypatch):
  jobs = _make_jobs(tmp_path / 'in', 5)
  raised = dict(
    zip(
      ('1.png', '2.png', '3.png'),
      (RuntimeError('bad item'), EOFError(), KeyError(5)),
      strict=True,
    )
  )
  open_image = Image.open

  def refuse(path, *args, **options):
    if error := raised.get(Path(path).name):
      raise error
    return open_image(path, *args, **options)

  monkeypatch.setattr(Image, 'open', refuse)
  entries = _run(jobs, tmp_path / 'out')
  failed = {name for name, e in entries.items() if e.status == 'failed'}
  assert failed == set(raised) and len(entries) == 5
  assert 'RuntimeError' in entries['1.png'].error
  assert 'EOFError' in entries['2.png'].error


def test_what_nobody_foresaw_is_named_by_its_kind(tmp_path, monkeypatch):
  remover = _Remover()
  monkeypatch.setattr(remover, 'refine', lambda probs, photo: {}['alpha'])
  entries = _run(_make_jobs(tmp_path / 'in', 1), tmp_path / 'out', remover)
  assert entries['0.png'].error == "KeyError: 'alpha'"


def test_a_kind_that_its_format_cannot_hold_fails_alone(tmp_path):
  jobs = _make_jobs(tmp_path / 'in', 1, size=(9000, 2))
  entries = _run(
    jobs,
    tmp_path / 'out',
    kinds=('mask', 'side_by_side', 'cutout'),
    format='webp',
  )
  entry = entries['0.png']
  assert entry.status == 'failed'
  assert entry.error.startswith('side_by_side: 18010x2 pixels are more than')
  assert '--format=png' in entry.error and 'mask' not in entry.error
  found = sorted(
    path.parent.name for path in (tmp_path / 'out').rglob('*.webp')
  )
  assert found == ['cutout', 'mask']


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_a_full_disk_stops_and_another_error_does_not(
  number, tmp_path, monkeypatch
):
  write = storage.write

  def fail(path, content):
    if path.name == '2.png':
      raise OSError(number, os.strerror(number), str(path))
    write(path, content)

  monkeypatch.setattr(storage, 'write', fail)
  jobs = _make_jobs(tmp_path / 'in', 40)
  entries = _run(jobs, tmp_path / 'out')
  assert entries['2.png'].status == 'failed'
  assert str(tmp_path / 'out/mask/2.png') in entries['2.png'].error
  stopped = number != errno.EACCES
  assert (len(entries) < 40) == stopped
  done = {path.name for path in (tmp_path / 'out/mask').iterdir()}
  assert done == set(entries) - {'2.png'}


def test_names_as_long_as_file_systems_take(tmp_path):
  (tmp_path / 'in').mkdir()
  jobs = []
  # The third one's result is longer than its photo's name.
  for stem in ('x' * 251, 'ü' * 120, 'y' * 251):
    path = tmp_path / 'in' / f'{stem}.png'
    helpers.make_photo((4, 4)).save(path)
    result = Path(path.name if 'y' in stem else stem)
    jobs.append(listing.Job(photo=path, result=result))
  entries = _run(jobs, tmp_path / 'out')
  assert [entries[job.photo.name].status for job in jobs] == [
    *('done', 'done', 'failed')
  ]
  assert 'File name too long' in entries[jobs[2].photo.name].error
  assert 'Shorten the name' in entries[jobs[2].photo.name].error
  # Nothing temporary is left.
  assert len(list((tmp_path / 'out/mask').iterdir())) == 2


def test_photos_among_results_are_refused(tmp_path):
  output = tmp_path / 'out'
  task = pipeline.Task(output=output, kinds=('mask',), style=rendering.Style())
  for kind in choices.KINDS:
    (output / kind / 'sub').mkdir(parents=True)
  (output / 'mask/a.png').touch()
  (tmp_path / 'photos').mkdir()
  (tmp_path / 'photos/link.png').symlink_to(output / 'mask/a.png')
  (tmp_path / 'photos/folder').symlink_to(output / 'cutout')
  (tmp_path / 'photos/plain.png').touch()
  task.check_photos([tmp_path / 'photos/plain.png', output / 'plain.png'])
  for photo in (
    output / 'mask/a.png',
    output / 'composite/sub/b.png',
    tmp_path / 'photos/../out/cutout/b.png',
    tmp_path / 'photos/folder/b.png',
    tmp_path / 'photos/link.png',
  ):
    with pytest.raises(
      errors.UserError, match='Pass another --output'
    ) as error:
      task.check_photos([tmp_path / 'photos/plain.png', photo])
    assert str(photo) in str(error.value)
