"""Says in words where a training stands."""

from pathlib import Path

import jax
import ml_collections

from data_pipelines.io import words
from data_pipelines.io.types import JsonObject
from rmbg_jax.training import network_table, resume, setup
from rmbg_jax.weights import load

MEMORY_REMEDIES = (
  'Pass --config.optimizer.accumulation=auto --config.model.remat=auto, or '
  'a higher accumulation, or change config.model.dtype (to bfloat16), '
  'config.data.batch_size, config.data.size or config.data.loader (to grain).'
)


def name_batch(config: ml_collections.ConfigDict) -> str:
  """Returns the key and the size of a batch."""
  size = 'x'.join(map(str, config.data.size))
  return f'config.data.batch_size={config.data.batch_size} at {size}'


def describe_beginning(components: setup.Components, workdir: Path) -> str:
  """Returns the network's summary, what is read, and on which devices."""
  data = components.data
  devices = words.count(
    jax.device_count(), f'{jax.devices()[0].platform} device'
  )
  table = network_table.summarize(
    components.model, size=components.preprocessing.size
  )
  text = (
    f'{table}\n{words.count(len(data.training), "image")} to train on, '
    f'{len(data.validation):,} to validate, '
    f'{words.count(data.steps_per_epoch, "step")} per epoch, on '
    f'{devices}. Working directory: {workdir}'
  )
  config = components.description['config']
  steps = config['train']['epochs'] * data.steps_per_epoch
  warmup = config['optimizer']['warmup_steps']
  if warmup >= steps:
    text += (
      '\nThe learning rate rises until the training ends after '
      f'{steps:,} steps: lower config.optimizer.warmup_steps (={warmup}).'
    )
  return text


def describe_other_input(
  config: ml_collections.ConfigDict, components: setup.Components
) -> str:
  """Says that the first weights know another normalisation of the input.

  Returns:
    A sentence, '' if it is the same or `config.init_from` is empty.
  """
  if not config.init_from:
    return ''
  first = load.load_fitting(config.init_from, components.model)
  before = first.preprocessing.normalization
  now = components.preprocessing.normalization
  if before == now:
    return ''
  return (
    f'{config.init_from} was trained on input that is normalised as '
    f'{before or first.preprocessing.to_dict()}, and this training feeds '
    f'{now}: the network must learn its input anew.'
    + (f' To keep it: --config.data.normalization={before}.' if before else '')
  )


def describe_memory(
  wanted: ml_collections.ConfigDict, chosen: ml_collections.ConfigDict
) -> str:
  """Returns what was chosen if a configuration has 'auto', else ''."""
  if setup.AUTO not in (wanted.model.remat, wanted.optimizer.accumulation):
    return ''
  return (
    f'For the memory there is: config.model.remat={chosen.model.remat}, '
    f'config.optimizer.accumulation={chosen.optimizer.accumulation}.'
  )


def describe_changed_rate(
  saved: JsonObject,
  config: ml_collections.ConfigDict,
  steps: int,
  position: resume.Position,
) -> str:
  """Says that another length makes another cosine, and so another rate.

  Args:
    saved: Description in the checkpoint.
    config: Configuration of the training.
    steps: Steps of an epoch.
    position: Position of the checkpoint.

  Returns:
    A sentence, '' if the rate is the same.
  """
  before = saved['config']['train']['epochs']
  step = position.epoch * steps + position.step
  old, new = (
    setup.make_schedule(config, steps=steps, epochs=epochs)(step)
    for epochs in (before, config.train.epochs)
  )
  # A training that is complete needs no rate.
  if config.train.epochs <= position.epoch or old == new:
    return ''
  return (
    f'config.train.epochs was {before} and is {config.train.epochs}: from '
    f'here on the learning rate is {new:.2g} instead of {old:.2g}, as the '
    'cosine is longer or shorter. To begin a new one: '
    '--config.init_from=THIS_WORKDIR and another --workdir.'
  )


def describe_position(
  position: resume.Position, config: ml_collections.ConfigDict, *, resumed: bool
) -> str:
  """Says where a training goes on, or that it is complete."""
  if position.epoch >= config.train.epochs:
    return (
      f'Complete: {words.count(position.epoch, "epoch")}. Raise '
      'config.train.epochs to go on.'
    )
  if position.share >= 1:
    return (
      'Complete: its time (config.train.minutes) is over. To go on, pass '
      '--config.init_from=THIS_WORKDIR and another --workdir.'
    )
  text = 'The first step compiles the network, which takes a while.'
  if resumed:
    where = f'epoch {position.epoch + 1}, step {position.step} of it'
    text = f'Resumed at {where}.\n{text}'
  return text


def describe_end(
  position: resume.Position,
  config: ml_collections.ConfigDict,
  best: int | None,
  workdir: Path,
) -> str:
  """Says why a training has ended, and which checkpoint is the best."""
  lines = []
  if position.share >= 1:
    lines.append(
      f'Ended in time, in epoch {position.epoch} (config.train.minutes).'
    )
  elif position.epoch < config.train.epochs:
    epochs = words.count(config.train.early_stopping, 'epoch')
    lines.append(
      f'Stopped early: no lower validation loss for {epochs} '
      '(config.train.early_stopping).'
    )
  if best is not None:
    lines.append(
      f'Best checkpoint: step {best} in {workdir}. Try it: python -m '
      f'rmbg_jax.predict --checkpoint={workdir} --input=PHOTOS --output=OUT'
    )
  return '\n'.join(lines)
