"""Ending a training on request, at the same step on every host."""

import contextlib
import signal
import threading

import jax
from jax.experimental import multihost_utils


class StopRequest(contextlib.AbstractContextManager):
  """Notices SIGTERM, which schedulers send before they kill, and Ctrl-C.

  A second Ctrl-C interrupts at once. With several processes, JAX's preemption
  service agrees on a step; it listens to SIGTERM itself, from
  `jax.distributed.initialize` on, and Ctrl-C interrupts at once.
  """

  def __init__(self):
    self._received = False
    self._previous = {}

  def __enter__(self):
    alone = jax.process_count() == 1
    # Python delivers signals to the main thread alone.
    if alone and threading.current_thread() is threading.main_thread():
      for signum in (signal.SIGTERM, signal.SIGINT):
        self._previous[signum] = signal.signal(signum, self._handle)
    return self

  def __exit__(self, *exc_info):
    for signum, handler in self._previous.items():
      signal.signal(signum, handler)
    self._previous = {}

  def reached(self, step: int) -> bool:
    """Whether to stop after this step; every process gets the same answer."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._received

  def _handle(self, signum, frame):
    del frame
    self._received = True
    if signum == signal.SIGINT:
      signal.signal(signum, self._previous[signum])
      print('\nStopping after this step; Ctrl-C again stops at once.')
