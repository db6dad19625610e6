"""Losses on logits, as pure functions of arrays, one value per image.

Everything is computed in float32 from logits: log(sigmoid(x)) is exact where
sigmoid(x) has already rounded to 0 or 1.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float


def compute_bce(
  logits: Float[Array, 'b h w 1'], alpha: Float[Array, 'b h w 1']
) -> Float[Array, 'b']:
  """Returns the mean binary cross-entropy; alpha in [0, 1] may be soft."""
  return jnp.mean(
    optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), alpha),
    axis=(1, 2, 3),
  )


def compute_iou_loss(
  logits: Float[Array, 'b h w 1'], alpha: Float[Array, 'b h w 1']
) -> Float[Array, 'b']:
  """Returns 1 - soft intersection over union.

  Rahman and Wang, "Optimizing Intersection-Over-Union in Deep Neural Networks
  for Image Segmentation", ISVC 2016. One pixel is added on both sides of the
  fraction, so that an empty truth with an empty prediction costs nothing.
  """
  probs = jax.nn.sigmoid(logits.astype(jnp.float32))
  axes = (1, 2, 3)
  intersection = jnp.sum(probs * alpha, axis=axes)
  union = jnp.sum(probs + alpha - probs * alpha, axis=axes)
  return 1 - (intersection + 1) / (union + 1)


LOSSES = {'bce': compute_bce, 'iou': compute_iou_loss}


def compute_loss(
  outputs: Sequence[Float[Array, 'b h w 1']],
  alpha: Float[Array, 'b h w 1'],
  *,
  weights: dict[str, float],
) -> Float[Array, 'b']:
  """Returns the weighted sum of losses, averaged over the outputs.

  Args:
    outputs: the network's logits, coarse to fine.
    alpha: the truth in [0, 1].
    weights: weight of each loss by its name in `LOSSES`; those with weight 0
      are not computed. `{'bce': 1.0}` is the original's loss.

  Raises:
    ValueError: for an unknown loss, or if all weights are zero.
  """
  unknown = sorted(set(weights) - set(LOSSES))
  if unknown:
    raise ValueError(
      f'Unknown loss {", ".join(unknown)} in config.loss; choose from '
      f'{sorted(LOSSES)}.'
    )
  active = {name: weight for name, weight in weights.items() if weight}
  if not active:
    raise ValueError('All weights in config.loss are 0; set at least one.')
  per_output = [
    sum(weight * LOSSES[name](logits, alpha) for name, weight in active.items())
    for logits in outputs
  ]
  return sum(per_output) / len(per_output)
