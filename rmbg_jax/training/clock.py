"""Ends a training in time, for machines that are lent by the minute."""

import math
import time

from rmbg_jax.training import optimizers


class Clock:
  """Measures how much of a training is over, where its time is limited.

  Reading data and compiling take an unknown part of the time. So a share is
  that of the steps alone: of the time from the first of them to the end.
  """

  def __init__(self, minutes: float, *, began: float, share: float):
    """Sets the end.

    Args:
      minutes: Minutes from the beginning to the last step, 0 for no limit.
      began: Time of the beginning, as `time.monotonic` tells it.
      share: Share of the training that earlier runs have done, in [0, 1].
    """
    self._end = began + 60 * minutes if minutes else math.inf
    self._first: float | None = None  # Time of the first step's end.
    self._share = share

  def begin(self) -> None:
    """Notes that the first step is done; later calls change nothing."""
    if self._first is None:
      self._first = time.monotonic()

  @property
  def share(self) -> float:
    """The share of the training that is over, with that of earlier runs."""
    now = time.monotonic()
    if now >= self._end:
      return 1.0
    if self._first is None or self._end == math.inf:
      return self._share
    passed = (now - self._first) / (self._end - self._first)
    return self._share + (1 - self._share) * passed

  def limit(
    self, schedule: optimizers.Schedule, *, steps: int, warmup_steps: int
  ) -> optimizers.Schedule:
    """Returns the schedule by time, where that is shorter than all steps.

    Args:
      schedule: The learning rate by step.
      steps: Number of steps of the whole training.
      warmup_steps: Number of first steps that are taken one by one: a few
        seconds would be too short for them.
    """

    def compute_rate(step: int) -> float:
      if step >= warmup_steps:
        step = max(step, int(self.share * steps))
      return schedule(step)

    return compute_rate
