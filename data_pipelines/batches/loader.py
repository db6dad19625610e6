"""Batches for training and validation, by Grain.

The order and the augmentation depend on the seed, the epoch and the element
alone, not on the number of threads or processes. Of several processes (hosts),
each reads its own part of every global batch.
"""

import dataclasses
from collections.abc import Sequence

import grain

from data_pipelines.batches import transforms
from data_pipelines.datasets import records
from data_pipelines.io import errors, parallel

# Grain's own default. Each holds a batch: at 512x512, 64 pairs are 67 MB.
_MOST_THREADS = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sharding:
  """The part of every global batch that this process reads.

  Attributes:
    index: Number of this process, from 0.
    count: Number of processes.
  """

  index: int = 0
  count: int = 1

  def take(self, dataset: grain.MapDataset) -> grain.MapDataset:
    """Returns every `count`-th element, from the `index`-th on."""
    return dataset[self.index :: self.count] if self.count > 1 else dataset


def make_read_options(*, threads: int, buffer: int) -> grain.ReadOptions:
  """Returns how Grain reads ahead.

  Args:
    threads: Each of them makes a batch, alone; 0 for one per core, at most 16.
    buffer: Batches read ahead; 0 for two more than threads, so that none of
      them waits.
  """
  threads = threads or min(parallel.count_cores(), _MOST_THREADS)
  return grain.ReadOptions(
    num_threads=threads, prefetch_buffer_size=buffer or threads + 2
  )


def make_train_iterator(
  pairs: Sequence[records.Pair],
  *,
  decode: transforms.Decode,
  augment: transforms.Augment,
  batch_size: int,
  seed: int,
  read_options: grain.ReadOptions,
  sharding: Sharding,
) -> grain.DatasetIterator:
  """Returns an endless iterator of training batches.

  An epoch is floor(pairs / batch size) batches, shuffled and augmented anew;
  no batch reaches across epochs. The iterator's `get_state()` belongs to the
  last batch it has returned.

  Args:
    pairs: All pairs, of all processes.
    decode: Reads a pair.
    augment: Changes it at random.
    batch_size: Images in the global batch; a process gets its share.
    seed: Seed of order and augmentation.
    read_options: Threads, and batches read ahead.
    sharding: This process's part.

  Returns:
    An iterator of dictionaries: `image` (b, h, w, 3), `alpha` (b, h, w, 1),
    uint8 in [0, 255], and `weight` (b,).

  Raises:
    UserError: if there are fewer pairs than one batch needs.
  """
  steps = len(pairs) // batch_size
  if not steps:
    raise errors.UserError(
      f'{len(pairs)} training images are fewer than one batch: lower '
      f'config.data.batch_size (={batch_size}) or add images.'
    )
  random_decode = transforms.RandomDecode(decode, augment, pairs)
  dataset = grain.MapDataset.source(pairs).seed(seed).shuffle()
  dataset = dataset.random_map(random_decode.random_map)
  # The same whole number of batches for every process.
  dataset = sharding.take(dataset[: steps * batch_size])
  dataset = dataset.batch(batch_size // sharding.count, drop_remainder=True)
  # Repeated last, so that no batch mixes two epochs.
  return iter(dataset.repeat(None).to_iter_dataset(read_options))


def make_eval_batches(
  pairs: Sequence[records.Pair],
  *,
  decode: transforms.Decode,
  batch_size: int,
  read_options: grain.ReadOptions,
  sharding: Sharding,
) -> grain.IterDataset:
  """Returns one pass over the pairs in order, each exactly once.

  Returns:
    Batches as of training; the last is filled with padding of weight 0.
  """
  padded = list(pairs) + [transforms.PADDING] * (-len(pairs) % batch_size)
  dataset = sharding.take(grain.MapDataset.source(padded).map(decode.map))
  dataset = dataset.batch(batch_size // sharding.count)
  return dataset.to_iter_dataset(read_options)
