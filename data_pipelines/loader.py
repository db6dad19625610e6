"""Batches for training and validation, by Grain.

The order and the augmentation depend on the seed, the epoch and the element
alone, not on the number of threads.
"""

import functools
import math
from collections.abc import Sequence

import grain
import numpy as np

from data_pipelines import folder, transforms


def make_train_iterator(
  pairs: Sequence[folder.Pair],
  *,
  decode: transforms.Decode,
  augment: transforms.Augment,
  batch_size: int,
  seed: int,
  read_options: grain.ReadOptions,
) -> grain.DatasetIterator:
  """Returns an endless iterator of training batches.

  An epoch is floor(pairs / batch size) batches, shuffled and augmented anew;
  no batch reaches across epochs. The iterator's `get_state()` belongs to the
  last batch it has returned.

  Returns:
    An iterator of dictionaries: `image` (b, h, w, 3), `alpha` (b, h, w, 1),
    uint8 in [0, 255].

  Raises:
    ValueError: if there are fewer pairs than one batch needs.
  """
  if len(pairs) < batch_size:
    raise ValueError(
      f'{len(pairs)} training images are fewer than one batch: lower '
      f'config.data.batch_size (={batch_size}) or add images.'
    )
  dataset = (
    grain.MapDataset.source(pairs)
    .seed(seed)
    .shuffle()
    .map(decode)
    .random_map(augment)
    .batch(batch_size, drop_remainder=True)
    .repeat(None)  # Last, so that no batch mixes two epochs.
  )
  return iter(dataset.to_iter_dataset(read_options))


def make_eval_batches(
  pairs: Sequence[folder.Pair],
  *,
  decode: transforms.Decode,
  batch_size: int,
  read_options: grain.ReadOptions,
) -> grain.IterDataset:
  """Returns one pass over the pairs in order, each exactly once.

  Returns:
    Batches as of training, with `valid` (b,): 1 for a pair, and 0 for the
    padding that fills the last batch.
  """
  dataset = (
    grain.MapDataset.source(pairs)
    .map(decode)
    .map(lambda element: {**element, 'valid': np.float32(1)})
    .batch(
      batch_size,
      batch_fn=functools.partial(
        grain.experimental.batch_and_pad, batch_size=batch_size
      ),
    )
  )
  return dataset.to_iter_dataset(read_options)


def count_steps(pairs: Sequence[folder.Pair], *, batch_size: int) -> int:
  """Returns the number of training steps in an epoch."""
  return math.floor(len(pairs) / batch_size)
