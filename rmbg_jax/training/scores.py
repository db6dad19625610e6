"""Validation metrics as mergeable states.

A state holds sums over images, so states of batches and devices merge exactly,
whatever the size of the last batch.
"""

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float


@flax.struct.dataclass
class Mean:
  """A running mean over images.

  Attributes:
    total: Sum of the values.
    count: Number of values.
  """

  total: Float[Array, '']
  count: Float[Array, '']

  @classmethod
  def from_values(
    cls, values: Float[Array, 'b'], valid: Float[Array, 'b']
  ) -> 'Mean':
    """Returns the state of a batch; `valid` is 0 for padding, else 1."""
    # Not `values * valid`: what padding computes may be NaN.
    return cls(
      total=jnp.sum(jnp.where(valid > 0, values, 0)), count=jnp.sum(valid)
    )

  def merge(self, other: 'Mean') -> 'Mean':
    """Returns the state of both together."""
    return Mean(self.total + other.total, self.count + other.count)

  def compute(self) -> float:
    """Returns the mean as a Python number."""
    return float(self.total) / float(self.count)


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


def merge_all(states: list[dict[str, Mean]]) -> dict[str, float]:
  """Merges the states of batches and returns the means."""
  merged = states[0]
  for state in states[1:]:
    merged = {key: merged[key].merge(state[key]) for key in merged}
  return {key: mean.compute() for key, mean in merged.items()}
