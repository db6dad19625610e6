"""The refiner's training: its data, and resuming."""

import os
import re
import signal

import jax
import numpy as np
import pytest
from PIL import Image

from configs import demo
from configs import refiner as refiner_config
from data_pipelines.datasets import folder
from data_pipelines.io import errors
from rmbg_jax.inference import learned
from rmbg_jax.refining import composing, training, windows
from rmbg_jax.training import loop
from rmbg_jax.weights import load
from tests.support import colour_network, helpers


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  """A training of seconds, on four drawn photos with soft edges."""
  folder = tmp_path_factory.mktemp('refiner')
  for name in ('data/Images', 'data/Masks', 'backgrounds'):
    (folder / name).mkdir(parents=True)
  colour_network.save_release(folder / 'net.safetensors', (2, 1))
  for index in range(4):
    rows, columns = np.mgrid[:70, :90]
    distance = np.hypot(rows - 30 - index, columns - 40)
    alpha = np.clip((25 - distance) / 4, 0, 1)[..., None]
    photo = alpha * (220, 20, 30) + (1 - alpha) * (10, 20, 200)
    name = f'{index}.png'
    Image.fromarray(photo.astype(np.uint8)).save(folder / 'data/Images' / name)
    Image.fromarray((alpha[..., 0] * 255).astype(np.uint8)).save(
      folder / 'data/Masks' / name
    )
    helpers.make_photo((60, 80), index).save(folder / 'backgrounds' / name)
  config = refiner_config.get_config()
  config.model.filters = (4, 4, 4, 4)
  config.data.dir = str(folder / 'data')
  config.data.backgrounds = str(folder / 'backgrounds')
  config.data.sharp_dir = str(folder / 'data')
  config.data.coarse = (str(folder / 'net.safetensors'),)
  config.data.update({'count': 3, 'side': 32, 'batch_size': 2, 'fold': 1})
  config.optimizer.update({'steps': 6, 'warmup_steps': 1})
  config.train.save_every = 4
  return config


def test_resumed_equals_uninterrupted(config, tmp_path, monkeypatch):
  training.train(config, tmp_path / 'whole')
  draw, drawn = windows.WindowSource.draw, []

  def failing(source, count, seed):
    drawn.append(seed)
    if seed == [42, 5]:
      raise RuntimeError('the power fails')
    return draw(source, count, seed)

  monkeypatch.setattr(windows.WindowSource, 'draw', failing)
  with pytest.raises(RuntimeError, match='power'):
    training.train(config, tmp_path / 'parts')
  monkeypatch.undo()
  training.train(config, tmp_path / 'parts')
  whole, parts = (
    load.load_model(tmp_path / name).variables for name in ('whole', 'parts')
  )
  jax.tree.map(np.testing.assert_array_equal, whole, parts)
  refiner = learned.load_refiner(
    str(tmp_path / 'whole'), runtime='openvino', precision='float32', threads=1
  )
  photo = colour_network.draw()
  assert refiner.refine(np.eye(32, dtype=np.float32), photo).shape == (100, 150)


def test_held_out_photos_are_not_seen(config, tmp_path, monkeypatch):
  seen = []
  made = windows.WindowSource.__init__

  def note(source, compositions, **options):
    seen.append({one.name for one in compositions})
    made(source, compositions, **options)

  monkeypatch.setattr(windows.WindowSource, '__init__', note)
  config = config.copy_and_resolve_references()
  config.data.sharp_dir = ''
  config.optimizer.steps = 1
  training.train(config, tmp_path)
  assert seen == [{'0000_0', '0002_2', '0003_3'}, {'0001_1'}]
  config.data.fold = 2
  with pytest.raises(errors.UserError, match=r'config.data.fold: 1 in the ch'):
    training.train(config, tmp_path)


def test_windows_have_the_truth_of_their_photo(config, tmp_path):
  source, _ = training._load_windows(
    config, folder.read_folder(config.data.dir), tmp_path
  )
  drawn = source.draw(40, [1, 2])
  assert drawn.colours.shape == (40, 32, 32, 3)
  assert drawn.coarse.shape == (40, 16, 16)
  # Red is the foreground, whatever lies behind.
  red = drawn.colours[..., 0] > drawn.colours[..., 2] + 100
  assert drawn.alpha[red].mean() > 0.8
  again = source.draw(40, [1, 2])
  for first, second in zip(drawn, again, strict=True):
    np.testing.assert_array_equal(first, second)


def test_photos_alone_are_windows_too(config, tmp_path):
  config = config.copy_and_resolve_references()
  config.data.count, config.data.sharp_dir = 1, ''
  source, _ = training._load_windows(
    config, folder.read_folder(config.data.dir), tmp_path
  )
  assert source.draw(8, [1, 2]).alpha.shape == (8, 32, 32)


def test_each_command_has_its_configurations(config, tmp_path):
  assert '--config=configs/refiner.py' in refiner_config.__doc__
  with pytest.raises(errors.UserError, match=r'python -m rmbg_jax\.train_ref'):
    loop.train_and_evaluate(config, tmp_path)
  with pytest.raises(errors.UserError, match=r'python -m rmbg_jax\.main;'):
    training.train(demo.get_config(), tmp_path)


def test_a_stopped_training_goes_on(config, tmp_path, monkeypatch):
  draw = windows.WindowSource.draw

  def stopping(source, count, seed):
    if seed == [42, 3]:
      os.kill(os.getpid(), signal.SIGTERM)
    return draw(source, count, seed)

  monkeypatch.setattr(windows.WindowSource, 'draw', stopping)
  with pytest.raises(errors.Stopped, match='at step'):
    training.train(config, tmp_path)
  monkeypatch.undo()
  training.train(config, tmp_path)
  assert load.load_model(f'{tmp_path}@latest').description['step'] == 6


def test_other_photos_are_composed_anew(config, tmp_path):
  pairs = folder.read_folder(config.data.dir)
  options = {
    'backgrounds': [pair.image_path for pair in pairs],
    'directory': tmp_path,
    'count': 2,
    'checkpoints': (config.data.coarse[0],) * 2,
    'reduce': 1,
    'seed': 1,
  }
  made = composing.compose_all(pairs[:1], **options)
  times = [one.photo.stat().st_mtime_ns for one in made]
  assert all(len(set(one.coarse)) == 2 for one in made)
  again = composing.compose_all(pairs[:1], **options)
  assert [one.photo.stat().st_mtime_ns for one in again] == times
  for changed in ({'seed': 2}, {'backgrounds': options['backgrounds'][1:]}):
    others = composing.compose_all(pairs[:1], **(options | changed))
    assert not {one.photo for one in others} & {one.photo for one in made}


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('data.side', 40),
    ('data.fold', 4),
    ('data.coarse', ()),
    ('data.limit', -3),
    ('data.sharp_limit', 0),
    ('optimizer.warmup_steps', -1),
    ('optimizer.learning_rate', -1.0),
    ('train.save_every', 0),
  ],
)
def test_settings_that_cannot_be_are_named(config, tmp_path, key, value):
  config = config.copy_and_resolve_references()
  config.update_from_flattened_dict({key: value})
  with pytest.raises(
    errors.UserError, match=rf'config\.{key}={re.escape(str(value))}'
  ):
    training.train(config, tmp_path)


@pytest.mark.parametrize(('fold', 'count'), [(0, 1), (2, 2)])
def test_a_fold_without_photos_is_refused(
  fold, count, config, tmp_path, monkeypatch
):
  pairs = folder.read_folder(config.data.dir)[:count]
  monkeypatch.setattr(training.folder, 'read_folder', lambda directory: pairs)
  config = config.copy_and_resolve_references()
  config.data.fold = fold
  with pytest.raises(errors.UserError, match=f'fold={fold}: none or all of th'):
    training.train(config, tmp_path)


@pytest.mark.parametrize('key', ['dir', 'backgrounds'])
def test_missing_folders_are_named(config, tmp_path, key):
  config = config.copy_and_resolve_references()
  config.data[key] = ''
  with pytest.raises(errors.UserError, match=rf'config\.data\.{key} is not'):
    training.train(config, tmp_path)
