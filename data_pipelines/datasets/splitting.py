"""Divides pairs into training and validation."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from data_pipelines.datasets.records import Pair
from data_pipelines.io.errors import UserError


def split_pairs(
  pairs: Sequence[Pair], *, validation_share: float
) -> tuple[list[Pair], list[Pair]]:
  """Splits into training and validation.

  The data set's own split counts where it has validation pairs. Otherwise what
  is not for tests is split as the Keras project splits the sorted list with
  scikit-learn's `train_test_split` and seed 42: the first ceil(count x share)
  of a permutation are for validation. The results are sorted as the pairs are,
  by name; the share is in (0, 1).

  Raises:
    ValueError: if either would be empty.
  """
  if any(pair.split == 'val' for pair in pairs):
    # A pair that is not said to be held out is trained on.
    training = [pair for pair in pairs if pair.split in ('train', '')]
    validation = [pair for pair in pairs if pair.split == 'val']
  else:
    usable = [pair for pair in pairs if pair.split != 'test']
    # The old generator: scikit-learn's, so that the split is the Keras
    # project's.
    order = np.random.RandomState(42).permutation(len(usable)).tolist()
    held_out = math.ceil(len(usable) * validation_share)
    training = [usable[i] for i in sorted(order[held_out:])]
    validation = [usable[i] for i in sorted(order[:held_out])]
  for part, name in ((training, 'training'), (validation, 'validation')):
    if not part:
      raise UserError(
        f'No pair is left for {name} out of {len(pairs)}. Change the Split '
        'column of Dataset.csv, or config.data.validation_share '
        f'(={validation_share}).'
      )
  return training, validation


def assign_splits(
  pairs: Sequence[Pair], *, validation_share: float
) -> list[Pair]:
  """Returns all pairs with the split that `split_pairs` puts them in.

  Splits of the pairs' own are not regarded.
  """
  bare = [dataclasses.replace(pair, split='') for pair in pairs]
  _, validation = split_pairs(bare, validation_share=validation_share)
  held_out = {pair.name for pair in validation}
  return [
    dataclasses.replace(pair, split='val' if pair.name in held_out else 'train')
    for pair in bare
  ]
