"""From a checkpoint of any kind to files of the photos' own size."""

import io
import json
import os
import pathlib
import signal
import subprocess
import sys
from concurrent import futures

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import flagsaver
from PIL import Image

from rmbg_jax import (
  BackgroundRemover,
  load_model,
  predict,
  preprocessing,
  train,
)
from rmbg_jax.pretrained import release
from tests import helpers


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  config = helpers.make_config(workdir / 'data', **{'train.epochs': 1})
  train.train_and_evaluate(config, workdir)
  return workdir


@pytest.fixture(scope='module')
def cutter(workdir):
  return BackgroundRemover.from_checkpoint(workdir, batch_size=2)


def _photo(size, seed=0):
  pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3))
  return Image.fromarray(pixels.astype(np.uint8))


def _run(source, output, workdir, **flags):
  flags = {'input': str(source), 'output': str(output), **flags}
  flags.setdefault('checkpoint', str(workdir))
  with flagsaver.flagsaver(**flags):
    predict.main(['predict'])


def test_release_file_equals_the_workdir(workdir, tmp_path):
  loaded = load_model(workdir)
  path = tmp_path / 'model.safetensors'
  description = {
    **loaded.description,
    'preprocessing': loaded.preprocessing.to_dict(),
    'license': 'test',
  }
  release.save_release(path, loaded.variables, description, dtype='float32')
  again = load_model(path)
  assert again.description['license'] == 'test'
  assert (again.model, again.preprocessing) == (
    loaded.model,
    loaded.preprocessing,
  )
  jax.tree.map(np.testing.assert_array_equal, again.variables, loaded.variables)
  # In float16 it is half as large and nearly the same.
  half = tmp_path / 'half.safetensors'
  release.save_release(half, loaded.variables, description)
  assert half.stat().st_size < 0.7 * path.stat().st_size
  photo = _photo((40, 30))
  difference = BackgroundRemover(load_model(half)).alpha(
    photo
  ) - BackgroundRemover(again).alpha(photo)
  assert np.abs(difference).max() < 1e-2


def test_damaged_releases_are_refused(workdir, tmp_path):
  path = tmp_path / 'model.safetensors'
  path.write_bytes(b'not safetensors')
  with pytest.raises(ValueError, match=r'model\.safetensors: not a readable'):
    load_model(path)
  loaded = load_model(workdir)
  release.save_release(path, loaded.variables, {'architecture': {}})
  with pytest.raises(ValueError, match='does not state preprocessing'):
    load_model(path)
  variables = jax.tree.map(lambda x: x, loaded.variables)
  del variables['params']['head4']['conv']['bias']
  variables['params']['extra'] = np.zeros(2, np.float32)
  description = {
    **loaded.description,
    'preprocessing': loaded.preprocessing.to_dict(),
  }
  release.save_release(path, variables, description)
  with pytest.raises(ValueError) as error:
    load_model(path)
  assert 'missing: params/head4/conv/bias' in str(error.value)
  assert 'unexpected: params/extra' in str(error.value)


def test_other_checkpoints_are_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match='no such checkpoint'):
    load_model(tmp_path / 'absent')
  with pytest.raises(FileNotFoundError, match='no checkpoints here'):
    load_model(tmp_path)
  path = tmp_path / 'model.pkl'
  path.touch()
  with pytest.raises(ValueError, match='unknown kind of checkpoint'):
    load_model(path)


@pytest.mark.parametrize('size', [(1, 1), (57, 33), (32, 32), (5, 200)])
def test_alpha_has_the_photos_size_and_range(cutter, size):
  alpha = cutter.alpha(_photo(size))
  assert alpha.shape == (size[1], size[0])
  assert alpha.dtype == np.float32
  assert 0 <= alpha.min() <= alpha.max() <= 1


def test_cutout_keeps_the_colours_where_it_is_opaque(cutter):
  photo = _photo((57, 33))
  result = cutter.remove(photo)
  assert result.mode == 'RGBA'
  pixels = np.asarray(result)
  alpha = cutter.alpha(photo)
  np.testing.assert_array_equal(pixels[..., 3], np.round(alpha * 255))
  same = (pixels[..., :3] == np.asarray(photo)).all(axis=-1)
  assert same[(alpha > 0.999) | (alpha < 0.001)].all()


def test_any_kind_of_image_gives_the_same_and_its_own_kind_back(
  cutter, tmp_path
):
  photo = _photo((40, 24))
  path = tmp_path / 'photo.png'
  photo.save(path)
  expected = cutter.alpha(photo)
  cutout = np.asarray(cutter.remove(photo))
  for kind in (path, str(path), path.read_bytes(), np.asarray(photo)):
    np.testing.assert_array_equal(cutter.alpha(kind), expected)
    result = cutter.remove(kind)
    if isinstance(kind, bytes):
      assert isinstance(result, bytes)
      result = Image.open(io.BytesIO(result))
    elif isinstance(kind, np.ndarray):
      assert isinstance(result, np.ndarray)
    else:
      assert isinstance(result, Image.Image)
    np.testing.assert_array_equal(np.asarray(result), cutout)
  with pytest.raises(ValueError, match=r'\(24, 40\) of float64'):
    cutter.alpha(np.zeros((24, 40)))


def test_batches_of_any_length_equal_single_photos(cutter):
  photos = [_photo((40, 24 + seed), seed) for seed in range(6)]
  assert len(photos) > cutter.batch_size
  for batched, photo in zip(cutter.alphas(photos), photos, strict=True):
    np.testing.assert_allclose(batched, cutter.alpha(photo), atol=1e-5)
  with pytest.raises(ValueError, match=r'batch_size \(=4\)'):
    cutter.predict(np.zeros((5, 32, 32, 3), np.uint8))


def test_threads_may_share_a_remover(cutter):
  photos = [_photo((40, 24), seed) for seed in range(8)]
  expected = [cutter.alpha(photo) for photo in photos]
  with futures.ThreadPoolExecutor(4) as pool:
    for actual, alpha in zip(
      pool.map(cutter.alpha, photos), expected, strict=True
    ):
      np.testing.assert_array_equal(actual, alpha)


def test_flips_and_scales_are_averaged(workdir):
  loaded = load_model(workdir)
  batch = np.asarray(_photo((32, 32)))[None]
  plain = BackgroundRemover(loaded).predict(batch)
  mirrored = BackgroundRemover(loaded).predict(batch[:, :, ::-1])[:, :, ::-1]
  flipped = BackgroundRemover(loaded, flip=True).predict(batch)
  np.testing.assert_allclose(flipped, (plain + mirrored) / 2, atol=1e-5)
  assert np.abs(flipped - plain).max() > 1e-4
  # The largest scale is the size that photos are given at.
  double = BackgroundRemover(loaded, scales=(1.0, 2.0))
  assert double.resize([_photo((9, 9))]).shape == (1, 64, 64, 3)
  # A plain colour is the same at any size, up to the borders.
  grey = np.full((1, 64, 64, 3), 90, np.uint8)
  assert double.predict(grey).shape == (1, 64, 64)
  with pytest.raises(ValueError, match='scales must be positive'):
    BackgroundRemover(loaded, scales=(0.0,))


def test_what_was_transparent_stays_so(cutter):
  photo = _photo((40, 24))
  opacity = Image.new('L', photo.size, 255)
  opacity.paste(0, (0, 0, 20, 24))
  transparent = photo.copy()
  transparent.putalpha(opacity)
  alpha = cutter.alpha(transparent)
  assert (alpha[:, :20] == 0).all() and alpha[:, 20:].max() > 0


def test_a_folder_is_done_and_the_broken_photo_named(workdir, tmp_path, capsys):
  source, output = tmp_path / 'photos', tmp_path / 'out'
  (source / 'sub dir').mkdir(parents=True)
  _photo((40, 24)).save(source / 'a.jpg')
  _photo((30, 50)).save(source / 'a.png')
  _photo((20, 20)).save(source / 'sub dir' / 'ü.webp')
  (source / 'broken.jpg').write_bytes(b'\xff\xd8\xff')
  (source / 'notes.txt').touch()
  with pytest.raises(SystemExit) as exit_info:
    _run(source, output, workdir, save=['mask', 'cutout', 'side_by_side'])
  assert exit_info.value.code == 1
  text = capsys.readouterr().out
  assert '3 of 4 photos done' in text
  assert 'Failed: ' in text and 'broken.jpg: cannot be read' in text
  for kind, mode in (
    ('mask', 'L'),
    ('cutout', 'RGBA'),
    ('side_by_side', 'RGB'),
  ):
    found = sorted(
      path.relative_to(output / kind).as_posix()
      for path in (output / kind).rglob('*')
      if path.is_file()
    )
    assert found == ['a.jpg.png', 'a.png.png', 'sub dir/ü.png']
    with Image.open(output / kind / 'a.jpg.png') as image:
      width = 40 * 2 + 10 if kind == 'side_by_side' else 40
      assert (image.mode, image.size) == (mode, (width, 24))


def test_a_single_photo_and_the_default_kinds(workdir, tmp_path):
  path = tmp_path / 'photo.jpg'
  _photo((40, 24)).save(path)
  _run(path, tmp_path / 'out', workdir)
  assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == [
    'cutout',
    'mask',
    'report.jsonl',
  ]
  expected = BackgroundRemover.from_checkpoint(workdir).alpha(path)
  with Image.open(tmp_path / 'out/mask/photo.png') as mask:
    np.testing.assert_array_equal(np.asarray(mask), np.round(expected * 255))


def test_a_full_disk_is_an_error_of_that_photo(
  workdir, tmp_path, monkeypatch, capsys
):
  source, output = tmp_path / 'photos', tmp_path / 'out'
  source.mkdir()
  for name in ('a', 'b'):
    _photo((40, 24)).save(source / f'{name}.jpg')
  write = pathlib.Path.write_bytes

  def fail(self, content):
    write(self, content)
    if 'b.png' in self.name:
      raise OSError(28, 'No space left on device')

  monkeypatch.setattr(pathlib.Path, 'write_bytes', fail)
  with pytest.raises(SystemExit):
    _run(source, output, workdir, save=['mask'])
  assert 'b.jpg: [Errno 28]' in capsys.readouterr().out
  # Nothing half-written is left.
  assert [p.name for p in (output / 'mask').iterdir()] == ['a.png']


def test_a_second_run_does_what_is_missing(workdir, tmp_path, capsys):
  source, output = tmp_path / 'photos', tmp_path / 'out'
  source.mkdir()
  for name in 'abc':
    _photo((40, 24)).save(source / f'{name}.jpg')
  _run(source, output, workdir, save=['mask'])
  first = [json.loads(line) for line in _read_report(output)]
  assert [line['status'] for line in first] == ['done'] * 3
  assert {line['width'] for line in first} == {40}
  assert all(0 <= line['foreground'] <= 1 for line in first)
  (output / 'mask/b.png').unlink()
  kept = (output / 'mask/a.png').stat().st_mtime_ns
  capsys.readouterr()
  _run(source, output, workdir, save=['mask'])
  assert '3 of 3 photos done (2 of them before)' in capsys.readouterr().out
  assert (output / 'mask/a.png').stat().st_mtime_ns == kept
  assert (output / 'mask/b.png').exists()
  second = {
    pathlib.Path(line['photo']).name: line
    for line in map(json.loads, _read_report(output))
  }
  assert {name: line['status'] for name, line in second.items()} == {
    'a.jpg': 'skipped',
    'b.jpg': 'done',
    'c.jpg': 'skipped',
  }
  # What the first run found out is still there.
  assert second['a.jpg']['foreground'] == first[0]['foreground']
  _run(source, output, workdir, save=['mask'], overwrite=True)
  assert (output / 'mask/a.png').stat().st_mtime_ns > kept


def _read_report(output):
  return (output / 'report.jsonl').read_text(encoding='utf-8').splitlines()


def test_shards_share_a_folder(workdir, tmp_path):
  source, output = tmp_path / 'photos', tmp_path / 'out'
  source.mkdir()
  for index in range(5):
    _photo((20, 20)).save(source / f'{index}.png')
  _photo((20, 20)).save(source / '0.jpg')  # Shares a stem across shards.
  for shard, expected in (('0/2', 3), ('1/2', 6)):
    _run(source, output, workdir, save=['mask'], shard=shard)
    assert len(list((output / 'mask').iterdir())) == expected
  assert (output / 'mask/0.jpg.png').exists()
  assert (output / 'report-1-of-2.jsonl').exists()


def test_standard_input_and_output(workdir, tmp_path):
  file = io.BytesIO()
  _photo((40, 24)).save(file, 'jpeg')
  command = [
    sys.executable,
    '-m',
    'rmbg_jax.predict',
    '--input=-',
    '--output=-',
  ]
  done = subprocess.run(
    [*command, f'--checkpoint={workdir}', '--save=cutout', '--format=webp'],
    input=file.getvalue(),
    capture_output=True,
    check=True,
  )
  with Image.open(io.BytesIO(done.stdout)) as image:
    assert (image.format, image.mode, image.size) == ('WEBP', 'RGBA', (40, 24))


def test_an_interrupted_run_ends_cleanly_and_goes_on(
  workdir, tmp_path, monkeypatch, capsys
):
  source, output = tmp_path / 'photos', tmp_path / 'out'
  source.mkdir()
  for index in range(30):
    _photo((20, 20), index).save(source / f'{index:02}.png')
  predict_batch = BackgroundRemover.predict

  def interrupt(self, batch):
    os.kill(os.getpid(), signal.SIGINT)
    return predict_batch(self, batch)

  monkeypatch.setattr(BackgroundRemover, 'predict', interrupt)
  with pytest.raises(SystemExit) as exit_info:
    _run(source, output, workdir, save=['mask'])
  assert exit_info.value.code == 130
  assert 'Interrupted.' in capsys.readouterr().out
  done = {path.name for path in (output / 'mask').iterdir()}
  assert 0 < len(done) < 30
  assert len(_read_report(output)) == len(done)
  monkeypatch.undo()
  _run(source, output, workdir, save=['mask'])
  assert len(list((output / 'mask').iterdir())) == 30
  assert len(_read_report(output)) == 30


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    ({'save': ['mask', 'matte']}, '--save=mask,matte: choose from mask'),
    ({'input': 'absent'}, '--input=absent: no such file or folder'),
    ({'checkpoint': 'absent'}, 'absent: no such checkpoint'),
    ({'save': ['composite']}, '--save=composite needs --background'),
    ({'format': 'jpeg'}, 'JPEG has no transparency'),
    ({'background': 'nowhere.png'}, '--background=nowhere.png: neither'),
    ({'shard': '2/2'}, '--shard=2/2: pass i/n'),
    ({'scales': ['big']}, '--scales=big: pass numbers'),
    ({'threshold': 2.0}, 'threshold must be in'),
    ({'output': '-'}, 'pass --input=- and --output=- together'),
    ({'input': '-', 'output': '-'}, 'exactly one kind'),
  ],
)
def test_wrong_flags(flags, message, workdir, tmp_path):
  _photo((4, 4)).save(tmp_path / 'photo.png')
  with pytest.raises(SystemExit, match=message):
    _run(
      flags.pop('input', tmp_path / 'photo.png'),
      flags.pop('output', tmp_path / 'out'),
      workdir,
      **flags,
    )
  assert not (tmp_path / 'out').exists()


def test_output_inside_input_and_an_empty_folder(workdir, tmp_path):
  with pytest.raises(SystemExit, match='is inside --input'):
    _run(tmp_path, tmp_path / 'out', workdir)
  with pytest.raises(SystemExit, match='no photos in it'):
    _run(tmp_path, tmp_path.parent / 'out', workdir)


def test_a_workdir_s_other_checkpoints(workdir):
  latest = load_model(f'{workdir}@latest')
  step = latest.description['step']
  assert load_model(f'{workdir}@{step}').description['step'] == step
  with pytest.raises(FileNotFoundError, match='@7: no such checkpoint. There'):
    load_model(f'{workdir}@7')


def test_importing_starts_nothing():
  code = (
    'import sys, rmbg_jax; print(rmbg_jax.__version__);'
    'sys.exit("jax" in sys.modules or "PIL" in sys.modules)'
  )
  assert subprocess.run([sys.executable, '-c', code]).returncode == 0
  code = (
    'import sys, rmbg_jax.remover;'
    'sys.exit(any(name in sys.modules for name in'
    ' ("orbax", "grain", "tensorflow", "tensorflow_datasets")))'
  )
  assert subprocess.run([sys.executable, '-c', code]).returncode == 0


def test_normalised_input_is_what_training_saw(workdir):
  """Training and prediction share one preprocessing, from the checkpoint."""
  loaded = load_model(workdir)
  config = helpers.make_config('')
  expected = preprocessing.make_preprocessing(
    config.model.encoder.dialect, size=config.data.size
  )
  assert loaded.preprocessing == expected
  assert loaded.preprocessing.normalize(
    jnp.zeros((1, 1, 1, 3), jnp.uint8)
  ).shape == (1, 1, 1, 3)
