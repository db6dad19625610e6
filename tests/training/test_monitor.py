"""The epoch monitor does what Keras' three callbacks do."""

import dataclasses
import json

import numpy as np
import pytest

from rmbg_jax.training import monitor

ORIGINAL = monitor.MonitorSettings(
  patience=5,
  factor=0.1,
  min_delta=1e-4,
  min_learning_rate=1e-7,
  stop_patience=20,
)


def _run(losses, settings, learning_rate):
  """(rate used, rate after, improved, stop) of each epoch until the stop."""
  state = monitor.MonitorState(learning_rate=learning_rate)
  history = []
  for loss in losses:
    used = state.learning_rate
    state = monitor.step_monitor(state, loss, settings)
    stop = monitor.is_over(state, settings)
    history.append((used, state.learning_rate, state.improved, stop))
    if stop:
      break
  return history


def test_the_originals_log_cuts_the_rate_once_after_epoch_6():
  losses = [0.5527, 0.8812, 0.5888, 0.6696, 0.5966]
  losses += [0.7146, 0.7974, 1.0447, 1.6622, 1.6108]
  used = [rate for rate, *_ in _run(losses, ORIGINAL, 1e-2)]
  np.testing.assert_allclose(used, [1e-2] * 6 + [1e-3] * 4)


def _run_keras(losses, settings, learning_rate, folder):
  import tf_keras

  model = tf_keras.Sequential([tf_keras.layers.Dense(1, input_shape=(1,))])
  model.compile(tf_keras.optimizers.SGD(learning_rate))
  model.stop_training = False
  saves = []
  model.save = lambda *_, **__: saves.append(1)
  callbacks = [
    tf_keras.callbacks.ModelCheckpoint(
      str(folder / 'model.h5'), save_best_only=True
    ),
    tf_keras.callbacks.ReduceLROnPlateau(
      factor=settings.factor,
      patience=settings.patience,
      min_lr=settings.min_learning_rate,
      min_delta=settings.min_delta,
    ),
    tf_keras.callbacks.EarlyStopping(patience=settings.stop_patience),
  ]
  for callback in callbacks:
    callback.set_model(model)
    callback.on_train_begin()
  history = []
  for epoch, loss in enumerate(losses):
    used, saved = float(model.optimizer.learning_rate), len(saves)
    for callback in callbacks:
      callback.on_epoch_end(epoch, {'val_loss': loss})
    rate = float(model.optimizer.learning_rate)
    history.append((used, rate, len(saves) > saved, model.stop_training))
    if model.stop_training:
      break
  return history


@pytest.mark.parametrize('seed', range(25))
def test_equals_keras_on_random_series(seed, tmp_path):
  rng = np.random.default_rng(seed)
  settings = dataclasses.replace(
    ORIGINAL,
    patience=int(rng.integers(1, 5)),
    stop_patience=int(rng.integers(3, 12)),
    factor=float(rng.choice([0.1, 0.5])),
    min_delta=float(rng.choice([1e-4, 0.05])),
  )
  # Falling with noise, without ties; now and then by less than min_delta.
  steps = rng.normal(-0.01, rng.choice([1e-4, 0.05]), 60)
  losses = 2 + np.cumsum(steps)
  losses[rng.random(60) < 0.05 * (seed % 2)] = np.nan  # In every second one.
  losses = losses.tolist()
  ours = _run(losses, settings, 1e-5)
  keras = _run_keras(losses, settings, 1e-5, tmp_path)
  assert len(ours) == len(keras)
  for mine, theirs in zip(ours, keras, strict=True):
    np.testing.assert_allclose(mine[:2], theirs[:2], rtol=1e-5)
    assert mine[2:] == theirs[2:]


def test_the_state_survives_json():
  state = monitor.MonitorState(learning_rate=1e-3)
  for loss in (0.5, 0.6):
    again = json.loads(json.dumps(state.to_dict(), allow_nan=False))
    assert monitor.MonitorState.from_dict(again) == state
    state = monitor.step_monitor(state, loss, ORIGINAL)
