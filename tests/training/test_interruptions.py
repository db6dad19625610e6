"""Trainings that are killed, stopped or interrupted, and go on."""

import itertools
import os
import random
import shutil
import signal
import time
import types
import warnings

import jax
import numpy as np
import pytest

from rmbg_jax.training import loop, profiling, signals
from rmbg_jax.weights import checkpoints
from tests.support import commands, helpers

# What depends on the clock.
TIMED = ('data_seconds', 'images_per_second', 'seconds')
EXACT = {
  'train.epochs': 4,
  'train.grid_every': 0,
  'optimizer.ema_decay': 0.9,
  'optimizer.schedule': 'plateau',
  'optimizer.warmup_steps': 0,
  'optimizer.plateau.patience': 1,
  'optimizer.plateau.min_delta': 10.0,  # The rate falls every epoch.
}


@pytest.fixture(scope='module', autouse=True)
def _shared_programs():
  with helpers.sharing_programs():
    yield


def _read_state(workdir, step):
  """Every array of a checkpoint."""
  with (
    checkpoints.CheckpointStore(workdir, writable=False) as store,
    warnings.catch_warnings(),
  ):
    warnings.simplefilter('ignore')  # Orbax prefers to be told the shapes.
    tree = store._checkpointer.load_checkpointables(step)
  return jax.tree.map(np.asarray, {k: tree[k] for k in ('model', 'training')})


def _assert_same_training(ours, theirs):
  """Logs, checkpoints and their contents are equal, bit for bit."""
  logs = [helpers.read_log(ours), helpers.read_log(theirs)]
  for rows in logs:
    for row in rows:
      for key in TIMED:
        row.pop(key)
  assert logs[0] == logs[1]
  steps = [
    sorted(path.name for path in (w / 'checkpoints').iterdir())
    for w in (ours, theirs)
  ]
  assert steps[0] == steps[1]
  for step in steps[0]:
    left, right = _read_state(ours, int(step)), _read_state(theirs, int(step))
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)


def _start(workdir, data_dir, overrides):
  """Starts a training in a process of its own."""
  overrides = {**helpers.TINY_OVERRIDES, **overrides, 'data.dir': data_dir}
  return commands.start(
    *('-m', 'rmbg_jax.main', '--config=configs/demo.py'),
    f'--workdir={workdir}',
    *(f'--config.{key}={value}' for key, value in overrides.items()),
  )


def _wait_for(condition, process):
  while not condition() and process.poll() is None:
    time.sleep(0.01)


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory, data_dir):
  workdir = tmp_path_factory.mktemp('uninterrupted')
  process = _start(workdir, data_dir, EXACT)
  output = ''.join(process.communicate())
  assert process.returncode == 0, output
  rates = [float(row['learning_rate']) for row in helpers.read_log(workdir)]
  np.testing.assert_allclose(rates, [3e-3, 3e-3, 3e-4, 3e-5], rtol=1e-5)
  return workdir


def test_killed_anywhere_and_restarted_equals_uninterrupted(
  uninterrupted, data_dir, tmp_path
):
  """Four processes one after the other: only such can be killed."""
  moments = random.Random(0)
  folder = tmp_path / 'checkpoints'
  # Saving more often changes nothing.
  often = {**EXACT, 'train.save_every': 1}
  for kill in range(3):
    process = _start(tmp_path, data_dir, often)
    if kill % 2:
      # In the middle of saving: as soon as a temporary folder shows.
      known = set(folder.iterdir()) if folder.exists() else set()
      _wait_for(
        lambda known=known: (
          folder.exists()
          and any('tmp' in p.name for p in set(folder.iterdir()) - known)
        ),
        process,
      )
    else:
      _wait_for(lambda: folder.exists(), process)
      time.sleep(moments.uniform(0, 3))
    process.send_signal(signal.SIGKILL)
    process.communicate()
  process = _start(tmp_path, data_dir, often)
  output = ''.join(process.communicate())
  assert process.returncode == 0, output
  _assert_same_training(tmp_path, uninterrupted)


def test_sigterm_saves_between_epochs_and_goes_on(
  uninterrupted, data_dir, tmp_path
):
  """Slow: four trainings, the last with another number of devices."""
  config = helpers.make_config(data_dir, **EXACT)

  def reached(self, step):
    if step == 3:  # In the middle of the second epoch.
      os.kill(os.getpid(), signal.SIGTERM)
    return self._received

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loop.signals.StopRequest, 'reached', reached)
    with pytest.raises(SystemExit, match='at epoch 2, step 1 of it') as stopped:
      loop.train_and_evaluate(config, tmp_path)
  assert stopped.value.code == 128 + signal.SIGTERM
  with checkpoints.CheckpointStore(tmp_path, writable=False) as store:
    assert (store.latest_step, store.best_step) == (3, 2)
  copy = tmp_path.with_name('sigterm_copy')
  shutil.copytree(tmp_path, copy)
  config.train.epochs = 1  # Fewer than are under way: nothing is left to do.
  assert loop.train_and_evaluate(config, copy)['epoch'] == 0
  # A clock that ticks once per look: at the start, around the one batch that
  # is left of the epoch, and after its step.
  ticks = types.SimpleNamespace(monotonic=itertools.count(0.0).__next__)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loop, 'time', ticks)
    config.train.epochs = 2
    row = loop.train_and_evaluate(config, copy)
  assert row['images_per_second'] == round(8 / 3, 2), 'not its own images alone'
  process = _start(tmp_path, data_dir, EXACT)
  output = ''.join(process.communicate())
  assert process.returncode == 0, output
  assert 'Resumed at epoch 2, step 1' in output
  # The first part ran with four devices, the rest with one: equal to rounding.
  for ours, theirs in zip(
    helpers.read_log(tmp_path), helpers.read_log(uninterrupted), strict=True
  ):
    for key in ('loss', 'val_loss', 'learning_rate'):
      np.testing.assert_allclose(
        float(ours[key]), float(theirs[key]), rtol=1e-2
      )


def test_one_ctrl_c_asks_and_two_interrupt():
  with signals.StopRequest() as request:
    assert not request.reached(1)
    signal.raise_signal(signal.SIGINT)
    assert request.reached(2)
    assert request.signum == signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
      signal.raise_signal(signal.SIGINT)
  with pytest.raises(KeyboardInterrupt):  # As before.
    signal.raise_signal(signal.SIGINT)


def test_sigterm_in_validation_stops_after_the_epoch(data_dir, tmp_path):
  config = helpers.make_config(
    data_dir,
    **{'data.limit': 12, 'train.epochs': 2, 'train.grid_every': 0},
  )
  evaluate = loop.validation.evaluate

  def interrupt(*args, **kwargs):
    signal.raise_signal(signal.SIGTERM)
    return evaluate(*args, **kwargs)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loop.validation, 'evaluate', interrupt)
    with pytest.raises(SystemExit, match='at epoch 2, step 0 of it'):
      loop.train_and_evaluate(config, tmp_path)
    # After the last epoch (of one step), nothing is left to stop.
    assert loop.train_and_evaluate(config, tmp_path)['epoch'] == 1


def test_a_profile_goes_on_after_a_stop(monkeypatch, tmp_path):
  calls = []
  for name in ('start_trace', 'stop_trace'):
    monkeypatch.setattr(
      profiling.jax.profiler, name, lambda *_, name=name: calls.append(name)
    )

  def run(steps, *, active=True):
    calls.clear()
    recorder = profiling.Profiler(tmp_path, (2, 4), active=active)
    for step in steps:
      recorder.before(step)
      recorder.after(step, jax.numpy.zeros(()))
    recorder.close()
    return list(calls)

  both = ['start_trace', 'stop_trace']
  assert run(range(1, 7)) == both
  assert run(range(1, 4)) == both  # Stopped within it.
  assert run(range(4, 7)) == both  # Gone on.
  assert run(range(5, 7)) == run(range(1, 7), active=False) == []


def test_checkpoints_within_an_epoch_are_gone_on_from(data_dir, tmp_path):
  overrides = {**EXACT, 'train.epochs': 2, 'train.save_every': 1}
  config = helpers.make_config(data_dir, **overrides)
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  loop.train_and_evaluate(config, whole)

  def interrupt(self, step):
    if step == 4:  # The last one; the one before is saved.
      raise KeyboardInterrupt
    return False

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loop.signals.StopRequest, 'reached', interrupt)
    with pytest.raises(KeyboardInterrupt):
      loop.train_and_evaluate(config, parts)
  with checkpoints.CheckpointStore(parts, writable=False) as store:
    assert (store.latest_step, store.best_step) == (3, 2)
  loop.train_and_evaluate(config, parts)
  _assert_same_training(parts, whole)
