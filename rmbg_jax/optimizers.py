"""Optimisers and learning rates, from Optax."""

import optax

SCHEDULES = ('constant', 'cosine')


def make_schedule(
  schedule: str,
  *,
  learning_rate: float,
  warmup_steps: int,
  total_steps: int,
) -> optax.Schedule:
  """Returns the learning rate as a function of the step.

  Args:
    schedule: 'constant', or 'cosine' (down to 0 at the last step).
    learning_rate: the highest rate.
    warmup_steps: steps of linear increase before it.
    total_steps: length of the training.

  Raises:
    ValueError: for an unknown schedule.
  """
  if schedule not in SCHEDULES:
    raise ValueError(
      f'Unknown config.optimizer.schedule {schedule!r}; choose one of '
      f'{", ".join(SCHEDULES)}.'
    )
  rest = (
    optax.constant_schedule(learning_rate)
    if schedule == 'constant'
    else optax.cosine_decay_schedule(
      learning_rate, max(1, total_steps - warmup_steps)
    )
  )
  warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
  return optax.join_schedules([warmup, rest], [warmup_steps])


def make_optimizer(
  schedule: optax.Schedule, *, weight_decay: float, clip_norm: float
) -> optax.GradientTransformation:
  """Returns Adam, with decoupled weight decay and clipping where asked for.

  Args:
    schedule: the learning rate by step.
    weight_decay: of AdamW, 0 for Adam.
    clip_norm: largest global norm of a gradient, 0 for none.
  """
  # Both parts are always there, so that switching clipping on or off leaves
  # the optimiser's state loadable.
  return optax.chain(
    optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
    optax.adamw(schedule, weight_decay=weight_decay, eps=1e-7),
  )
