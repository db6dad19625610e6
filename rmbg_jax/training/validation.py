"""Validation in training: every image once, at the network's resolution.

Metrics are sums over images, which merge exactly over batches and devices,
whatever the size of the last batch.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float

from rmbg_jax.models import compiling, flax_network
from rmbg_jax.models.layers import Variables
from rmbg_jax.models.preprocessing import Preprocessing
from rmbg_jax.training import losses, state

# Sum of an image's values, and their number.
Sums = tuple[Float[Array, ''], Float[Array, '']]
EvalStep = Callable[
  [Variables, state.Batch], tuple[dict[str, Sums], list[jax.Array]]
]


def make_eval_step(
  model: flax_network.FlaxNetwork,
  preprocessing: Preprocessing,
  mesh: Mesh,
  *,
  loss_weights: Mapping[str, float],
  output_weights: Sequence[float],
  deterministic: bool = False,
) -> EvalStep:
  """Returns the jitted step: sums of metrics, and the outputs' probabilities.

  It takes variables and a batch as the loader makes it; pairs of weight 0 are
  padding, and the others count alike. The metrics are those of the last output,
  the loss is the training's. Probabilities are (b, h, w, 1), split along the
  batch. If `deterministic`, a GPU gives the same bits every time.
  """

  def eval_step(variables, batch):
    outputs = flax_network.compute(
      model, variables, preprocessing.normalize(batch['image'])
    )
    alpha = batch['alpha'].astype(jnp.float32) / 255
    probs = [jax.nn.sigmoid(logits) for logits in outputs]
    values = {
      'val_loss': losses.compute_loss(
        outputs, alpha, weights=loss_weights, output_weights=output_weights
      ),
      'val_mae': compute_mae(probs[-1], alpha),
      'val_iou': compute_iou(probs[-1], alpha),
    }
    valid = (batch['weight'] > 0).astype(jnp.float32)
    return {key: sum_valid(v, valid) for key, v in values.items()}, probs

  return jax.jit(
    eval_step,
    out_shardings=(state.replicated(mesh), state.along_batch(mesh)),
    compiler_options=compiling.make_options(deterministic=deterministic),
  )


def evaluate(
  eval_step: EvalStep,
  variables: Variables,
  batches: Iterable[state.Batch],
  *,
  mesh: Mesh,
) -> dict[str, float]:
  """Returns the means over all images of `val_loss`, `val_mae`, `val_iou`."""
  # Nothing is read here, so batches are dispatched without waiting.
  sums = [
    eval_step(variables, state.put_batch(batch, mesh))[0] for batch in batches
  ]
  return merge_all(sums)


def merge_all(batches: list[dict[str, Sums]]) -> dict[str, float]:
  """Returns the means over the images of all batches."""
  merged = jax.tree.map(lambda *parts: sum(parts), *batches)
  return {
    key: float(total) / float(count) for key, (total, count) in merged.items()
  }


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
