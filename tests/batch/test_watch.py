"""Folders that are watched: what appears is done, once it is complete."""

import io
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import av
import pytest
from absl.flags import FLAGS
from absl.testing import flagsaver
from PIL import Image

from data_pipelines import cli
from data_pipelines.io import errors
from rmbg_jax import predict
from rmbg_jax.batch import listing, record, session, watching
from tests.support import clip_files, helpers


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
  monkeypatch.setattr(watching, '_SETTLED', 0.2)
  monkeypatch.setattr(watching, '_TICK', 50)
  monkeypatch.setattr(watching, '_LISTED_AGAIN', 0.5)


def _wait(condition):
  end = time.monotonic() + 60
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.02)


def _run(source, output, act):
  """Watches while `act` runs in a thread; SIGINT follows."""

  over = threading.Event()

  def act_and_end():
    try:
      act()
    finally:
      if not over.is_set():  # Or it would end the tests.
        os.kill(os.getpid(), signal.SIGINT)

  flags = {'input': str(source), 'output': str(output), 'watch': True}
  thread = threading.Thread(target=act_and_end)
  with flagsaver.flagsaver(save=['mask'], **flags), cli.reporting():
    for name in ('input', 'output'):
      FLAGS[name].parse(flags[name])
    thread.start()
    try:
      predict.main(['predict'])
    finally:
      over.set()
      thread.join()


def _read_report(output):
  lines = (output / 'report.jsonl').read_text().splitlines()
  return {Path(line['photo']).name: line for line in map(json.loads, lines)}


def test_what_comes_is_done_and_what_came_before(tmp_path, monkeypatch, capsys):
  remover = clip_files.Remover()
  monkeypatch.setattr(session.Request, 'load', lambda *_, **__: remover)
  source, output = tmp_path / 'in', tmp_path / 'out'
  source.mkdir()
  clip_files.draw(0).save(source / 'before.png')
  content = io.BytesIO()
  helpers.make_photo((80, 60)).save(content, 'png')
  content = content.getvalue()

  def act():
    _wait((output / 'mask/before.png').exists)
    # Written slowly, then renamed, then in a new folder.
    with (source / 'slow.png').open('wb') as file:
      file.write(content[: len(content) // 2])
      file.flush()
      time.sleep(0.6)  # Longer than what counts as settled.
      file.write(content[len(content) // 2 :])
    (source / 'b.part').write_bytes(content)
    (source / 'b.part').rename(source / 'b.png')
    (source / 'new/deep').mkdir(parents=True)
    clip_files.draw(1).save(source / 'new/deep/c.jpg')
    for name in ('slow', 'b', 'new/deep/c'):
      _wait((output / f'mask/{name}.png').exists)

  _run(source, output, act)
  assert {line['status'] for line in _read_report(output).values()} == {'done'}
  said = capsys.readouterr().out
  assert 'Watching' in said and '4 done, 0 failed.' in said
  # What came while it was down is done at the next start, alone.
  clip_files.draw(2).save(source / 'meanwhile.png')
  count = remover.count
  _run(source, output, lambda: _wait((output / 'mask/meanwhile.png').exists))
  assert remover.count == count + 1
  assert len(_read_report(output)) == 5


def test_broken_files_are_named_once_and_tried_again_when_they_change(
  tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(watching, '_GIVEN_UP', 0.5)
  remover = clip_files.Remover()
  monkeypatch.setattr(session.Request, 'load', lambda *_, **__: remover)
  source, output = tmp_path / 'in', tmp_path / 'out'
  source.mkdir()
  report = output / 'report.jsonl'

  def act():
    _wait(report.exists)
    (source / 'a.png').write_bytes(b'no picture')
    _wait(lambda: 'failed' in report.read_text())
    time.sleep(0.5)
    assert report.read_text().count('failed') == 1
    clip_files.draw(0).save(source / 'a.png')
    _wait((output / 'mask/a.png').exists)

  _run(source, output, act)
  assert _read_report(output)['a.png']['status'] == 'done'
  said = capsys.readouterr().out
  assert said.count('Failed: ') == 1 and '1 done, 0 failed.' in said


def test_what_is_not_followed_is_named(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(watching, '_GIVEN_UP', 0.5)
  remover = clip_files.Remover()
  monkeypatch.setattr(session.Request, 'load', lambda *_, **__: remover)
  source, output = tmp_path / 'in', tmp_path / 'out'
  source.mkdir()
  (tmp_path / 'elsewhere').mkdir()
  (source / 'linked').symlink_to(tmp_path / 'elsewhere')
  (source / 'dead.png').symlink_to(tmp_path / 'gone.png')
  report = output / 'report.jsonl'

  def act():
    _wait(lambda: report.exists() and report.read_text().count('failed') == 2)
    clip_files.draw(0).save(tmp_path / 'elsewhere/a.png')
    clip_files.draw(0).save(tmp_path / 'gone.png')
    _wait((output / 'mask/dead.png').exists)

  with pytest.raises(SystemExit) as exit_info:
    _run(source, output, act)
  assert exit_info.value.code == 1
  said = capsys.readouterr().out
  assert said.count(f'Failed: {source / "linked"}: a link to a folder') == 1
  assert said.count(f'Failed: {source / "dead.png"}: a link that leads') == 1
  assert '1 done, 1 failed.' in said


def test_what_is_replaced_removed_or_put_back_is_done(tmp_path, monkeypatch):
  remover = clip_files.Remover()
  monkeypatch.setattr(session.Request, 'load', lambda *_, **__: remover)
  source, output = tmp_path / 'in', tmp_path / 'out'
  mask = output / 'mask/a.png'

  def put(index, time):
    source.mkdir(exist_ok=True)
    clip_files.draw(index).save(source / 'new', 'bmp')
    os.utime(source / 'new', (time, time))
    (source / 'new').rename(source / 'a.bmp')

  def is_of(index):
    if not mask.exists():
      return False
    with Image.open(mask) as image:
      return abs(clip_files.find_box(image)[0] - 8 - 3 * index) <= 1

  def act():
    _wait(lambda: is_of(0))
    put(3, 2)  # Replaced; by an older one.
    _wait(lambda: is_of(3))
    put(0, 1)
    _wait(lambda: is_of(0))
    mask.unlink()
    _wait(lambda: is_of(0))
    (source / 'a.bmp').unlink()
    time.sleep(0.6)
    mask.unlink()
    put(0, 1)
    _wait(lambda: is_of(0))
    shutil.rmtree(source)
    time.sleep(0.6)
    put(6, 3)
    _wait(lambda: is_of(6))

  put(0, 1)
  clip_files.draw(0).save(source / 'other.png')
  _run(source, output, act)
  # Nothing else was done twice.
  assert remover.count == 7
  report = _read_report(output)['a.bmp']
  assert report['remark'] == record.CHANGED


def test_a_recording_that_pauses_is_done_whole(tmp_path, monkeypatch):
  monkeypatch.setattr(
    session.Request, 'load', lambda *_, **__: clip_files.Remover()
  )
  source, output = tmp_path / 'in', tmp_path / 'out'
  source.mkdir()
  clip_files.save_clip(tmp_path / 'half.mp4', count=12)
  clip_files.save_clip(tmp_path / 'whole.mp4', count=24)

  def count():
    try:
      return len(clip_files.read_clip(output / 'mask/a.mp4')[0])
    except (OSError, av.error.FFmpegError):
      return 0

  def act():
    for name, frames in (('half', 12), ('whole', 24)):
      shutil.copy(tmp_path / f'{name}.mp4', source / 'a.mp4')
      _wait(lambda frames=frames: count() == frames)

  _run(source, output, act)


def test_a_file_that_grows_is_not_ready(tmp_path, monkeypatch):
  clock = [0.0]
  monkeypatch.setattr(time, 'monotonic', lambda: clock[0])
  path = tmp_path / 'a.png'
  path.write_bytes(b'1')
  job = listing.Job(photo=path, result=Path('a'))
  queue = watching._Arrivals()
  assert queue.update([job]) == [] and queue.is_waiting
  for clock[0] in (0.15, 0.3, 0.45):
    path.write_bytes(path.read_bytes() + b'1')
    assert queue.update([job]) == []
  clock[0] = 0.7
  assert queue.update([job]) == [job]
  # Tried once more, and not again unchanged.
  assert queue.put_back(str(path)) and queue.update([job]) == []
  clock[0] = 40.0
  assert queue.update([job]) == [job]
  assert not queue.put_back(str(path)) and queue.update([job]) == []
  path.unlink()
  assert queue.update([job]) == [] and not queue.is_waiting


def _check_refused(source, output, message):
  flags = {'input': str(source), 'output': str(output)}
  with (
    pytest.raises(SystemExit, match=message),
    flagsaver.flagsaver(watch=True, **flags),
    cli.reporting(),
  ):
    for name in flags:
      FLAGS[name].parse(flags[name])
    predict.main(['predict'])


@pytest.mark.parametrize('missing', [False, True])
def test_misuse(missing, tmp_path, monkeypatch):
  helpers.make_photo((4, 4)).save(tmp_path / 'a.png')
  message = '--watch takes a folder'
  if missing:
    monkeypatch.setattr(errors.importlib.util, 'find_spec', lambda _: None)
    message = 'pip install'
  _check_refused(tmp_path / 'a.png', tmp_path / 'out', message)


def test_a_folder_of_results_is_refused(tmp_path):
  (tmp_path / 'mask/today').mkdir(parents=True)  # Empty yet.
  for source in (tmp_path / 'mask', tmp_path / 'mask/today'):
    _check_refused(source, tmp_path, 'has its results')
