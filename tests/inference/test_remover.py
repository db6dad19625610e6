"""From a checkpoint of any kind to alpha and cut-outs in Python."""

import dataclasses
import functools
import io
import math
import os
import subprocess
import sys
from concurrent import futures

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageCms
from scipy import special

from data_pipelines.io import errors
from rmbg_jax import BackgroundRemover, choices, export, load_model
from rmbg_jax.inference import refinement
from rmbg_jax.models import preprocessing
from rmbg_jax.training import loop
from rmbg_jax.weights import release
from tests.support import helpers


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run')
  config = helpers.make_config(workdir / 'data', **{'train.epochs': 1})
  loop.train_and_evaluate(config, workdir)
  return workdir


@pytest.fixture(scope='module')
def cutter(workdir):
  return BackgroundRemover.from_checkpoint(workdir, batch_size=2)


def test_release_file_equals_the_workdir(workdir, tmp_path):
  loaded = load_model(workdir)
  path = tmp_path / 'model.safetensors'
  export.save_export(path, loaded, dtype='float32')
  again = load_model(path)
  assert again.description['training_data'] == ['demo']
  assert str(workdir) not in str(again.description)
  assert (again.model, again.preprocessing) == (
    loaded.model,
    loaded.preprocessing,
  )
  jax.tree.map(np.testing.assert_array_equal, again.variables, loaded.variables)
  # In float16 it is half as large and nearly the same.
  half = tmp_path / 'half.safetensors'
  export.save_export(half, loaded)
  assert half.stat().st_size < 0.7 * path.stat().st_size
  photo = helpers.make_photo((40, 30))
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
  # A path, not the name that the message lists.
  with pytest.raises(FileNotFoundError, match=r'^\./u2netp: no such'):
    load_model('./u2netp')
  with pytest.raises(FileNotFoundError, match='no checkpoints here'):
    load_model(tmp_path)
  path = tmp_path / 'model.pkl'
  path.touch()
  with pytest.raises(ValueError, match='unknown kind of checkpoint'):
    load_model(path)


@pytest.mark.parametrize('size', [(1, 1), (57, 33), (32, 32), (5, 200)])
def test_alpha_has_the_photos_size_and_range(cutter, size):
  alpha = cutter.alpha(helpers.make_photo(size))
  assert alpha.shape == (size[1], size[0])
  assert alpha.dtype == np.float32
  assert 0 <= alpha.min() <= alpha.max() <= 1


def test_cutout_keeps_the_colours_where_it_is_opaque(cutter):
  photo = helpers.make_photo((57, 33))
  profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
  photo.info['icc_profile'] = profile
  result = cutter.remove(photo)
  assert result.mode == 'RGBA'
  content = io.BytesIO()
  result.save(content, 'png')
  with Image.open(content) as saved:
    assert saved.info['icc_profile'] == profile
  pixels = np.asarray(result)
  alpha = cutter.alpha(photo)
  np.testing.assert_array_equal(pixels[..., 3], np.round(alpha * 255))
  same = (pixels[..., :3] == np.asarray(photo)).all(axis=-1)
  assert same[(alpha > 0.999) | (alpha < 0.001)].all()


def test_any_kind_of_image_gives_the_same_and_its_own_kind_back(
  cutter, tmp_path
):
  photo = helpers.make_photo((40, 24))
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
  photos = [helpers.make_photo((40, 24 + seed), seed) for seed in range(6)]
  assert len(photos) > cutter.batch_size
  for batched, photo in zip(cutter.alphas(photos), photos, strict=True):
    np.testing.assert_allclose(batched, cutter.alpha(photo), atol=1e-5)
  with pytest.raises(ValueError, match=rf'batch_size \(={cutter.batch_size}\)'):
    cutter.predict(np.zeros((5, 32, 32, 3), np.uint8))
  # Not a photo for each letter.
  with pytest.raises(errors.UserError, match='alphas takes a list'):
    cutter.alphas('photo.jpg')


def test_threads_may_share_a_remover(cutter):
  photos = [helpers.make_photo((40, 24), seed) for seed in range(8)]
  expected = [cutter.alpha(photo) for photo in photos]
  with futures.ThreadPoolExecutor(4) as pool:
    for actual, alpha in zip(
      pool.map(cutter.alpha, photos), expected, strict=True
    ):
      np.testing.assert_array_equal(actual, alpha)


def _average(*probs):
  """The logits' mean, none of them surer than .999."""
  logits = [np.clip(special.logit(p), -6.9, 6.9) for p in probs]
  return special.expit(np.mean(logits, axis=0))


def _see_small(loaded, large):
  """What the network says of a photo at 32x32, at 64x64."""
  small = jax.image.resize(large.astype(np.float32), (1, 32, 32, 3), 'bilinear')
  apply = jax.jit(functools.partial(loaded.model.apply, train=False))
  logits = apply(loaded.variables, loaded.preprocessing.normalize(small))[-1]
  logits = np.clip(logits[..., 0], -6.9, 6.9)
  return special.expit(jax.image.resize(logits, (1, 64, 64), 'bilinear'))


def test_a_forked_process_is_told_so(cutter, monkeypatch):
  monkeypatch.setattr(os, 'getpid', lambda: -1)
  with pytest.raises(RuntimeError, match='before the process was forked'):
    cutter.alpha(helpers.make_photo((40, 30)))


def test_flips_and_scales_are_averaged(workdir):
  loaded = load_model(workdir)
  batch = np.asarray(helpers.make_photo((32, 32)))[None]
  plain = BackgroundRemover(loaded).predict(batch)
  mirrored = BackgroundRemover(loaded).predict(batch[:, :, ::-1])[:, :, ::-1]
  flipped = BackgroundRemover(loaded, flip=True).predict(batch)
  np.testing.assert_allclose(flipped, _average(plain, mirrored), atol=1e-4)
  assert np.abs(flipped - plain).max() > 1e-4
  # The largest scale is the size that photos are given at.
  double = BackgroundRemover(loaded, scales=(1.0, 2.0))
  assert double.resize([helpers.make_photo((9, 9))]).shape == (1, 64, 64, 3)
  large = np.asarray(helpers.make_photo((64, 64)))[None]
  whole = BackgroundRemover(loaded, scales=(2.0,)).predict(large)
  actual = double.predict(large)
  expected = _average(whole, _see_small(loaded, large))
  np.testing.assert_allclose(actual, expected, atol=1e-4)
  assert np.abs(actual - whole).max() > 1e-2


def test_every_second_scale_is_mirrored_as_the_checkpoint_asks(workdir):
  loaded = load_model(workdir)
  large = np.asarray(helpers.make_photo((64, 64)))[None]
  double = BackgroundRemover(loaded, scales=(2.0,))
  turned = double.predict(large[:, :, ::-1])[:, :, ::-1]
  expected = _average(_see_small(loaded, large), turned)
  asked = {'scales': [1.0, 2.0], 'flip': True}
  own = dataclasses.replace(
    loaded, description={**loaded.description, 'prediction': asked}
  )
  for remover in (
    BackgroundRemover(loaded, scales=(1.0, 2.0), flip=True),
    BackgroundRemover(own),
  ):
    np.testing.assert_allclose(remover.predict(large), expected, atol=1e-4)
  plain = BackgroundRemover(loaded, scales=(1.0, 2.0)).predict(large)
  assert np.abs(expected - plain).max() > 1e-3
  # What is said replaces all that the checkpoint asks for.
  alone = BackgroundRemover(own, scales=(2.0,)).predict(large)
  np.testing.assert_allclose(alone, double.predict(large), atol=1e-5)
  assert own.compute_digest() != loaded.compute_digest()


def test_partners_are_averaged_with_the_network(workdir):
  loaded = load_model(workdir)
  variables = jax.tree.map(lambda x: x * 0.9, loaded.variables)
  other = dataclasses.replace(loaded, variables=variables)
  both = dataclasses.replace(loaded, partners=(other,))
  batch = np.asarray(helpers.make_photo((32, 32)))[None]
  one, two, mean = (
    BackgroundRemover(network).predict(batch)
    for network in (loaded, other, both)
  )
  assert np.abs(one - two).max() > 1e-3
  np.testing.assert_allclose(mean, _average(one, two), atol=1e-4)
  assert len({n.compute_digest() for n in (loaded, other, both)}) == 3


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({'scales': (0.0,)}, 'scales must be above 0 and at most 4, got 0.0'),
    ({'scales': (math.inf,)}, 'scales must be above 0 and at most 4, got inf'),
    ({'scales': ()}, r'scales=\(\)'),
    ({'batch_size': 0}, 'batch_size=0: pass 1'),
    ({'max_pixels': 0}, 'max_pixels=0: pass 1'),
  ],
)
def test_impossible_parameters_are_named(workdir, values, message):
  with pytest.raises(errors.UserError, match=message) as error:
    BackgroundRemover(load_model(workdir), **values)
  assert '--' not in str(error.value)


def test_the_limit_of_pixels_may_be_raised(workdir, tmp_path, monkeypatch):
  # As if the photo had more than Pillow's and this project's own limits.
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 400)
  monkeypatch.setattr(choices, 'MAX_PIXELS', 900)
  path = tmp_path / 'photo.png'
  helpers.make_photo((40, 30)).save(path)
  loaded = load_model(workdir)
  low = BackgroundRemover(loaded, max_pixels=100)
  for use in (low.alpha, low.remove):
    with pytest.raises(errors.UserError) as error:
      use(path)
    assert '--' not in str(error.value)
  high = BackgroundRemover(loaded, max_pixels=1200)
  assert high.alpha(path).shape == (30, 40)
  assert high.remove(path.read_bytes())
  with pytest.raises(errors.UserError, match='raise max_pixels'):
    BackgroundRemover(loaded, max_pixels=1199).alpha(path)


def test_refinements_may_share_a_network(cutter):
  photo = helpers.make_photo((40, 24))
  alpha = cutter.alpha(photo)
  middle = float(np.median(alpha))
  hard = cutter.with_refinement(refinement.Refinement(threshold=middle))
  np.testing.assert_array_equal(hard.alpha(photo), alpha >= middle)
  np.testing.assert_array_equal(cutter.alpha(photo), alpha)


def test_what_was_transparent_stays_so(cutter):
  photo = helpers.make_photo((40, 24))
  opacity = Image.new('L', photo.size, 255)
  opacity.paste(0, (0, 0, 20, 24))
  transparent = photo.copy()
  transparent.putalpha(opacity)
  alpha = cutter.alpha(transparent)
  assert (alpha[:, :20] == 0).all() and alpha[:, 20:].max() > 0


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
    'import sys, rmbg_jax.inference.remover;'
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
