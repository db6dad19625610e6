"""Values that cannot be are refused before anything is loaded."""

import math

import pytest

from configs import default, demo, full, lite, sample, small, u2netp
from data_pipelines.io import errors
from rmbg_jax.training import settings


@pytest.mark.parametrize(
  'config', [default, demo, full, lite, sample, small, u2netp]
)
def test_the_configurations_are_right(config):
  settings.check_config(config.get_config())


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('seed', -1, 'at least 0, got -1'),
    ('data.batch_size', 0, 'at least 1, got 0'),
    ('data.limit', -3, 'at least 0, got -3'),
    ('data.device.shares.human', -1.0, 'at least 0, got -1.0'),
    ('data.device.max_enlargement', -1.0, 'at least 0, got -1.0'),
    ('loss.labels.pseudo', -0.5, 'at least 0, got -0.5'),
    ('data.threads', -1, 'at least 0, got -1'),
    ('data.validation_share', 1.0, r'in \(0, 1\), got 1.0'),
    ('data.validation_share', -0.5, r'in \(0, 1\), got -0.5'),
    ('data.size', (32,), r'2 numbers, each at least 1, got \(32,\)'),
    ('model.bn_momentum', 2.0, r'in \[0, 1\], got 2.0'),
    ('model.bridge.rates', (0,), r'one or more .* at least 1, got \(0,\)'),
    ('model.decoder.filters', (8, 8, 8), r'4 numbers, .* got \(8, 8, 8\)'),
    ('model.dtype', 'float99', "one of float32, bfloat16, got 'float99'"),
    ('model.encoder.dialect', 'foo', 'one of keras, torchvision, got'),
    ('model.encoder.stage_sizes', (1, 1), '3 numbers, each at least 1'),
    ('model.encoder.width', 0, 'at least 1, got 0'),
    ('loss.outputs', (1.0,) * 3, '4 numbers, each at least 0'),
    ('loss.outputs', (), r'4 numbers, each at least 0, got \(\)'),
    ('optimizer.accumulation', 0, "at least 1 or 'auto', got 0"),
    ('optimizer.clip_norm', -1.0, 'at least 0, got -1.0'),
    ('optimizer.ema_decay', 1.0, r'in \[0, 1\), got 1.0'),
    ('optimizer.learning_rate', -1.0, 'at least 0, got -1.0'),
    ('optimizer.learning_rate', math.nan, 'at least 0, got nan'),
    ('optimizer.plateau.factor', 3.0, r'in \(0, 1\), got 3.0'),
    ('optimizer.plateau.patience', -1, 'at least 0, got -1'),
    ('optimizer.warmup_steps', -5, 'at least 0, got -5'),
    # With the default's schedule, a plateau.
    ('optimizer.warmup_steps', 5, "0 with config.*schedule='plateau'.*, got 5"),
    ('train.epochs', 0, 'at least 1, got 0'),
    ('train.profile_steps', (5,), '2 numbers'),
    ('train.profile_steps', (20, 10), r'the first step, .*, got \(20, 10\)'),
    ('train.save_every', -1, 'at least 0, got -1'),
  ],
)
def test_wrong_values_are_named(key, value, message):
  config = default.get_config()
  config.update_from_flattened_dict({key: value})
  with pytest.raises(
    errors.UserError, match=rf'config\.{key} must be {message}'
  ):
    settings.check_config(config)


def test_a_warm_up_goes_with_the_schedules_that_have_one():
  config = default.get_config()
  config.optimizer.warmup_steps = 5
  for schedule in ('constant', 'cosine'):
    config.optimizer.schedule = schedule
    settings.check_config(config)


def test_all_wrong_values_are_named_at_once():
  config = u2netp.get_config()
  config.loss.outputs = (1.0,) * 4
  config.train.epochs = -1
  with pytest.raises(ValueError) as error:
    settings.check_config(config)
  assert str(error.value).splitlines() == [
    'config.train.epochs must be at least 1, got -1.',
    'config.loss.outputs must be 7 numbers, each at least 0, got '
    '(1.0, 1.0, 1.0, 1.0).',
  ]
