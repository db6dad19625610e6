"""What is done again: photos that changed; nothing that others made."""

import os
from pathlib import Path

import pytest
from absl.testing import flagsaver
from PIL import Image

from data_pipelines import cli
from rmbg_jax import predict
from rmbg_jax.batch import record, session
from tests.support import clip_files


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
  """Runs the command on `photos` into `out`; returns what it said."""
  monkeypatch.setattr(
    session.Request, 'load', lambda *_, **__: clip_files.Remover()
  )

  def run(**flags):
    flags = {'save': ['mask'], **flags}
    folders = {'input': tmp_path / 'photos', 'output': tmp_path / 'out'}
    flags |= {name: str(folder) for name, folder in folders.items()}
    with flagsaver.flagsaver(**flags), cli.reporting():
      predict.main(['predict'])
    return capsys.readouterr().out

  return run


def _put(path, index, *, time=1):
  """Puts a photo whose box is somewhere else, of a time of its own."""
  path.parent.mkdir(parents=True, exist_ok=True)
  clip_files.draw(index).save(path)
  os.utime(path, (time, time))


def _is_of(mask, index):
  with Image.open(mask) as image:
    left = clip_files.find_box(image)[0]
  return abs(left - 8 - 3 * index) <= 1


def test_a_replaced_photo_is_done_again(run, tmp_path):
  photo, mask = tmp_path / 'photos/a.png', tmp_path / 'out/mask/a.png'
  _put(photo, 0)
  _put(tmp_path / 'photos/b.png', 3)
  run()
  kept = (tmp_path / 'out/mask/b.png').stat().st_mtime_ns
  # By a newer one, by an older one, by the first one again.
  for index, time in ((6, 2), (9, 0), (0, 1)):
    _put(photo, index, time=time)
    said = run()
    assert '2 of 2 photos done (1 of them before)' in said
    assert f'1 of them {record.CHANGED}' in said
    assert _is_of(mask, index)
  assert (tmp_path / 'out/mask/b.png').stat().st_mtime_ns == kept
  # The kinds of one photo are not done at once.
  _put(photo, 3, time=2)
  run(save=['overlay'])
  assert f'1 of them {record.CHANGED}' in run(save=['mask', 'overlay'])
  assert _is_of(mask, 3)
  assert '2 of 2 photos done (2 of them before)' in run()


def test_another_file_of_the_same_result(run, tmp_path):
  _put(tmp_path / 'photos/a.png', 0)
  run()
  (tmp_path / 'photos/a.png').unlink()
  _put(tmp_path / 'photos/a.bmp', 3)
  run()
  assert _is_of(tmp_path / 'out/mask/a.png', 3)


@pytest.mark.parametrize('retouched', [False, True])
def test_what_others_made_is_never_replaced(retouched, run, tmp_path):
  photo, mask = tmp_path / 'photos/a.png', tmp_path / 'out/mask/a.png'
  _put(photo, 0)
  if retouched:
    run()
  mask.parent.mkdir(parents=True, exist_ok=True)
  mask.write_bytes(b'by hand')
  _put(photo, 3, time=mask.stat().st_mtime + 10)
  said = run()
  assert mask.read_bytes() == b'by hand'
  assert f'1 of them {record.LEFT}' in said
  run(overwrite=True)
  assert _is_of(mask, 3)
  _put(photo, 6)
  assert record.CHANGED in run()


def test_shards_know_what_each_other_did(run, tmp_path):
  for index in range(4):
    _put(tmp_path / f'photos/{index}.png', index)
  for shard in ('0/2', '1/2'):
    run(shard=shard)
  for index in range(4):
    _put(tmp_path / f'photos/{index}.png', 9, time=3)
  assert f'4 of them {record.CHANGED}' in run()
  assert '(1 of them before)' in run(shard='2/3')
  # The latest counts, in whatever report it is.
  _put(tmp_path / 'photos/2.png', 2)
  assert record.CHANGED in run(shard='2/3')
  assert '(4 of them before)' in run()


def test_what_overwrite_and_ctrl_c_say(run, monkeypatch, tmp_path, capsys):
  _put(tmp_path / 'photos/a.png', 0)
  run()

  def interrupt(*_, **__):
    raise KeyboardInterrupt

  monkeypatch.setattr(session.Request, 'load', interrupt)
  with pytest.raises(SystemExit):
    run(overwrite=True)
  assert 'begins anew' in capsys.readouterr().err


def test_a_report_of_millions_is_small_and_may_be_cut_off(tmp_path):
  lines = [
    f'{{"made": {{"mask/{index}.png": [9, "1-1"]}}}}' for index in range(1000)
  ]
  text = '\n'.join([*lines, '{"made": {"mask/x.png": [9, "1'])
  (tmp_path / 'report-0-of-2.jsonl').write_text(text, encoding='utf-8')
  found = record.Record(tmp_path)
  assert found._results.nbytes + found._states.nbytes == 16 * 1000
  assert found.has_state('mask/7.png', 9, '1-1')
  assert not found.has_state('mask/7.png', 9, '1-2')
  assert found.has('mask/7.png', 9) and not found.has('mask/7.png', 8)
  assert record.Record(Path(tmp_path / 'none')).is_empty


def test_an_earlier_state_counts_no_more():
  made = record.Record(None)
  for stamp in ('first', 'second'):
    made.add({'mask/a.png': (100, stamp)})
  assert made.has_state('mask/a.png', 100, 'second')
  assert not made.has_state('mask/a.png', 100, 'first')
