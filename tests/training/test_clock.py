"""A training whose time is limited ends in time, at a learning rate of 0."""

import json
import types

import pytest

from data_pipelines.io import errors
from rmbg_jax.training import clock, loop, optimizers
from rmbg_jax.weights import checkpoints
from tests.support import helpers


@pytest.fixture
def now(monkeypatch):
  """The time in seconds, which a test sets."""
  now = types.SimpleNamespace(seconds=100.0, tick=0.0)

  def monotonic():
    now.seconds += now.tick
    return now.seconds

  monkeypatch.setattr(clock, 'time', types.SimpleNamespace(monotonic=monotonic))
  return now


def test_a_share_is_that_of_the_time_after_the_first_step(now):
  timer = clock.Clock(2.0, began=100.0, share=0.0)
  now.seconds = 160.0
  assert timer.share == 0  # Reading and compiling are no training.
  timer.begin()
  now.seconds = 175.0
  timer.begin()
  assert timer.share == 0.25
  now.seconds = 220.0
  assert timer.share == 1


def test_a_second_run_goes_on_from_the_share_of_the_first(now):
  timer = clock.Clock(1.0, began=100.0, share=0.5)
  assert timer.share == 0.5
  timer.begin()
  now.seconds = 130.0
  assert timer.share == 0.75


def test_compiling_may_take_all_of_the_time(now):
  timer = clock.Clock(1.0, began=100.0, share=0.0)
  now.seconds = 500.0
  timer.begin()
  assert timer.share == 1


def test_without_a_limit_nothing_is_over(now):
  timer = clock.Clock(0.0, began=100.0, share=0.0)
  timer.begin()
  now.seconds = 1e9
  assert timer.share == 0


def test_a_training_ends_in_time(data_dir, tmp_path, now, monkeypatch, capsys):
  now.tick = 0.5  # Each look at the clock.
  config = helpers.make_config(
    data_dir,
    **{
      'optimizer.schedule': 'cosine',
      'optimizer.learning_rate': 1e-3,
      'optimizer.warmup_steps': 0,
      'train.epochs': 1000,
      'train.minutes': 0.2,
    },
  )
  monkeypatch.setattr(loop, 'time', clock.time)
  loop.train_and_evaluate(config, tmp_path)
  said = capsys.readouterr().out
  assert 'Ended in time, in epoch' in said and 'Stopped early' not in said
  lines = (tmp_path / 'log.jsonl').read_text(encoding='utf-8').splitlines()
  rows = [json.loads(line) for line in lines]
  rates = [row['learning_rate'] for row in rows]
  assert 1 < len(rows) < 20
  assert rates == sorted(rates, reverse=True)
  assert rates[0] > 5e-4 and rates[-1] < 1e-6
  # The last part of an epoch is a checkpoint with scores, too.
  with checkpoints.CheckpointStore(tmp_path, writable=False) as store:
    assert store.latest_step in store.steps and store.best_step
    last = store.read_description(store.latest_step)
  assert last['position']['share'] == 1
  loop.train_and_evaluate(config, tmp_path)
  assert 'Complete: its time' in capsys.readouterr().out


def test_a_warmup_takes_its_steps_however_short_the_time(now):
  now.seconds = 100.0
  timer = clock.Clock(1.0, began=100.0, share=0.0)
  timer.begin()
  schedule = optimizers.make_schedule(
    'cosine', learning_rate=1.0, warmup_steps=10, total_steps=100_000
  )
  rate = timer.limit(schedule, steps=100_000, warmup_steps=10)
  now.seconds = 130.0
  assert rate(5) == 0.5
  assert rate(10) == pytest.approx(0.5, abs=1e-3)  # Half of the time is over.


def test_hosts_have_no_common_clock(data_dir, tmp_path, monkeypatch):
  config = helpers.make_config(data_dir, **{'train.minutes': 1.0})
  # The loop's own alone: Orbax would wait for the other host.
  monkeypatch.setattr(
    loop, 'jax', types.SimpleNamespace(process_count=lambda: 2)
  )
  with pytest.raises(errors.UserError, match=r'minutes=1\.0 is for one host'):
    loop.train_and_evaluate(config, tmp_path)
