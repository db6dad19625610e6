"""Checks the values of a configuration, before anything is loaded."""

import math
from typing import Any

from ml_collections import ConfigDict

from data_pipelines.io import errors
from rmbg_jax import models
from rmbg_jax.models import efficientnet, resnet, u2net, unet
from rmbg_jax.training import optimizers

_AT_LEAST = {
  'seed': 0,
  'model.encoder.frozen_stages': 0,
  'model.encoder.width': 1,
  'model.bridge.filters': 1,
  'data.batch_size': 1,
  'data.limit': 0,
  'data.threads': 0,
  'data.buffer': 0,
  'data.demo.count': 1,
  'data.demo.size': 16,
  'data.device.shares.human': 0,
  'data.device.shares.animal': 0,
  'data.device.shares.object': 0,
  'data.device.max_enlargement': 0,
  'loss.labels.gt': 0,
  'loss.labels.alpha': 0,
  'loss.labels.pseudo': 0,
  'optimizer.learning_rate': 0,
  'optimizer.plateau.patience': 0,
  'optimizer.plateau.min_delta': 0,
  'optimizer.plateau.min_learning_rate': 0,
  'optimizer.warmup_steps': 0,
  'optimizer.weight_decay': 0,
  'optimizer.clip_norm': 0,
  'optimizer.encoder_rate': 0,
  'train.epochs': 1,
  'train.minutes': 0,
  'train.early_stopping': 0,
  'train.save_every': 0,
  'train.grid_every': 0,
  'train.grid_images': 1,
}
# Included: [0, 1]; without 1: [0, 1); without both: (0, 1).
_SHARES = {
  'init_bn_momentum': '[0, 1]',
  'model.bn_momentum': '[0, 1]',
  'data.validation_share': '(0, 1)',
  'optimizer.plateau.factor': '(0, 1)',
  'optimizer.ema_decay': '[0, 1)',
}
# Check of the value if it is not 'auto', and what it may be in words.
_OR_AUTO = {
  'model.remat': (lambda value: isinstance(value, bool), 'True, False'),
  # Not isinstance, for which True is an int.
  'optimizer.accumulation': (
    lambda value: type(value) is int and value >= 1,
    'at least 1',
  ),
}
_CHOICES = {
  'model.encoder.name': unet.ENCODERS,
  'model.encoder.dialect': tuple(resnet.EPSILON),
  'model.dtype': ('float32', 'bfloat16'),
  'data.loader': ('grain', 'device'),
  'optimizer.schedule': optimizers.SCHEDULES,
}
# Length of a list, None for any, and the least value in it.
_LISTS = {'data.size': (2, 1), 'train.profile_steps': (2, 0)}
_LISTS_OF_MODELS = {
  'unet': {
    'model.encoder.stage_sizes': (3, 1),
    'model.bridge.rates': (None, 1),
    'model.decoder.filters': (4, 1),
    'loss.outputs': (4, 0),
  },
  'u2net': {'loss.outputs': (len(u2net.HEIGHTS) + 1, 0)},
}


def check_config(config: ConfigDict) -> None:
  """Checks all that needs no data, weights or devices.

  Args:
    config: Configuration with the keys of `configs/default.py`. Keys that it
      lacks are not checked: not every network has every one.

  Raises:
    UserError: naming every key whose value cannot be, the value, and what it
      must be.
  """
  lists = _LISTS | _LISTS_OF_MODELS.get(config.model.name, {})
  # All are collected, so that one error names them.
  wrong = []
  for key, least in _AT_LEAST.items():
    value = _find(config, key)
    if value is not None and not (math.isfinite(value) and value >= least):
      wrong.append((key, value, f'at least {least}'))
  for key, span in _SHARES.items():
    value = _find(config, key)
    if value is not None and not _is_within(value, span):
      wrong.append((key, value, f'in {span}'))
  for key, choices in _CHOICES.items():
    value = _find(config, key)
    if value is not None and value not in choices:
      wrong.append((key, repr(value), f'one of {", ".join(choices)}'))
  for key, (fits, wanted) in _OR_AUTO.items():
    value = _find(config, key)
    if value is not None and value != 'auto' and not fits(value):
      wrong.append((key, value, f"{wanted} or 'auto'"))
  for key, (length, least) in lists.items():
    values = _find(config, key)
    if values is None:
      continue
    fits = bool(values) if length is None else len(values) == length
    if not fits or min(values) < least:
      count = 'one or more numbers' if length is None else f'{length} numbers'
      wrong.append((key, tuple(values), f'{count}, each at least {least}'))
  profiled = tuple(_find(config, 'train.profile_steps') or ())
  if list(profiled) != sorted(profiled):
    wrong.append(('train.profile_steps', profiled, 'the first step, the last'))
  optimizer = config.optimizer
  if optimizer.schedule == 'plateau' and optimizer.warmup_steps > 0:
    wrong.append(
      (
        'optimizer.warmup_steps',
        optimizer.warmup_steps,
        "0 with config.optimizer.schedule='plateau', which starts at the full "
        "rate (or choose 'constant' or 'cosine')",
      )
    )
  # U2-Net's encoder has no name of its own.
  name = _find(config, 'model.encoder.name') or config.model.name
  stages = models.ENCODER_STAGES.get(name, 0)
  frozen = _find(config, 'model.encoder.frozen_stages') or 0
  if stages and frozen > stages:
    wanted = f'at most {stages}, the stages of {name}'
    wrong.append(('model.encoder.frozen_stages', frozen, wanted))
  weights = _find(config, 'model.encoder.weights')
  if weights and _find(config, 'init_from'):
    wanted = "'' where config.init_from gives all weights (or empty that)"
    wrong.append(('model.encoder.weights', repr(weights), wanted))
  if (
    name in efficientnet.VARIANTS
    and len(config.data.size) == 2
    and any(side % 32 for side in config.data.size)
  ):
    wrong.append(('data.size', tuple(config.data.size), 'multiples of 32'))
  if wrong:
    raise errors.UserError(
      '\n'.join(
        f'config.{key} must be {wanted}, got {value}.'
        for key, value, wanted in wrong
      )
    )


def _find(config: ConfigDict, path: str) -> Any:
  value: Any = config
  for key in path.split('.'):
    value = value.get(key) if value is not None else None
  return value


def _is_within(value: float, span: str) -> bool:
  above = value >= 0 if span.startswith('[') else value > 0
  below = value <= 1 if span.endswith(']') else value < 1
  return above and below
