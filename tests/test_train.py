"""The training engine on a tiny network: learning, resuming, refusing."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from PIL import Image

from rmbg_jax import checkpoints, models, state, train
from rmbg_jax.preprocessing import make_preprocessing
from tests import helpers
from tests.test_models import TINY

# Loss of the first step of `_make_step` on `_make_batch`: the network, its
# initialisation, the preprocessing and the loss in one number.
GOLDEN_LOSS = 0.860426


def _make_step(optimizer, mesh):
  model = models.create_model(TINY)
  preprocessing = make_preprocessing('torchvision', size=(32, 32))
  variables = state.create_variables(model, seed=0, size=(32, 32))
  train_state = state.create_train_state(variables, optimizer, mesh)
  step = train.make_train_step(
    model, optimizer, preprocessing, loss_weights={'bce': 1.0}
  )
  return step, train_state


def _make_batch(count=8):
  rng = np.random.default_rng(5)
  alpha = np.zeros((count, 32, 32, 1), np.uint8)
  for index in range(count):
    top, left = rng.integers(0, 16, 2)
    alpha[index, top : top + 14, left : left + 14] = 255
  noise = rng.integers(0, 100, (count, 32, 32, 3))
  image = np.where(alpha > 0, 255 - noise, noise).astype(np.uint8)
  return {'image': image, 'alpha': alpha}


def test_first_loss_is_golden():
  mesh = state.make_mesh()
  step, train_state = _make_step(optax.sgd(0.1), mesh)
  _, metrics = step(train_state, state.put_batch(_make_batch(), mesh))
  np.testing.assert_allclose(
    metrics['loss'],
    GOLDEN_LOSS,
    rtol=1e-4,
    err_msg='The first loss has changed. If the network, its initialisation, '
    'the preprocessing or the loss was changed on purpose, put the new number '
    'into GOLDEN_LOSS and say why in the commit; if not, something broke.',
  )


def test_overfits_two_images():
  mesh = jax.make_mesh(
    (1,), ('data',), devices=jax.devices()[:1], axis_types=(AxisType.Auto,)
  )
  step, train_state = _make_step(optax.adam(1e-2), mesh)
  batch = state.put_batch(_make_batch(2), mesh)
  losses = []
  for _ in range(100):
    train_state, metrics = step(train_state, batch)
    losses.append(float(metrics['loss']))
  assert losses[-1] < 0.2 < 0.5 < losses[0]


def test_one_device_equals_four():
  results = []
  for devices in (jax.devices()[:1], jax.devices()[:4]):
    mesh = jax.make_mesh(
      (len(devices),),
      ('data',),
      devices=devices,
      axis_types=(AxisType.Auto,),
    )
    # A plain gradient step: Adam's first one would amplify rounding.
    step, train_state = _make_step(optax.sgd(1.0), mesh)
    before = jax.device_get(train_state.params)
    train_state, metrics = step(
      train_state, state.put_batch(_make_batch(), mesh)
    )
    gradient = jax.tree.map(
      lambda old, new: old - new, before, jax.device_get(train_state.params)
    )
    results.append(
      (
        float(metrics['loss']),
        gradient,
        jax.device_get(train_state.batch_stats),
      )
    )
  (loss1, gradient1, stats1), (loss4, gradient4, stats4) = results
  assert abs(loss1 - loss4) < 1e-6
  scale = max(np.abs(g).max() for g in jax.tree.leaves(gradient1))
  for one, four in zip(
    jax.tree.leaves(gradient1), jax.tree.leaves(gradient4), strict=True
  ):
    # Absolute for those that are zero but for rounding.
    limit = 1e-4 * np.abs(one).max() + 1e-6 * scale
    assert np.abs(one - four).max() <= limit
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    stats1,
    stats4,
  )


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('data') / 'demo'


@pytest.fixture(scope='module')
def workdir(tmp_path_factory, data_dir):
  """A finished training of two epochs."""
  workdir = tmp_path_factory.mktemp('run')
  train.train_and_evaluate(helpers.make_config(data_dir), workdir)
  return workdir


def _read_log(workdir):
  with (workdir / 'log.csv').open() as file:
    return list(csv.DictReader(file))


def _read_model(workdir, step):
  with checkpoints.CheckpointStore(workdir, writable=False) as store:
    _, model = train.create_model(helpers.make_config('').model)
    variables = state.create_variables(model, seed=0, size=(32, 32))
    return store.restore_model(variables, step=step)


def test_leaves_a_log_pictures_and_checkpoints(workdir):
  rows = _read_log(workdir)
  assert list(rows[0])[:4] == ['epoch', 'learning_rate', 'loss', 'val_loss']
  assert [row['epoch'] for row in rows] == ['0', '1']
  assert float(rows[1]['loss']) < float(rows[0]['loss'])
  for name in ('epoch_0000.png', 'epoch_0001.png'):
    with Image.open(workdir / 'pictures' / name) as grid:
      # Photo, truth and four outputs, for three images.
      assert grid.size == (6 * 32, 3 * 32)
  with checkpoints.CheckpointStore(workdir, writable=False) as store:
    assert store.latest_step == 2 * 2
    description = store.read_description(store.latest_step)
  assert description['preprocessing']['size'] == [32, 32]
  assert description['config']['data']['batch_size'] == 8


def test_resumed_equals_uninterrupted(workdir, data_dir, tmp_path):
  class InterruptedTrainingError(Exception):
    pass

  # Interrupted in the second epoch, after the first was saved.
  config = helpers.make_config(data_dir)
  original = train.evaluate.evaluate
  calls = []

  def evaluate(*args, **kwargs):
    calls.append(1)
    if len(calls) == 2:
      raise InterruptedTrainingError
    return original(*args, **kwargs)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(train.evaluate, 'evaluate', evaluate)
    with pytest.raises(InterruptedTrainingError):
      train.train_and_evaluate(config, tmp_path)
  assert len(_read_log(tmp_path)) == 1
  train.train_and_evaluate(config, tmp_path)

  for ours, theirs in zip(_read_log(tmp_path), _read_log(workdir), strict=True):
    ours.pop('seconds'), theirs.pop('seconds')
    assert ours == theirs
  jax.tree.map(
    np.testing.assert_array_equal,
    _read_model(tmp_path, 4),
    _read_model(workdir, 4),
  )


def test_a_finished_training_stays_as_it_is(workdir, data_dir):
  before = (workdir / 'log.csv').read_bytes()
  row = train.train_and_evaluate(helpers.make_config(data_dir), workdir)
  assert (workdir / 'log.csv').read_bytes() == before
  assert row['epoch'] == '1'


def test_another_network_is_refused(workdir, data_dir):
  config = helpers.make_config(data_dir, **{'model.bridge.filters': 16})
  with pytest.raises(
    ValueError,
    match=r'architecture.bridge.filters: 8 in the checkpoint, 16 in the',
  ):
    train.train_and_evaluate(config, workdir)


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    ({'data.batch_size': 6}, r'batch_size \(=6\) must be a multiple'),
    ({'data.batch_size': 64}, r'batch_size \(=64\) or add images'),
    ({'data.size': (30, 32)}, r'multiples of 16; got \(30, 32\)'),
    ({'data.name': 'other'}, "config.data.name 'other'"),
    ({'optimizer.schedule': 'step'}, "schedule 'step'"),
    ({'model.encoder.weights': 'absent.h5'}, r'absent\.h5: no such file'),
  ],
)
def test_wrong_settings_leave_nothing_behind(
  overrides, message, data_dir, tmp_path
):
  config = helpers.make_config(data_dir, **overrides)
  workdir = tmp_path / 'run'
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    train.train_and_evaluate(config, workdir)
  assert not (workdir / 'log.csv').exists()
  assert not checkpoints.has_checkpoints(workdir)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(
  data_dir, tmp_path
):
  config = helpers.make_config(data_dir, **{'train.epochs': 1})
  train.train_and_evaluate(config, tmp_path)
  config = helpers.make_config(
    data_dir, **{'optimizer.learning_rate': 1e30, 'optimizer.clip_norm': 0.0}
  )
  with pytest.raises(FloatingPointError, match=r'at step \d+.*learning_rate'):
    train.train_and_evaluate(config, tmp_path)
  with checkpoints.CheckpointStore(tmp_path, writable=False) as store:
    assert store.latest_step == 2


def test_schedules():
  schedule = train.optimizers.make_schedule(
    'cosine', learning_rate=1.0, warmup_steps=4, total_steps=24
  )
  rates = [float(schedule(step)) for step in (0, 2, 4, 14, 24)]
  np.testing.assert_allclose(rates, [0, 0.5, 1, 0.5, 0], atol=1e-6)
  constant = train.optimizers.make_schedule(
    'constant', learning_rate=0.5, warmup_steps=0, total_steps=3
  )
  np.testing.assert_allclose([constant(0), constant(100)], 0.5)


def test_clipping_and_decay_change_the_update():
  params = {'w': jnp.full((4,), 2.0)}
  gradient = {'w': jnp.full((4,), 100.0)}

  def update(**options):
    optimizer = train.optimizers.make_optimizer(lambda _: 0.1, **options)
    opt_state = optimizer.init(params)
    # Two gradients of different norms: Adam's first step ignores the norm.
    _, opt_state = optimizer.update(gradient, opt_state, params)
    tiny = jax.tree.map(lambda g: g * 1e-3, gradient)
    return optimizer.update(tiny, opt_state, params)[0]['w'][0]

  plain = update(weight_decay=0.0, clip_norm=0.0)
  np.testing.assert_allclose(
    update(weight_decay=0.5, clip_norm=0.0), plain - 0.1 * 0.5 * 2, rtol=1e-5
  )
  assert abs(update(weight_decay=0.0, clip_norm=1.0) - plain) > 1e-3
