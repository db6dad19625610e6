"""From a configuration to the batches of a training."""

from typing import NamedTuple

import grain
import jax
import ml_collections

from data_pipelines import folder, loader, sources, transforms

LOADERS = ('grain',)


class Inputs(NamedTuple):
  """What a training reads.

  Attributes:
    training: the pairs to train on.
    validation: the pairs to validate on.
    train_batches: an endless iterator of this process's part of the batches.
    eval_batches: one pass over the validation pairs, to be walked repeatedly.
    steps_per_epoch: training steps per epoch.
  """

  training: list[folder.Pair]
  validation: list[folder.Pair]
  train_batches: grain.DatasetIterator
  eval_batches: grain.IterDataset
  steps_per_epoch: int


def make_inputs(
  config: ml_collections.ConfigDict, *, size: tuple[int, int]
) -> Inputs:
  """Returns what the configuration says to read, at (height, width).

  Raises:
    FileNotFoundError: if the data is not there.
    ValueError: if it, or the configuration, is not as it should be.
  """
  data = config.data
  if data.loader not in LOADERS:
    raise ValueError(
      f'Unknown config.data.loader {data.loader!r}; choose one of '
      f'{", ".join(LOADERS)}.'
    )
  _check_batch_size(data.batch_size, config.optimizer.accumulation)
  training, validation = sources.load_pairs(
    data.name,
    data.dir,
    validation_share=data.validation_share,
    limit=data.limit,
    demo_count=data.demo.count,
    demo_size=data.demo.size,
  )
  shared = {
    'batch_size': data.batch_size,
    'read_options': grain.ReadOptions(
      num_threads=data.threads, prefetch_buffer_size=data.buffer
    ),
    'sharding': loader.Sharding(
      index=jax.process_index(), count=jax.process_count()
    ),
  }
  train_batches = loader.make_train_iterator(
    training,
    decode=transforms.Decode(
      size,
      allow_empty=data.allow_empty_masks,
      label_weights=dict(config.loss.labels),
    ),
    augment=transforms.Augment(
      flip=data.augment.flip, min_scale=data.augment.min_scale
    ),
    seed=config.seed,
    **shared,
  )
  eval_batches = loader.make_eval_batches(
    validation,
    # In validation, all labels count alike.
    decode=transforms.Decode(
      size,
      allow_empty=data.allow_empty_masks,
      label_weights=dict.fromkeys(folder.LABELS, 1.0),
    ),
    **shared,
  )
  return Inputs(
    training,
    validation,
    train_batches,
    eval_batches,
    loader.count_steps(training, batch_size=data.batch_size),
  )


def _check_batch_size(batch_size: int, accumulation: int) -> None:
  devices = jax.device_count()
  if accumulation < 1:
    raise ValueError(
      f'config.optimizer.accumulation must be at least 1, got {accumulation}.'
    )
  if batch_size % (devices * accumulation):
    raise ValueError(
      f'config.data.batch_size (={batch_size}) must be a multiple of the '
      f'number of devices (={devices}) times config.optimizer.accumulation '
      f'(={accumulation}). Change one of them, or hide devices, for example '
      'with CUDA_VISIBLE_DEVICES.'
    )
