"""Ending a training on request, at the same step on every host."""

import contextlib
import signal
import threading

import jax
from jax.experimental import multihost_utils


class StopRequest(contextlib.AbstractContextManager):
  """Notices SIGTERM, which schedulers send before they kill.

  With several processes, JAX's preemption service agrees on a step; it listens
  to the signal itself from `jax.distributed.initialize` on.
  """

  def __init__(self):
    self._received = False
    self._previous = None

  def __enter__(self):
    alone = jax.process_count() == 1
    # Python delivers signals to the main thread alone.
    if alone and threading.current_thread() is threading.main_thread():
      self._previous = signal.signal(signal.SIGTERM, self._handle)
    return self

  def __exit__(self, *exc_info):
    if self._previous is not None:
      signal.signal(signal.SIGTERM, self._previous)
      self._previous = None

  def reached(self, step: int) -> bool:
    """Whether to stop after this step; every process gets the same answer."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._received

  def _handle(self, signum, frame):
    del signum, frame
    self._received = True
