"""Validation in training: every image once, at the network's resolution."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from rmbg_jax.models import compiling, flax_network
from rmbg_jax.models.layers import Variables
from rmbg_jax.models.preprocessing import Preprocessing
from rmbg_jax.training import losses, scores, state

EvalStep = Callable[[Variables, state.Batch], dict[str, scores.Sums]]
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
      'val_mae': scores.compute_mae(probs, alpha),
      'val_iou': scores.compute_iou(probs, alpha),
    }
    valid = (batch['weight'] > 0).astype(jnp.float32)
    return {key: scores.sum_valid(v, valid) for key, v in values.items()}

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
  sums = [
    eval_step(variables, state.put_batch(batch, mesh)) for batch in batches
  ]
  return scores.merge_all(sums)
