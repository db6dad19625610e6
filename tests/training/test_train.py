"""The training step: what it computes, on any number of devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from rmbg_jax import models
from rmbg_jax.models.preprocessing import make_preprocessing
from rmbg_jax.training import optimizers, state
from rmbg_jax.training.step import read_metrics
from tests.models.test_models import TINY
from tests.support import helpers

# Loss of the first step of TINY on `_make_batch`: the network, its
# initialisation, the preprocessing and the loss in one number.
GOLDEN_LOSS = 0.744321
# What a step does to a network does not depend on its depth: this one compiles
# in a third of the time.
SHALLOW = {
  'name': 'unet',
  'encoder': {'stage_sizes': [1], 'width': 4},
  'bridge': {'filters': 4, 'rates': [2]},
  'decoder': {'filters': [8, 4]},
}


def _mesh(count=1):
  return jax.make_mesh(
    (count,),
    ('data',),
    devices=jax.devices()[:count],
    axis_types=(AxisType.Auto,),
  )


def _make_step(optimizer, mesh, *, architecture=SHALLOW, **options):
  return helpers.make_step(
    models.create_model(architecture),
    make_preprocessing('torchvision', size=(32, 32)),
    optimizer,
    mesh,
    **options,
  )


def _make_batch(count=8):
  rng = np.random.default_rng(5)
  alpha = np.zeros((count, 32, 32, 1), np.uint8)
  for index in range(count):
    top, left = rng.integers(0, 16, 2)
    alpha[index, top : top + 14, left : left + 14] = 255
  noise = rng.integers(0, 100, (count, 32, 32, 3))
  image = np.where(alpha > 0, 255 - noise, noise).astype(np.uint8)
  weight = np.ones(count, np.float32)
  return {'image': image, 'alpha': alpha, 'weight': weight}


@functools.cache
def _make_gradient_step(devices, accumulation):
  """A compiled step, and the state before it, which it may not reuse."""
  step, train_state = _make_step(
    optax.sgd(1.0), _mesh(devices), accumulation=accumulation
  )
  return step, jax.device_get(train_state)


def _one_step(batch, *, devices=1, accumulation=1):
  step, before = _make_gradient_step(devices, accumulation)
  mesh = _mesh(devices)
  train_state = jax.device_put(before, state.replicated(mesh))
  return helpers.take_gradient_step(step, train_state, batch, mesh)


def test_first_loss_is_golden():
  mesh = _mesh()
  step, train_state = _make_step(optax.sgd(1.0), mesh, architecture=TINY)
  loss, *_ = helpers.take_gradient_step(step, train_state, _make_batch(), mesh)
  np.testing.assert_allclose(
    loss,
    GOLDEN_LOSS,
    rtol=1e-4,
    err_msg='The first loss has changed. If the network, its initialisation, '
    'the preprocessing or the loss was changed on purpose, put the new number '
    'into GOLDEN_LOSS and say why in the commit; if not, something broke.',
  )


def test_overfits_two_images_without_compiling_twice():
  mesh = _mesh()
  step, train_state = _make_step(optax.adam(1e-2), mesh)
  batch = state.put_batch(_make_batch(2), mesh)
  losses = []
  for _ in range(100):
    train_state, metrics = step(train_state, batch, 0.0)
    losses.append(read_metrics(metrics)['loss'])
  assert losses[-1] < 0.2 < 0.5 < losses[0]
  assert step._cache_size() == 1, 'the step was compiled again'


def test_one_device_equals_four():
  loss1, gradient1, stats1 = _one_step(_make_batch(), devices=1)
  loss4, gradient4, stats4 = _one_step(_make_batch(), devices=4)
  assert abs(loss1 - loss4) < 1e-6
  helpers.assert_same_gradient(gradient1, gradient4)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    stats1,
    stats4,
  )


def test_accumulated_gradient_is_the_mean_of_the_parts():
  """Parts take every second image; each has batch statistics of its own."""
  batch = _make_batch()
  batch['weight'] = np.linspace(0.5, 1.5, 8).astype(np.float32)
  loss, gradient, _ = _one_step(batch, accumulation=2)
  parts = [{k: v[start::2] for k, v in batch.items()} for start in (0, 1)]
  shares = [part['weight'].sum() / batch['weight'].sum() for part in parts]
  results = [_one_step(part) for part in parts]
  expected = sum(
    share * result[0] for share, result in zip(shares, results, strict=True)
  )
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  mean = jax.tree.map(
    lambda a, b: shares[0] * a + shares[1] * b, results[0][1], results[1][1]
  )
  helpers.assert_same_gradient(gradient, mean)


def test_accumulation_on_four_devices_equals_one():
  loss1, gradient1, _ = _one_step(_make_batch(), accumulation=2)
  loss4, gradient4, _ = _one_step(_make_batch(), accumulation=2, devices=4)
  # The same images share a part, whatever the number of devices.
  assert abs(loss1 - loss4) < 1e-6
  helpers.assert_same_gradient(gradient1, gradient4)


def test_pairs_count_by_their_weight():
  batch = _make_batch()
  batch['weight'][:4] = 0
  loss, *_ = _one_step(batch)
  batch['alpha'] = batch['alpha'].copy()
  batch['alpha'][:4] = 255 - batch['alpha'][:4]
  same, *_ = _one_step(batch)
  assert loss == same, 'a pair of weight 0 was counted'
  batch['weight'] = batch['weight'] * 0.25
  np.testing.assert_allclose(_one_step(batch)[0], loss, rtol=1e-6)


def test_frozen_encoder_stays_and_the_rest_moves():
  mesh = _mesh()
  optimizer = optimizers.make_optimizer(
    weight_decay=0.1,
    clip_norm=0.0,
    encoder_rate=0.0,
    is_frozen=lambda child: True,
  )
  step, train_state = _make_step(optimizer, mesh, frozen_stages=4)
  before = jax.device_get(train_state)
  train_state, _ = step(train_state, state.put_batch(_make_batch(), mesh), 0.01)
  for tree in ('params', 'batch_stats'):
    old, new = getattr(before, tree), getattr(train_state, tree)
    jax.tree.map(np.testing.assert_array_equal, old['encoder'], new['encoder'])
    for part in set(old) - {'encoder'}:
      assert any(
        np.abs(a - b).max() > 0
        for a, b in zip(
          jax.tree.leaves(old[part]), jax.tree.leaves(new[part]), strict=True
        )
      ), part


def test_encoder_rate_scales_the_encoder_alone(rng):
  """Of the same gradients: Adam makes steps of those that are but rounding."""
  model = models.create_model(SHALLOW)
  variables = state.create_variables(model, seed=0)
  params = jax.device_get(variables['params'])
  grads = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)
  moved = {}
  for rate in (1.0, 0.1):
    optimizer = optimizers.make_optimizer(
      weight_decay=0.0, clip_norm=0.0, encoder_rate=rate
    )
    moved[rate], _ = optimizer.update(
      grads, optimizer.init(params), params, learning_rate=0.01
    )
  for part in moved[1.0]:
    factor = 0.1 if part == 'encoder' else 1.0
    jax.tree.map(
      lambda full, part, f=factor: np.testing.assert_allclose(
        part, full * f, rtol=1e-6
      ),
      moved[1.0][part],
      moved[0.1][part],
    )
    assert all(np.abs(leaf).min() > 0 for leaf in jax.tree.leaves(moved[0.1]))


def test_moving_averages_follow_weights_and_statistics():
  mesh = _mesh()
  step, train_state = _make_step(
    optax.sgd(0.1), mesh, use_ema=True, ema_decay=0.9
  )
  expected = jax.device_get(
    {'params': train_state.params, 'batch_stats': train_state.batch_stats}
  )
  batch = state.put_batch(_make_batch(), mesh)
  for number in range(3):
    train_state, _ = step(train_state, batch, 0.0)
    decay = min(0.9, (1 + number) / (10 + number))
    new = jax.device_get(
      {'params': train_state.params, 'batch_stats': train_state.batch_stats}
    )
    expected = jax.tree.map(
      lambda old, x, d=decay: d * old + (1 - d) * x, expected, new
    )
  assert train_state.eval_variables is train_state.ema
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    jax.device_get(train_state.ema),
    expected,
  )


def test_norms_are_those_of_the_step():
  mesh = _mesh()
  step, train_state = _make_step(optax.sgd(0.5), mesh)
  train_state, metrics = step(
    train_state, state.put_batch(_make_batch(), mesh), 0.0
  )
  metrics = read_metrics(metrics)
  np.testing.assert_allclose(
    metrics['update_norm'], 0.5 * metrics['grad_norm'], rtol=1e-5
  )
  squares = sum(
    np.square(np.asarray(leaf, np.float64)).sum()
    for leaf in jax.tree.leaves(train_state.params)
  )
  np.testing.assert_allclose(metrics['param_norm'], squares**0.5, rtol=1e-5)


def test_schedules():
  schedule = optimizers.make_schedule(
    'cosine', learning_rate=1.0, warmup_steps=4, total_steps=24
  )
  rates = [float(schedule(step)) for step in (0, 2, 4, 14, 24)]
  np.testing.assert_allclose(rates, [0, 0.5, 1, 0.5, 0], atol=1e-6)
  constant = optimizers.make_schedule(
    'constant', learning_rate=0.5, warmup_steps=0, total_steps=3
  )
  np.testing.assert_allclose([constant(0), constant(100)], 0.5)


def _params():
  return {
    'encoder': {'w': jnp.full((2,), 2.0)},
    'head': jnp.full((4,), 2.0),
    'kernel': jnp.full((1, 4), 2.0),
  }


def test_clipping_and_decay_change_the_update():
  gradient = jax.tree.map(lambda p: p * 50, _params())

  def update(name, **options):
    optimizer = optimizers.make_optimizer(encoder_rate=1.0, **options)
    opt_state = optimizer.init(_params())
    # Two gradients of different norms: Adam's first step ignores the norm.
    _, opt_state = optimizer.update(
      gradient, opt_state, _params(), learning_rate=0.1
    )
    tiny = jax.tree.map(lambda g: g * 1e-3, gradient)
    updates, _ = optimizer.update(tiny, opt_state, _params(), learning_rate=0.1)
    return updates[name].max()

  plain = update('kernel', weight_decay=0.0, clip_norm=0.0)
  np.testing.assert_allclose(
    update('kernel', weight_decay=0.5, clip_norm=0.0),
    plain - 0.1 * 0.5 * 2,
    rtol=1e-5,
  )
  # Biases and normalisations do not decay.
  assert update('head', weight_decay=0.5, clip_norm=0.0) == update(
    'head', weight_decay=0.0, clip_norm=0.0
  )
  assert abs(update('kernel', weight_decay=0.0, clip_norm=1.0) - plain) > 1e-3


@pytest.mark.parametrize('encoder_rate', [0.0, 0.5, 1.0])
def test_the_learning_rate_is_an_argument(encoder_rate):
  optimizer = optimizers.make_optimizer(
    weight_decay=0.0, clip_norm=0.0, encoder_rate=encoder_rate
  )
  opt_state = optimizer.init(_params())
  before, after = (
    optimizer.update(_params(), opt_state, _params(), learning_rate=rate)[0]
    for rate in (0.1, 0.01)
  )
  np.testing.assert_allclose(after['head'], 0.1 * before['head'], rtol=1e-5)
  np.testing.assert_allclose(
    after['encoder']['w'], encoder_rate * after['head'][:2], rtol=1e-5
  )


def test_adam_is_that_of_keras(rng):
  """With gradients around its epsilon too, where it matters."""
  import tf_keras

  sizes = np.logspace(-9, 0, 10, dtype=np.float32)
  params = {'w': jnp.zeros(10)}
  optimizer = optimizers.make_optimizer(
    weight_decay=0.0, clip_norm=0.0, encoder_rate=1.0
  )
  opt_state = optimizer.init(params)
  variable = tf_keras.backend.variable(np.zeros(10, np.float32))
  keras = tf_keras.optimizers.Adam(0.1, epsilon=1e-7)
  for _ in range(20):
    gradient = sizes * rng.normal(1, 0.5, 10).astype(np.float32)
    updates, opt_state = optimizer.update(
      {'w': jnp.asarray(gradient)}, opt_state, params, learning_rate=0.1
    )
    params = optax.apply_updates(params, updates)
    keras.apply_gradients([(gradient, variable)])
    np.testing.assert_allclose(params['w'], variable.numpy(), rtol=1e-4)
