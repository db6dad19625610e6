"""Draws photos, truth and predictions of a network side by side."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8


def make_grid(
  images: UInt8[np.ndarray, 'b h w 3'],
  alpha: UInt8[np.ndarray, 'b h w 1'],
  outputs: Sequence[Float[np.ndarray, 'b h w 1']],
) -> UInt8[np.ndarray, 'h2 w2 3']:
  """Returns a picture with a row per image: photo, truth, each output.

  Args:
    images: RGB in [0, 255].
    alpha: The truth in [0, 255].
    outputs: Probabilities in [0, 1], coarse to fine.
  """
  columns = [images, np.repeat(alpha, 3, axis=-1)]
  for probs in outputs:
    grey = np.round(np.asarray(probs) * 255).astype(np.uint8)
    columns.append(np.repeat(grey, 3, axis=-1))
  return np.concatenate(
    [np.concatenate(list(column), axis=0) for column in columns], axis=1
  )
