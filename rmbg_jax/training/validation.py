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
EvalStep = Callable[[Variables, state.Batch], dict[str, Sums]]
PredictStep = Callable[[Variables, state.Batch], tuple[jax.Array, ...]]


def make_eval_step(
  model: flax_network.FlaxNetwork,
  preprocessing: Preprocessing,
  *,
  loss_weights: Mapping[str, float],
  output_weights: Sequence[float],
  deterministic: bool = False,
) -> EvalStep:
  """Returns the jitted step: variables and a batch in, sums of metrics out.

  The batch is as the loader makes it; pairs of weight 0 are padding, and the
  others count alike. The metrics are those of the last output, the loss is the
  training's. If `deterministic`, a GPU gives the same bits every time.
  """

  def eval_step(variables, batch):
    outputs = flax_network.compute(
      model, variables, preprocessing.normalize(batch['image'])
    )
    alpha = batch['alpha'].astype(jnp.float32) / 255
    probs = jax.nn.sigmoid(outputs[-1])
    values = {
      'val_loss': losses.compute_loss(
        outputs, alpha, weights=loss_weights, output_weights=output_weights
      ),
      'val_mae': compute_mae(probs, alpha),
      'val_iou': compute_iou(probs, alpha),
    }
    valid = (batch['weight'] > 0).astype(jnp.float32)
    return {key: sum_valid(v, valid) for key, v in values.items()}

  return jax.jit(
    eval_step,
    compiler_options=compiling.make_options(deterministic=deterministic),
  )


def make_predict_step(
  model: flax_network.FlaxNetwork, preprocessing: Preprocessing, mesh: Mesh
) -> PredictStep:
  """Returns the jitted step to probabilities (b, h, w, 1) of all outputs.

  Every process gets those of the whole batch.
  """

  def predict_step(variables, batch):
    outputs = flax_network.compute(
      model, variables, preprocessing.normalize(batch['image'])
    )
    return tuple(jax.nn.sigmoid(logits) for logits in outputs)

  return jax.jit(
    predict_step,
    out_shardings=state.replicated(mesh),
    compiler_options=compiling.make_options(),
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
    eval_step(variables, state.put_batch(batch, mesh)) for batch in batches
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
