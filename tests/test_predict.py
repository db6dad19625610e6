"""From a checkpoint of any kind to files of the photos' own size."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import flagsaver
from PIL import Image

from rmbg_jax import BackgroundRemover, load_model, predict, remover, train
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


def test_cutout_keeps_the_colours(cutter):
  photo = _photo((57, 33))
  result = cutter.remove(photo)
  assert result.mode == 'RGBA'
  pixels = np.asarray(result)
  np.testing.assert_array_equal(pixels[..., :3], np.asarray(photo))
  np.testing.assert_array_equal(
    pixels[..., 3], np.round(cutter.alpha(photo) * 255)
  )


def test_any_kind_of_image_gives_the_same(cutter, tmp_path):
  photo = _photo((40, 24))
  path = tmp_path / 'photo.png'
  photo.save(path)
  expected = cutter.alpha(photo)
  for kind in (path, str(path), path.read_bytes(), np.asarray(photo)):
    np.testing.assert_array_equal(cutter.alpha(kind), expected)
  with pytest.raises(ValueError, match=r'\(24, 40\) of float64'):
    cutter.alpha(np.zeros((24, 40)))


def test_batches_equal_single_photos(cutter):
  photos = [_photo((40, 24), seed) for seed in range(2)]
  for batched, photo in zip(cutter.alphas(photos), photos, strict=True):
    np.testing.assert_allclose(batched, cutter.alpha(photo), atol=1e-5)
  with pytest.raises(ValueError, match=r'batch_size \(=2\)'):
    cutter.alphas(photos * 2)


def test_side_by_side_is_photo_line_product():
  photo = _photo((4, 3))
  alpha = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
  picture = np.asarray(remover.side_by_side(photo, alpha))
  pixels = np.asarray(photo)
  np.testing.assert_array_equal(picture[:, :4], pixels)
  assert (picture[:, 4:14] == 128).all()
  np.testing.assert_array_equal(
    picture[:, 14:], np.round(pixels * alpha[..., None])
  )


def test_a_folder_is_done_and_the_broken_photo_named(workdir, tmp_path, capsys):
  source, output = tmp_path / 'photos', tmp_path / 'out'
  (source / 'sub dir').mkdir(parents=True)
  _photo((40, 24)).save(source / 'a.jpg')
  _photo((30, 50)).save(source / 'a.png')
  _photo((20, 20)).save(source / 'sub dir' / 'ü.webp')
  (source / 'broken.jpg').write_bytes(b'\xff\xd8\xff')
  (source / 'notes.txt').touch()
  with pytest.raises(SystemExit) as exit_info:
    _run(source, output, workdir, save=list(predict.KINDS))
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
  save = Image.Image.save

  def fail(self, path, *args, **kwargs):
    save(self, path, *args, **kwargs)
    if 'b.png' in str(path):
      raise OSError(28, 'No space left on device')

  monkeypatch.setattr(Image.Image, 'save', fail)
  with pytest.raises(SystemExit):
    _run(source, output, workdir, save=['mask'])
  assert 'b.jpg: [Errno 28]' in capsys.readouterr().out
  # Nothing half-written is left.
  assert [p.name for p in (output / 'mask').iterdir()] == ['a.png']


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    ({'checkpoint': None}, '--checkpoint is missing'),
    ({'save': ['mask', 'matte']}, '--save=mask,matte: choose from mask'),
    ({'input': 'absent'}, '--input=absent: no such file or folder'),
    ({'checkpoint': 'absent'}, 'absent: no such checkpoint'),
  ],
)
def test_wrong_flags(flags, message, workdir, tmp_path):
  _photo((4, 4)).save(tmp_path / 'photo.png')
  with pytest.raises((SystemExit, Exception), match=message):
    _run(
      flags.pop('input', tmp_path / 'photo.png'),
      tmp_path / 'out',
      workdir,
      **flags,
    )
  assert not (tmp_path / 'out').exists()


def test_output_inside_input_and_an_empty_folder(workdir, tmp_path):
  with pytest.raises(Exception, match='is inside --input'):
    _run(tmp_path, tmp_path / 'out', workdir)
  with pytest.raises(SystemExit, match='no photos in it'):
    _run(tmp_path, tmp_path.parent / 'out', workdir)


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
  expected = train.make_preprocessing(
    config.model.encoder.dialect, size=config.data.size
  )
  assert loaded.preprocessing == expected
  assert loaded.preprocessing.normalize(
    jnp.zeros((1, 1, 1, 3), jnp.uint8)
  ).shape == (1, 1, 1, 3)
