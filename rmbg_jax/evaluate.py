"""Evaluation: every image exactly once, at the network's resolution."""

from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from rmbg_jax import losses, metrics, state
from rmbg_jax.preprocessing import Preprocessing

Batch = dict[str, jax.Array]
EvalStep = Callable[
  [Any, Batch], tuple[dict[str, metrics.Mean], tuple[jax.Array, ...]]
]


def make_eval_step(
  model: nn.Module,
  preprocessing: Preprocessing,
  *,
  loss_weights: dict[str, float],
) -> EvalStep:
  """Returns the jitted step: variables and a batch in, metric states out.

  The batch has `image`, `alpha` and `valid` as the loader makes them. The
  metrics are those of the last output; the loss is the training's. The second
  result is the probabilities of all outputs, (b, h, w, 1) in [0, 1].
  """

  @jax.jit
  def eval_step(variables, batch):
    outputs = model.apply(
      variables, preprocessing.normalize(batch['image']), train=False
    )
    alpha = batch['alpha'].astype(jnp.float32) / 255
    probs = tuple(jax.nn.sigmoid(logits) for logits in outputs)
    values = {
      'val_loss': losses.compute_loss(outputs, alpha, weights=loss_weights),
      'val_mae': metrics.compute_mae(probs[-1], alpha),
      'val_iou': metrics.compute_iou(probs[-1], alpha),
    }
    states = {
      key: metrics.Mean.from_values(value, batch['valid'])
      for key, value in values.items()
    }
    return states, probs

  return eval_step


def evaluate(
  eval_step: EvalStep, variables: Any, batches: Iterable[Any], *, mesh: Mesh
) -> dict[str, float]:
  """Returns the means over all images of `val_loss`, `val_mae`, `val_iou`."""
  states = []
  for batch in batches:
    step_states, _ = eval_step(variables, state.put_batch(batch, mesh))
    states.append(step_states)
  return metrics.merge_all(states)
