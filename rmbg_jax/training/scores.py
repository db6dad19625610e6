"""Validation metrics, as sums over images.

Sums of batches and devices merge exactly, whatever the size of the last batch.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Sum of an image's values, and their number.
Sums = tuple[Float[Array, ''], Float[Array, '']]


def sum_valid(values: Float[Array, 'b'], valid: Float[Array, 'b']) -> Sums:
  """Returns the sums of a batch; `valid` is 0 for padding, else 1."""
  # Not `values * valid`: what padding computes may be NaN.
  return jnp.sum(jnp.where(valid > 0, values, 0)), jnp.sum(valid)


def compute_mae(
  probs: Float[Array, 'b h w 1'], alpha: Float[Array, 'b h w 1']
) -> Float[Array, 'b']:
  """Returns the mean absolute error of each image, in [0, 1]."""
  return jnp.mean(jnp.abs(probs - alpha), axis=(1, 2, 3))


def compute_iou(
  probs: Float[Array, 'b h w 1'], alpha: Float[Array, 'b h w 1']
) -> Float[Array, 'b']:
  """Returns each image's intersection over union, both binarised at 0.5.

  An empty truth with an empty prediction scores 1.
  """
  predicted, true = probs > 0.5, alpha > 0.5
  axes = (1, 2, 3)
  intersection = jnp.sum(predicted & true, axis=axes)
  union = jnp.sum(predicted | true, axis=axes)
  return jnp.where(union == 0, 1.0, intersection / jnp.maximum(union, 1))


def merge_all(batches: list[dict[str, Sums]]) -> dict[str, float]:
  """Returns the means over the images of all batches."""
  merged = jax.tree.map(lambda *parts: sum(parts), *batches)
  return {
    key: float(total) / float(count) for key, (total, count) in merged.items()
  }
