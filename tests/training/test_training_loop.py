"""Whole trainings: logs, starting points, refusals."""

import json
import re
import types

import jax
import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto import event_pb2

from data_pipelines.datasets import demo
from data_pipelines.io import errors
from rmbg_jax import load_model
from rmbg_jax.training import logs, loop, messages, setup, state
from rmbg_jax.weights import checkpoints
from tests.support import commands, helpers


@pytest.fixture(scope='module', autouse=True)
def _shared_programs():
  with helpers.sharing_programs():
    yield


@pytest.fixture(scope='module')
def workdir(tmp_path_factory, data_dir):
  """A finished training of two epochs of two steps."""
  workdir = tmp_path_factory.mktemp('run')
  config = helpers.make_config(
    data_dir, **{'train.tensorboard': True, 'train.profile_steps': (2, 2)}
  )
  loop.train_and_evaluate(config, workdir)
  return workdir


def test_leaves_logs_pictures_and_checkpoints(workdir):
  rows = helpers.read_log(workdir)
  assert list(rows[0])[:4] == ['epoch', 'learning_rate', 'loss', 'val_loss']
  assert [row['epoch'] for row in rows] == ['0', '1']
  assert float(rows[1]['loss']) < float(rows[0]['loss'])
  lines = (workdir / 'log.jsonl').read_text().splitlines()
  for line, row in zip(lines, rows, strict=True):
    assert {k: str(v) for k, v in json.loads(line).items()} == row
  for name in ('epoch_0000.png', 'epoch_0001.png'):
    with Image.open(workdir / 'pictures' / name) as grid:
      # Photo, truth and four outputs, for three images.
      assert grid.size == (6 * 32, 3 * 32)
  with checkpoints.CheckpointStore(workdir, writable=False) as store:
    assert store.latest_step == 2 * 2
    description = store.read_description(store.latest_step)
  assert description['preprocessing']['size'] == [32, 32]
  assert description['config']['data']['batch_size'] == 8
  assert description['training_data'] == ['demo']


def test_writes_for_tensorboard_and_the_profiler(workdir):
  (path,) = (workdir / 'tensorboard').iterdir()
  content, tags = path.read_bytes(), set()
  while content:  # Records: length, checksum, event, checksum.
    length = int.from_bytes(content[:8], 'little')
    event = event_pb2.Event.FromString(content[12 : 12 + length])
    tags |= {(value.tag, event.step) for value in event.summary.value}
    content = content[16 + length :]
  assert {('val_loss', 0), ('val_loss', 1), ('validation', 1)} <= tags
  assert list((workdir / 'profile').rglob('*.xplane.pb'))


def test_history_is_drawn(workdir, tmp_path):
  output = tmp_path / 'plots' / 'history.png'
  done = commands.run('scripts/plot_history.py', workdir, f'--output={output}')
  assert done.returncode == 0
  with Image.open(output) as picture:
    assert picture.size == (1200, 840)
  wrong = commands.run('scripts/plot_history.py', tmp_path)
  assert wrong.returncode == 1
  assert 'log.jsonl: no log' in wrong.stderr


@pytest.mark.parametrize('cut', ['{"epoch": 1, "lo', '[]', '7'])
def test_a_log_that_is_cut_off_is_named(cut, tmp_path):
  (tmp_path / 'log.jsonl').write_text(f'{{"epoch": 0}}\n{cut}')
  with pytest.raises(
    ValueError, match=r'log\.jsonl, line 2: damaged .* Remove'
  ):
    logs.Reporter(tmp_path, first_epoch=2, tensorboard=False, active=True)


def test_a_finished_training_stays_as_it_is(workdir, data_dir):
  before = (workdir / 'log.csv').read_bytes()
  row = loop.train_and_evaluate(helpers.make_config(data_dir), workdir)
  assert (workdir / 'log.csv').read_bytes() == before
  assert row['epoch'] == 1


def test_a_process_of_padding_alone_draws_too():
  """Of two processes, one has no part of a single validation image."""
  batch = {
    'image': np.zeros((4, 16, 16, 3), np.uint8),
    'alpha': np.zeros((4, 16, 16, 1), np.uint8),
    'weight': np.zeros(4, np.float32),
  }
  training = types.SimpleNamespace(
    _first_batch=batch,
    eval_step=lambda variables, batch: ({}, [batch['alpha']]),
    train_state=types.SimpleNamespace(eval_variables={}),
    mesh=state.make_mesh(),
    config=helpers.make_config(''),
  )
  assert loop.Training._make_grid(training).shape == (16, 3 * 16, 3)


def test_a_warm_up_as_long_as_the_training_is_told(data_dir, tmp_path):
  for warmup, is_told in ((3, False), (4, True)):
    config = helpers.make_config(data_dir, **{'optimizer.warmup_steps': warmup})
    text = messages.describe_beginning(setup.make_components(config), tmp_path)
    assert ('ends after 4 steps: lower config.opt' in text) == is_told


def test_stops_early(data_dir, tmp_path, capsys, monkeypatch):
  scores = dict.fromkeys(('val_loss', 'val_mae', 'val_iou'), 0.5)
  monkeypatch.setattr(loop.validation, 'evaluate', lambda *_, **__: scores)
  config = helpers.make_config(
    data_dir, **{'train.epochs': 9, 'train.early_stopping': 1}
  )
  row = loop.train_and_evaluate(config, tmp_path)
  # The first epoch is the best; the second is no better.
  assert row['epoch'] == 1
  assert 'Stopped early' in capsys.readouterr().out
  with checkpoints.CheckpointStore(tmp_path, writable=False) as store:
    assert store.best_step == 2
  assert loop.train_and_evaluate(config, tmp_path)['epoch'] == 1
  config.train.early_stopping = 0
  assert 'learning rate is' not in capsys.readouterr().out
  config.train.epochs = 3
  assert loop.train_and_evaluate(config, tmp_path)['epoch'] == 2
  said = re.search(
    'epochs was 9 and is 3: .* rate is (.*) instead of (.*), as the cosine',
    capsys.readouterr().out,
  )
  assert said and float(said[1]) < float(said[2])


def test_starts_from_the_weights_of_another_training(
  workdir, data_dir, tmp_path, capsys
):
  config = helpers.make_config(
    data_dir,
    **{
      'init_from': str(workdir),
      'optimizer.learning_rate': 0.0,
      'train.epochs': 1,
    },
  )
  loop.train_and_evaluate(config, tmp_path)
  jax.tree.map(
    np.testing.assert_array_equal,
    load_model(tmp_path).variables['params'],
    load_model(workdir).variables['params'],
  )
  with checkpoints.CheckpointStore(tmp_path, writable=False) as store:
    assert store.latest_step == 2  # A new training, from step 0.
  (line,) = [
    line
    for line in capsys.readouterr().out.splitlines()
    if line.startswith('Before the first step: ')
  ]
  assert 'val_loss' in line and 'val_iou' in line


def test_another_input_than_that_of_the_first_weights_is_said(
  workdir, data_dir
):
  config = helpers.make_config(data_dir, init_from=str(workdir))
  components = setup.make_components(config)
  own = components.preprocessing.normalization
  assert own and messages.describe_other_input(config, components) == ''
  config.data.normalization = 'original'
  other = messages.describe_other_input(config, setup.make_components(config))
  assert 'this training feeds original' in other
  assert other.endswith(f'--config.data.normalization={own}.')
  config.init_from = ''
  assert messages.describe_other_input(config, components) == ''


def test_statistics_move_slowly_from_given_weights(workdir, data_dir):
  momenta = []
  for changes in (
    {},
    {'init_from': str(workdir)},
    {'init_from': str(workdir), 'init_bn_momentum': 0.0},
  ):
    config = helpers.make_config(
      data_dir, **{'model.bn_momentum': 0.9, **changes}
    )
    components = setup.make_components(config)
    momenta.append(components.model.network.bn_momentum)
    architecture = components.description['architecture']
    assert architecture['bn_momentum'] == momenta[-1]
    assert setup.settle(components, config).model == components.model
  assert momenta == [0.9, 0.99, 0.9]


def test_what_the_first_weights_have_seen_is_said(workdir, data_dir, tmp_path):
  config = helpers.make_config(data_dir, init_from=str(workdir))
  components = setup.make_components(config)
  with checkpoints.CheckpointStore(workdir, writable=False) as store:
    before = store.read_description(store.latest_step)['training_data']
  assert before
  components.description['training_data'] = ['mine']
  assert setup.find_training_data(config, components) == sorted(
    {'mine', *before}
  )
  config.init_from = ''
  assert setup.find_training_data(config, components) == ['mine']


def test_starting_points_that_do_not_fit_are_refused(
  workdir, data_dir, tmp_path
):
  absent = tmp_path / 'absent.h5'
  config = helpers.make_config(data_dir, init_from=str(absent))
  with pytest.raises(
    FileNotFoundError, match=r'absent\.h5: no such checkpoint'
  ):
    loop.train_and_evaluate(config, tmp_path / 'run')
  config = helpers.make_config(data_dir, init_from='released')
  with pytest.raises(ValueError, match='missing: params/encoder'):
    loop.train_and_evaluate(config, tmp_path / 'run')
  config = helpers.make_config(
    data_dir, **{'init_from': str(workdir), 'model.bridge.filters': 16}
  )
  with pytest.raises(ValueError, match=r'params/bridge/conv_out/kernel is'):
    loop.train_and_evaluate(config, tmp_path / 'run')


@pytest.mark.parametrize(
  ('overrides', 'lines'),
  [
    (
      {'model.bridge.filters': 16},
      [
        'architecture.bridge.filters: 8 in the checkpoint, 16 in the',
        'config.model.bridge.filters: 8 in',
      ],
    ),
    (
      {'optimizer.learning_rate': 1.0, 'seed': 7},
      ['config.optimizer.learning_rate: 0.003 in', 'config.seed: 42 in'],
    ),
  ],
)
def test_other_settings_are_refused_by_name(
  overrides, lines, workdir, data_dir
):
  config = helpers.make_config(data_dir, **overrides)
  with pytest.raises(ValueError) as error:
    loop.train_and_evaluate(config, workdir)
  for line in lines:
    assert line in str(error.value)


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    ({'data.batch_size': 6}, r'batch_size \(=6\) must be a multiple'),
    ({'data.batch_size': 64}, r'batch_size \(=64\) or add images'),
    ({'optimizer.accumulation': 3}, r'accumulation \(=3\)'),
    ({'optimizer.accumulation': 0}, "at least 1 or 'auto', got 0"),
    ({'data.size': (32,)}, r'data.size must be 2 numbers.* got \(32,\)'),
    ({'data.size': (30, 32)}, r'multiples of 16; got \(30, 32\)'),
    ({'data.name': 'other'}, "config.data.name 'other'"),
    ({'data.normalization': 'bgr'}, "Unknown config.data.normalization 'bgr'"),
    ({'data.loader': 'other'}, "config.data.loader must be .*, got 'other'"),
    ({'optimizer.schedule': 'step'}, "schedule must be .*, got 'step'"),
    ({'optimizer.plateau.factor': 3.0}, 'plateau.factor'),
    ({'loss.weights.bce': -1.0}, 'config.loss.weights'),
    ({'loss.labels.alpha': 0.0}, 'labelled alpha, which config.loss.labels'),
    ({'model.encoder.weights': 'absent.h5'}, r'absent\.h5: no such file'),
  ],
)
def test_wrong_settings_leave_nothing_behind(
  overrides, message, data_dir, tmp_path
):
  config = helpers.make_config(data_dir, **overrides)
  workdir = tmp_path / 'run'
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    loop.train_and_evaluate(config, workdir)
  assert not (workdir / 'log.csv').exists()
  assert not checkpoints.has_checkpoints(workdir)


def test_bad_data_is_named(data_dir, tmp_path):
  directory = tmp_path / 'data'
  demo.make_demo(directory, count=24, size=(48, 48), seed=42)
  for mask in (directory / 'Masks').iterdir():
    Image.new('L', (48, 48)).save(mask)
  config = helpers.make_config(directory)
  with pytest.raises(ValueError, match=r'\.png: the mask is empty'):
    loop.train_and_evaluate(config, tmp_path / 'run')
  assert not checkpoints.has_checkpoints(tmp_path / 'run')


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(
  data_dir, tmp_path
):
  config = helpers.make_config(data_dir, **{'train.epochs': 1})
  loop.train_and_evaluate(config, tmp_path)
  config.train.epochs = 3
  # What an exploding training looks like, at a step of our choice.
  make_step = loop.setup.make_train_step

  def make_exploding(*settings):
    step = make_step(*settings)

    def explode(*arguments):
      train_state, metrics = step(*arguments)
      return train_state, jax.tree.map(lambda value: value * np.inf, metrics)

    return explode

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loop.setup, 'make_train_step', make_exploding)
    with pytest.raises(
      errors.DivergedError, match=r'at step 3: .*learning_rate'
    ):
      loop.train_and_evaluate(config, tmp_path)
  with checkpoints.CheckpointStore(tmp_path, writable=False) as store:
    assert store.latest_step == 2
  assert len(helpers.read_log(tmp_path)) == 1


def test_an_update_that_is_not_finite_is_never_saved(data_dir, tmp_path):
  """The loss of its step is still that of the parameters before it."""
  config = helpers.make_config(
    data_dir,
    **{
      'optimizer.learning_rate': 1e38,
      'optimizer.schedule': 'constant',
      'optimizer.warmup_steps': 0,
      'train.save_every': 1,
    },
  )
  with pytest.raises(
    errors.DivergedError, match=r'at step 1: .*update_norm inf'
  ):
    loop.train_and_evaluate(config, tmp_path)
  assert not checkpoints.has_checkpoints(tmp_path)
