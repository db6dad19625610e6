"""Resizes by matrix products, as `jax.image.resize(..., 'bilinear')` does."""

import numpy as np
from jaxtyping import Float


def make_weights(old: int, new: int) -> Float[np.ndarray, 'new old']:
  """Returns the weights of a side's old pixels in its new ones.

  A triangle as wide as two pixels of the coarser side.
  """
  scale = old / new
  centres = (np.arange(new) + 0.5) * scale - 0.5
  distances = np.abs(centres[:, None] - np.arange(old)) / max(scale, 1)
  weights = np.maximum(0, 1 - distances)
  # At the border, a part of the triangle lies outside of the picture.
  return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def resize(
  planes: Float[np.ndarray, '*b h w'], size: tuple[int, int]
) -> Float[np.ndarray, '*b h2 w2']:
  """Returns planes at another (height, width), in float32."""
  planes = planes.astype(np.float32)
  if planes.shape[-2:] == size:
    return planes
  rows, columns = map(make_weights, planes.shape[-2:], size)
  return rows @ planes @ columns.T
