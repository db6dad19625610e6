"""Optimisers and learning rates, from Optax."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

# The learning rate by step, computed on the host: to ask the device for a
# number means to wait for what it is computing.
Schedule = Callable[[int], float]

# Values up to which `compute_norm` takes an array for a small one.
_SMALL = 4096

# 'plateau' is a constant rate that `monitor.py` lowers between epochs.
SCHEDULES = ('constant', 'cosine', 'plateau')


def make_schedule(
  schedule: str, *, learning_rate: float, warmup_steps: int, total_steps: int
) -> Schedule:
  """Returns the learning rate as a function of the step.

  Args:
    schedule: One of `SCHEDULES`; 'cosine' goes down to 0 at the last step.
    learning_rate: The highest rate.
    warmup_steps: Steps of linear increase before it (`check_config` has it 0
      with 'plateau').
    total_steps: Length of the training.
  """

  def compute_rate(step: int) -> float:
    if step < warmup_steps:
      return learning_rate * step / warmup_steps
    if schedule != 'cosine':
      return learning_rate
    share = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return learning_rate * (1 + math.cos(math.pi * min(share, 1.0))) / 2

  return compute_rate


def make_optimizer(
  *,
  weight_decay: float,
  clip_norm: float,
  encoder_rate: float,
  is_frozen: Callable[[str], bool] = lambda child: False,
) -> optax.GradientTransformationExtraArgs:
  """Returns Adam, with decay, clipping and a rate of the encoder.

  The learning rate is an argument of each `update`, `learning_rate`.

  Args:
    weight_decay: Weight decay of AdamW, 0 for Adam. It draws kernels to 0, not
      biases or the scales and offsets of normalisations.
    clip_norm: Largest global norm of a gradient, 0 for none.
    encoder_rate: The encoder's learning rate as a share of the others'.
    is_frozen: Whether a child of the encoder, by its name, does not move; then
      nothing is kept for it.
  """
  trained = optax.chain(
    _clip(clip_norm) if clip_norm else optax.identity(),
    _scale_by_adam(),
    optax.add_decayed_weights(
      weight_decay,
      # Of all variables, kernels alone have more than one axis.
      mask=lambda params: jax.tree.map(lambda value: value.ndim > 1, params),
    ),
    _scale_by_rate(),
    optax.masked(
      optax.scale(encoder_rate), lambda params: _by_part(params, True, False)
    ),
  )

  def label(params):
    encoder = {
      child: 'frozen' if is_frozen(child) else 'trained'
      for child in params.get('encoder', ())
    }
    return _by_part(params, encoder, 'trained')

  return optax.partition(
    {'trained': trained, 'frozen': optax.set_to_zero()}, label
  )


def compute_norm(
  tree: Any,  # Any structure of arrays.
) -> Float[Array, '']:
  """Returns the global norm of all arrays of a tree.

  Small ones are joined first: a sum of each would be compiled for itself, of
  which a network has hundreds.

  Args:
    tree: Any tree of arrays, such as gradients.
  """
  arrays = [leaf.ravel() for leaf in jax.tree.leaves(tree)]
  small = [array for array in arrays if array.size <= _SMALL]
  large = [array for array in arrays if array.size > _SMALL]
  if small:
    # Without it, XLA would join them again for every number of the sum.
    large.append(jax.lax.optimization_barrier(jnp.concatenate(small)))
  return jnp.sqrt(sum(jnp.sum(jnp.square(array)) for array in large))


def _clip(max_norm: float) -> optax.GradientTransformation:
  """Returns the scaling of gradients down to a largest global norm."""

  def update(updates, params=None):
    del params
    norm = compute_norm(updates)
    scale = jnp.where(norm < max_norm, 1.0, max_norm / norm)
    return jax.tree.map(lambda u: u * scale.astype(u.dtype), updates)

  return optax.stateless(update)


def _scale_by_rate() -> optax.GradientTransformationExtraArgs:
  """Returns the step down the gradient, by the rate that `update` gets."""

  def update(updates, state, params=None, *, learning_rate=0.0, **extra):
    del params, extra
    return jax.tree.map(lambda u: -learning_rate * u, updates), state

  return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def _scale_by_adam() -> optax.GradientTransformation:
  """Returns Adam as Keras computes it.

  Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015,
  arXiv:1412.6980, in the order of the last paragraph of section 2: epsilon is
  added before the second moment's bias is corrected, so that it counts for
  more in the first steps than in Optax, which adds it afterwards.
  """
  b1, b2, epsilon = 0.9, 0.999, 1e-7  # Keras' defaults.

  def update(updates, state, params=None):
    del params
    count = optax.safe_increment(state.count)
    mu = optax.tree.update_moment(updates, state.mu, b1, 1)
    nu = optax.tree.update_moment(updates, state.nu, b2, 2)
    correction = jnp.sqrt(1 - b2**count) / (1 - b1**count)
    updates = jax.tree.map(
      lambda m, v: correction * m / (jnp.sqrt(v) + epsilon), mu, nu
    )
    return updates, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

  return optax.GradientTransformation(optax.scale_by_adam().init, update)


def _by_part(params: Any, encoder: Any, rest: Any) -> dict[str, Any]:
  """Returns one value for the encoder and another for all other parts."""
  # Optax takes a value for all that is below it in the tree.
  return {part: encoder if part == 'encoder' else rest for part in params}
