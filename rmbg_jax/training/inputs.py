"""Makes a training's batches from its configuration."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import ml_collections

from data_pipelines.batches import device_augment, device_loader, transforms
from data_pipelines.datasets import records, sources
from data_pipelines.io import errors
from data_pipelines.io.types import JsonObject
from rmbg_jax.training import state


class BatchIterator(Protocol):
  """An endless iterator of this process's part of the training batches."""

  def __next__(self) -> state.Batch:
    """Returns the next batch."""
    ...

  def get_state(self) -> dict[str, Any]:
    """Returns the position after the last batch, JSON-compatible."""
    ...

  def set_state(self, state: JsonObject) -> None:
    """Goes to a position that `get_state` has returned."""


class Inputs(NamedTuple):
  """The data that a training reads.

  Attributes:
    training: The pairs to train on.
    validation: The pairs to validate on.
    train_batches: Endless iterator of the batches to train on.
    eval_batches: One pass over the validation pairs, to be walked repeatedly.
    steps_per_epoch: Training steps per epoch.
  """

  training: Sequence[records.Pair]
  validation: Sequence[records.Pair]
  train_batches: BatchIterator
  eval_batches: Iterable[state.Batch]
  steps_per_epoch: int


def make_inputs(
  config: ml_collections.ConfigDict, *, size: tuple[int, int]
) -> Inputs:
  """Returns the batches that a configuration describes, at (height, width).

  Raises:
    MissingFileError: if the data is not there.
    UserError: if it, or the configuration, is not as it should be.
  """
  data = config.data
  _check_batch_size(data.batch_size, config.optimizer.accumulation)
  training, validation = sources.load_pairs(
    data.name,
    data.dir,
    validation_share=data.validation_share,
    limit=data.limit,
    demo_count=data.demo.count,
    demo_size=data.demo.size,
  )
  labels = sorted({pair.label for pair in training})
  if not any(config.loss.labels[label] for label in labels):
    raise errors.UserError(
      f'All training images are labelled {", ".join(labels)}, which '
      'config.loss.labels weighs 0, so nothing would be learnt. Raise it.'
    )
  make_batches = {'grain': _make_grain_batches, 'device': _make_device_batches}
  train_batches, eval_batches = make_batches[data.loader](
    config,
    training,
    validation,
    decode=transforms.Decode(
      size,
      allow_empty=data.allow_empty_masks,
      label_weights=dict(config.loss.labels),
    ),
    # In validation, all labels count alike.
    decode_evaluated=transforms.Decode(
      size,
      allow_empty=data.allow_empty_masks,
      label_weights=dict.fromkeys(records.LABELS, 1.0),
    ),
  )
  return Inputs(
    training,
    validation,
    train_batches,
    eval_batches,
    # Whole batches alone: the rest of an epoch's order is left out.
    len(training) // data.batch_size,
  )


def describe(data: Inputs) -> dict[str, Any]:
  """Returns how many pairs there are, and a digest of their names.

  Other pairs or another split change the order and the validation.
  """
  parts = {'training': data.training, 'validation': data.validation}
  names = [[pair.name for pair in pairs] for pairs in parts.values()]
  digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()
  return {**{k: len(v) for k, v in parts.items()}, 'names': digest[:16]}


def _make_grain_batches(
  config, training, validation, *, decode, decode_evaluated
):
  # Not at the top: the other loader works without Grain.
  from data_pipelines.batches import loader

  data = config.data
  shared = {
    'batch_size': data.batch_size,
    'read_options': loader.make_read_options(
      threads=data.threads, buffer=data.buffer
    ),
    'sharding': loader.Sharding(
      index=jax.process_index(), count=jax.process_count()
    ),
  }
  train_batches = loader.make_train_iterator(
    training,
    decode=decode,
    augment=transforms.Augment(**data.augment),
    seed=config.seed,
    **shared,
  )
  eval_batches = loader.make_eval_batches(
    validation, decode=decode_evaluated, **shared
  )
  return train_batches, eval_batches


def _make_device_batches(
  config, training, validation, *, decode, decode_evaluated
):
  data = config.data
  shared = {'batch_size': data.batch_size, 'cache_dir': data.device.cache_dir}
  train_batches = device_loader.DeviceIterator(
    training,
    decode=decode,
    augment=device_augment.DeviceAugment(
      **data.augment,
      max_scale=data.device.max_scale,
      max_enlargement=data.device.max_enlargement,
    ),
    shares=dict(data.device.shares),
    seed=config.seed,
    mesh=state.make_mesh(),
    **shared,
  )
  eval_batches = device_loader.EvalBatches(
    validation, decode=decode_evaluated, **shared
  )
  return train_batches, eval_batches


def _check_batch_size(batch_size: int, accumulation: int | str) -> None:
  devices = jax.device_count()
  # 'auto' takes only numbers of parts that fit (`memory.py`).
  parts = 1 if isinstance(accumulation, str) else accumulation
  if batch_size % (devices * parts):
    raise errors.UserError(
      f'config.data.batch_size (={batch_size}) must be a multiple of the '
      f'number of devices (={devices}) times config.optimizer.accumulation '
      f'(={accumulation}). Change one of them, or hide devices, for example '
      'with CUDA_VISIBLE_DEVICES.'
    )
