"""Builds the objects of a training from its configuration."""

import json
from typing import Any, NamedTuple

import ml_collections
import optax
from jax.sharding import Mesh

from rmbg_jax import models
from rmbg_jax.models.flax_network import FlaxNetwork
from rmbg_jax.models.preprocessing import Preprocessing, make_preprocessing
from rmbg_jax.training import (
  inputs,
  losses,
  monitor,
  optimizers,
  settings,
  state,
)
from rmbg_jax.training import step as step_lib
from rmbg_jax.weights import imagenet, load

# For `model.remat` and `optimizer.accumulation`: what the device's memory asks
# for (`memory.py`).
AUTO = 'auto'


class Components(NamedTuple):
  """The objects that the loop works with.

  Attributes:
    model: The network.
    preprocessing: Preprocessing of the network's input.
    data: Training and validation data.
    optimizer: Optimiser of the network's parameters.
    schedule: The learning rate by step; with a plateau, the first one.
    loss_options: The keyword arguments `loss_weights` and `output_weights` of
      the steps.
    monitor_settings: Settings for when the rate falls and when the training
      ends.
    description: Description in every checkpoint, without the position.
  """

  model: FlaxNetwork
  preprocessing: Preprocessing
  data: inputs.Inputs
  optimizer: optax.GradientTransformation
  schedule: optimizers.Schedule
  loss_options: dict[str, Any]
  monitor_settings: monitor.MonitorSettings
  description: dict[str, Any]


def make_schedule(
  config: ml_collections.ConfigDict, *, steps: int, epochs: int = 0
) -> optimizers.Schedule:
  """Returns the learning rate as a function of the step.

  Args:
    config: The configuration.
    steps: Steps of an epoch.
    epochs: Length of the training, 0 for the configuration's.
  """
  return optimizers.make_schedule(
    config.optimizer.schedule,
    learning_rate=config.optimizer.learning_rate,
    warmup_steps=config.optimizer.warmup_steps,
    total_steps=(epochs or config.train.epochs) * steps,
  )


def make_components(config: ml_collections.ConfigDict) -> Components:
  """Returns the components of the training that `config` describes.

  What is 'auto' is left open: `settle` takes what was chosen.

  Raises:
    FileNotFoundError: if the data is not there.
    ValueError: if it, or the configuration, is not as it should be.
  """
  settings.check_config(config)
  architecture, model = create_model(config)
  preprocessing = make_preprocessing(
    config.data.normalization or _default_normalization(config.model),
    size=tuple(config.data.size),
  )
  loss_weights = dict(config.loss.weights)
  output_weights = tuple(config.loss.outputs)
  losses.check_weights(loss_weights, output_weights)
  monitor_settings = monitor.MonitorSettings(
    **config.optimizer.plateau, stop_patience=config.train.early_stopping
  )
  # After the checks: this reads the header of every file.
  data = inputs.make_inputs(config, size=preprocessing.size)
  schedule = make_schedule(config, steps=data.steps_per_epoch)
  optimizer = optimizers.make_optimizer(
    weight_decay=config.optimizer.weight_decay,
    clip_norm=config.optimizer.clip_norm,
    encoder_rate=config.optimizer.encoder_rate,
    is_frozen=lambda child: (
      model.network.find_stage(child) <= count_frozen(config)
    ),
  )
  sources = {pair.source or config.data.name for pair in data.training}
  description = {
    'architecture': architecture,
    'preprocessing': preprocessing.to_dict(),
    'config': _to_json(config),
    'training_data': sorted(sources),
    'data': inputs.describe(data),
  }
  return Components(
    model,
    preprocessing,
    data,
    optimizer,
    schedule,
    {'loss_weights': loss_weights, 'output_weights': output_weights},
    monitor_settings,
    description,
  )


def settle(
  components: Components, config: ml_collections.ConfigDict
) -> Components:
  """Returns the components with a configuration in which nothing is 'auto'."""
  return components._replace(
    model=create_model(config)[1],
    description={**components.description, 'config': _to_json(config)},
  )


def _to_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
  # As a checkpoint has it, so that both compare: tuples become lists.
  return json.loads(config.to_json_best_effort())


def _default_normalization(model_config: ml_collections.ConfigDict) -> str:
  """Returns the normalisation of the encoder's published weights."""
  encoder = model_config.encoder
  if encoder.get('name', '').startswith('efficientnet'):
    return 'efficientnet'
  return encoder.get('dialect', model_config.name)


def create_model(
  config: ml_collections.ConfigDict,
) -> tuple[dict[str, Any], FlaxNetwork]:
  """Returns the architecture that `config.model` describes, and the network.

  The architecture is what a checkpoint stores: everything in `config.model`
  but where the first weights come from and how it is computed. After
  `config.init_from`, batch statistics have at least `config.init_bn_momentum`.
  """
  architecture = _to_json(config.model)
  if config.init_from:
    architecture['bn_momentum'] = max(
      architecture['bn_momentum'], config.init_bn_momentum
    )
  computation = {key: architecture.pop(key) for key in ('dtype', 'remat')}
  computation['remat'] = computation['remat'] is True  # Not while 'auto'.
  for key in ('weights', 'frozen_stages'):  # U2-Net has no weights.
    architecture['encoder'].pop(key, None)
  return architecture, models.create_model(architecture, **computation)


def count_frozen(config: ml_collections.ConfigDict) -> int:
  """Returns the number of the encoder's frozen stages."""
  # At a rate of 0 nothing moves; frozen, it costs no gradient either.
  if config.optimizer.encoder_rate == 0:
    return models.ENCODER_STAGES[
      config.model.encoder.get('name', config.model.name)
    ]
  return config.model.encoder.frozen_stages


def create_train_state(
  config: ml_collections.ConfigDict,
  components: Components,
  mesh: Mesh,
  *,
  resumed: bool,
) -> state.TrainState:
  """Returns the state before the first step, replicated over the mesh.

  Args:
    config: Says where the first weights come from.
    components: Components made of the same configuration.
    mesh: The devices.
    resumed: Whether a checkpoint will replace all numbers; then any will do.

  Raises:
    FileNotFoundError: if weights are missing.
    ValueError: if they do not fit the network.
  """
  encoder = config.model.encoder
  if config.init_from and not resumed:
    variables = load.load_variables(config.init_from, components.model)
  else:
    variables = state.create_variables(components.model, seed=config.seed)
    if encoder.get('weights') and not resumed:
      variables = imagenet.load_encoder(variables, encoder.to_dict())
  return state.create_train_state(
    variables,
    components.optimizer,
    mesh,
    use_ema=config.optimizer.ema_decay > 0,
  )


def make_train_step(
  config: ml_collections.ConfigDict, components: Components
) -> step_lib.TrainStep:
  """Returns the jitted training step that `config` describes."""
  accumulation = config.optimizer.accumulation
  return step_lib.make_train_step(
    components.model,
    components.optimizer,
    components.preprocessing,
    frozen_stages=count_frozen(config),
    accumulation=1 if accumulation == AUTO else accumulation,
    ema_decay=config.optimizer.ema_decay,
    deterministic=config.deterministic,
    **components.loss_options,
  )


def find_training_data(
  config: ml_collections.ConfigDict, components: Components
) -> list[str]:
  """Returns the sources that a new training's network has seen when it ends.

  Those of its data, and of the network that `config.init_from` names.
  """
  sources = set(components.description['training_data'])
  if config.init_from:
    before = load.load_fitting(config.init_from, components.model)
    sources.update(before.description.get('training_data') or ())
  return sorted(sources)
