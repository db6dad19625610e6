"""A training small enough for tests, and a step of it."""

import contextlib
import csv
import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax
import numpy as np
import pytest
from PIL import Image

from configs import demo
from rmbg_jax.models import flax_network
from rmbg_jax.training import setup, state, validation
from rmbg_jax.training.step import make_train_step, read_metrics

TINY_OVERRIDES = {
  'data.size': (32, 32),
  'data.batch_size': 8,
  'data.demo.count': 24,
  'data.demo.size': 48,
  'model.encoder.width': 4,
  'model.bridge.filters': 8,
  'model.bridge.rates': (2,),
  'model.decoder.filters': (8, 8, 8, 8),
  'optimizer.warmup_steps': 2,
  'train.epochs': 2,
  'train.grid_every': 1,
  'train.grid_images': 3,
  'train.tensorboard': False,
}


@dataclasses.dataclass(frozen=True)
class _Encoder:
  """A network of an encoder alone, whose outputs are its features."""

  channels: ClassVar[int] = 3
  compute_features: Callable
  options: tuple
  bn_momentum: float = 0.9

  def compute(self, layers, images):
    features = self.compute_features(layers, images, **dict(self.options))
    return tuple(features)

  def find_stage(self, child):
    raise NotImplementedError


def make_encoder(compute_features, **options):
  """A Flax module that returns an encoder's features, fine to coarse."""
  return flax_network.FlaxNetwork(
    _Encoder(compute_features, tuple(options.items()))
  )


def make_photo(size, seed=0):
  """An RGB image of (width, height) full of noise."""
  pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3))
  return Image.fromarray(pixels.astype(np.uint8))


def save_random_release(path):
  """Writes a release of the tiny network with random weights."""
  from rmbg_jax.models import preprocessing
  from rmbg_jax.training import setup, state
  from rmbg_jax.weights import release

  config = make_config('')
  architecture, model = setup.create_model(config)
  # A seed whose masks have foreground and background.
  variables = state.create_variables(model, seed=6)
  description = {
    'architecture': architecture,
    'preprocessing': preprocessing.make_preprocessing(
      config.model.encoder.dialect, size=tuple(config.data.size)
    ).to_dict(),
  }
  release.save_release(path, variables, description)


def make_config(data_dir, **overrides):
  """The demo's configuration, shrunk, on a data set at `data_dir`."""
  config = demo.get_config()
  config.update_from_flattened_dict(
    {**TINY_OVERRIDES, 'data.dir': str(data_dir), **overrides}
  )
  return config


_PROGRAMS = {}


@contextlib.contextmanager
def sharing_programs():
  """Has trainings of equal settings share what they trace and compile.

  That is most of the time of a training in this process. What a program
  computes must not depend on anything but its settings meanwhile.
  """

  def share(patch, module, name, describe=lambda *settings: settings):
    make = getattr(module, name)

    def find(*arguments, **options):
      key = repr((name, describe(*arguments), sorted(options.items())))
      if key not in _PROGRAMS:
        _PROGRAMS[key] = make(*arguments, **options)
      return _PROGRAMS[key]

    patch.setattr(module, name, find)

  with pytest.MonkeyPatch.context() as patch:
    share(patch, state, 'create_variables')
    share(patch, validation, 'make_eval_step')
    share(patch, setup, 'make_train_step', _describe_train_step)
    yield


def _describe_train_step(config, parts):
  optimizer = config.optimizer
  return (
    *(parts.model, parts.preprocessing, parts.loss_options),
    *(config.deterministic, setup.count_frozen(config)),
    *(optimizer.weight_decay, optimizer.clip_norm, optimizer.encoder_rate),
    *(optimizer.accumulation, optimizer.ema_decay),
  )


def read_log(workdir):
  """The rows of a training's CSV log, as text."""
  with (workdir / 'log.csv').open() as file:
    return list(csv.DictReader(file))


def make_step(
  model, preprocessing, optimizer, mesh, *, use_ema=False, **options
):
  """The jitted step with the original's loss, and the state before it."""
  train_state = state.create_train_state(
    state.create_variables(model, seed=0),
    optimizer,
    mesh,
    use_ema=use_ema,
  )
  step = make_train_step(
    model,
    optimizer,
    preprocessing,
    loss_weights={'bce': 1.0},
    output_weights=(1.0,) * len(model.network.decoder_filters),
    **options,
  )
  return step, train_state


def take_gradient_step(step, train_state, batch, mesh):
  """Loss, gradient and batch statistics of a step, as NumPy arrays.

  Args:
    step: with `optax.sgd(1.0)`: a plain gradient step of size 1 shows the
      gradient. Adam's first would amplify rounding.
    train_state: before it.
    batch: this process's part.
    mesh: the devices.
  """
  before = jax.device_get(train_state.params)
  train_state, metrics = step(train_state, state.put_batch(batch, mesh), 1.0)
  gradient = jax.tree.map(
    lambda old, new: old - new, before, jax.device_get(train_state.params)
  )
  stats = jax.device_get(train_state.batch_stats)
  return read_metrics(metrics)['loss'], gradient, stats


def assert_same_gradient(left, right):
  """Equal to 1e-4 of each parameter's largest entry."""
  left, right = jax.tree.leaves(left), jax.tree.leaves(right)
  scale = max(np.abs(leaf).max() for leaf in left)
  for one, other in zip(left, right, strict=True):
    # Absolute for those that are zero but for rounding.
    limit = 1e-4 * np.abs(one).max() + 1e-6 * scale
    assert np.abs(one - other).max() <= limit
