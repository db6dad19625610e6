"""Training does not wait: for a rate, for a loss, for another program."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from rmbg_jax.training import (
  clock,
  inputs,
  logs,
  loop,
  optimizers,
  profiling,
  setup,
  signals,
  state,
)
from rmbg_jax.training import step as step_lib
from rmbg_jax.training.resume import MonitorState, Position
from rmbg_jax.weights import checkpoints

OPTIONS = {'weight_decay': 0.1, 'clip_norm': 1.0}


def _make_params():
  return {'encoder': {'w': jnp.ones((2, 3))}, 'head': jnp.full(4, 2.0)}


class _Batches:
  """An endless loader of small arrays."""

  def __next__(self):
    return {'image': np.ones((4, 4), np.float32)}

  def get_state(self):
    return {}

  def set_state(self, state):
    pass


def test_a_step_is_dispatched_before_the_last_ones_loss_is_read(
  tmp_path, monkeypatch
):
  mesh, events, traces = state.make_mesh(), [], []

  @jax.jit
  def compute(train_state, batch, learning_rate):
    traces.append(learning_rate)
    loss = jnp.mean(batch['image']) * learning_rate
    return train_state.replace(step=train_state.step + 1), jnp.stack(
      [loss] * len(step_lib.METRICS)
    )

  def take_step(*arguments):
    events.append('step')
    return compute(*arguments)

  def read(array):
    events.append('read')
    return np.asarray(array)

  monkeypatch.setattr(jax, 'device_get', read)
  start = state.TrainState(
    step=state.put_scalar(0.0, mesh), params={}, batch_stats={}, opt_state=()
  )
  # Whatever is not put there or read explicitly is an error.
  with jax.transfer_guard('disallow'):
    training = loop.Training(
      config=ConfigDict(
        {
          'data': {'batch_size': 4},
          'optimizer': {'schedule': 'cosine', 'warmup_steps': 0},
          'train': {'epochs': 3, 'save_every': 0},
        }
      ),
      components=setup.Components(
        **dict.fromkeys(setup.Components._fields)
        | {
          'data': inputs.Inputs([], [], _Batches(), [], steps_per_epoch=4),
          'schedule': lambda step: step / 2,
        }
      ),
      mesh=mesh,
      train_step=take_step,
      eval_step=lambda *_: ({}, []),
      store=checkpoints.CheckpointStore(tmp_path, writable=True),
      stop_request=signals.StopRequest(),
      reporter=logs.Reporter(
        tmp_path, first_epoch=0, tensorboard=False, active=False
      ),
      profiler=profiling.Profiler(tmp_path, (0, 0), active=False),
      clock=clock.Clock(0.0, began=0.0, share=0.0),
      training_data=[],
      train_state=start,
      position=Position(epoch=2, monitor=MonitorState(learning_rate=1.0)),
    )
    report = training.train_epoch()
  # One small transfer a step.
  assert events == ['step', 'step'] + ['read', 'step'] * 2 + ['read'] * 2
  assert len(traces) == 1, 'another rate compiled another program'
  assert training.position.loss == (8 + 9 + 10 + 11) / 2
  assert report['grad_norm'] == 11 / 2


@pytest.mark.parametrize('schedule', optimizers.SCHEDULES)
def test_a_schedule_computes_on_the_host(schedule):
  rates = optimizers.make_schedule(
    schedule, learning_rate=1e-3, warmup_steps=10, total_steps=50
  )
  ours = [rates(step) for step in range(60)]
  assert all(isinstance(rate, float) for rate in ours)
  rest = (
    optax.cosine_decay_schedule(1e-3, 40)
    if schedule == 'cosine'
    else optax.constant_schedule(1e-3)
  )
  expected = optax.join_schedules(
    [optax.linear_schedule(0.0, 1e-3, 10), rest], [10]
  )
  np.testing.assert_allclose(
    ours, [expected(step) for step in range(60)], rtol=1e-5, atol=1e-10
  )
