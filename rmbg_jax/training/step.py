"""The training step: a pure function of the state and a batch."""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from rmbg_jax.models import compiling
from rmbg_jax.models.flax_network import FlaxNetwork
from rmbg_jax.models.layers import Variables
from rmbg_jax.models.preprocessing import Preprocessing
from rmbg_jax.training import losses, optimizers, state

# Figures of a step, as one array, so that reading them is one transfer.
METRICS = ('loss', 'grad_norm', 'param_norm', 'update_norm')
Metrics = Float[Array, '4']
TrainStep = Callable[
  [state.TrainState, state.Batch, jax.Array], tuple[state.TrainState, Metrics]
]


def read_metrics(metrics: Metrics) -> dict[str, float]:
  """Returns a step's metrics by name, when it is done."""
  return dict(zip(METRICS, jax.device_get(metrics).tolist(), strict=True))


def make_train_step(
  model: FlaxNetwork,
  optimizer: optax.GradientTransformation,
  preprocessing: Preprocessing,
  *,
  loss_weights: Mapping[str, float],
  output_weights: Sequence[float],
  frozen_stages: int = 0,
  accumulation: int = 1,
  ema_decay: float = 0.0,
  deterministic: bool = False,
) -> TrainStep:
  """Returns the jitted training step.

  It takes the state (whose buffers it reuses), a batch as the loader makes it,
  and the learning rate, and returns the next state and the step's `METRICS`.
  Over a mesh, the loss, its gradient and the batch statistics are those of the
  whole global batch.

  Args:
    model: The network.
    optimizer: Optimiser of its parameters; its `update` gets `learning_rate`.
    preprocessing: Preprocessing of its input.
    loss_weights: See `losses.compute_loss`.
    output_weights: See `losses.compute_loss`.
    frozen_stages: Number of the encoder's stages that stay as they are,
      statistics included; the optimiser must leave them alone as well.
    accumulation: Parts that a batch is computed in, one after the other, to
      save memory. The gradient is that of the whole batch, but for the batch
      statistics, which are those of each part.
    ema_decay: Decay of the moving averages, which the state must have, or 0. In
      the first steps it is (1 + step) / (10 + step), as long as that is lower.
    deterministic: Whether a GPU must give the same bits every time.
  """

  def compute_loss(params, batch_stats, batch, total_weight):
    outputs, updates = model.apply(
      {'params': params, 'batch_stats': batch_stats},
      preprocessing.normalize(batch['image']),
      train=True,
      frozen_stages=frozen_stages,
      mutable=['batch_stats'],
    )
    per_image = losses.compute_loss(
      outputs,
      batch['alpha'].astype(jnp.float32) / 255,
      weights=loss_weights,
      output_weights=output_weights,
    )
    # By the whole batch's weight, so that parts add up to its mean.
    loss = jnp.sum(per_image * batch['weight']) / total_weight
    return loss, updates['batch_stats']

  compute_grads = jax.value_and_grad(compute_loss, has_aux=True)

  def accumulate_grads(params, batch_stats, batch, total_weight):
    def add_part(carry, part):
      # Statistics go from part to part, so each part moves the running ones.
      loss, batch_stats, grads = carry
      (part_loss, batch_stats), part_grads = compute_grads(
        params, batch_stats, part, total_weight
      )
      grads = jax.tree.map(jnp.add, grads, part_grads)
      return (loss + part_loss, batch_stats, grads), None

    # Every part takes its share from every device's images.
    parts = jax.tree.map(
      lambda x: x.reshape(-1, accumulation, *x.shape[1:]).swapaxes(0, 1), batch
    )
    zeros = jax.tree.map(jnp.zeros_like, params)
    start = (jnp.zeros(()), batch_stats, zeros)
    (loss, batch_stats, grads), _ = jax.lax.scan(add_part, start, parts)
    return (loss, batch_stats), grads

  def train_step(train_state, batch, learning_rate):
    compute = compute_grads if accumulation == 1 else accumulate_grads
    (loss, batch_stats), grads = compute(
      train_state.params,
      train_state.batch_stats,
      batch,
      # Labels may weigh 0, and so may all pairs of a batch.
      jnp.maximum(jnp.sum(batch['weight']), 1e-6),
    )
    updates, opt_state = optax.with_extra_args_support(optimizer).update(
      grads,
      train_state.opt_state,
      train_state.params,
      learning_rate=learning_rate,
    )
    params = cast(Variables, optax.apply_updates(train_state.params, updates))
    norms = [optimizers.compute_norm(tree) for tree in (grads, params, updates)]
    step_metrics = jnp.stack([loss, *norms])
    ema = train_state.ema
    if ema_decay:
      step = train_state.step.astype(jnp.float32)
      # As TensorFlow's averages: the first steps' weights are soon forgotten.
      decay = jnp.minimum(ema_decay, (1 + step) / (10 + step))
      ema = jax.tree.map(
        lambda old, new: old + (1 - decay) * (new - old),
        ema,
        {'params': params, 'batch_stats': batch_stats},
      )
    next_state = state.TrainState(
      step=train_state.step + 1,
      params=params,
      batch_stats=batch_stats,
      opt_state=opt_state,
      ema=ema,
    )
    return next_state, step_metrics

  return jax.jit(
    train_step,
    donate_argnames='train_state',
    compiler_options=compiling.make_options(deterministic=deterministic),
  )
