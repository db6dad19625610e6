"""Ends a training on request, at the same step on every host."""

import contextlib
import signal
import threading

import jax
import numpy as np
from jax.experimental import multihost_utils

# Steps after which several processes ask each other: each time, all of them
# wait for their devices.
_ASK_EVERY = 10


class StopRequest(contextlib.AbstractContextManager):
  """Notices SIGTERM, which schedulers send before they kill, and Ctrl-C.

  A second Ctrl-C interrupts at once. One process of several is enough to stop
  all. (JAX's preemption service would agree on one step, once; Orbax asks it
  too, with steps of its own, so that a training can miss it.)

  Attributes:
    signum: The signal that was received, SIGTERM if it was another process.
  """

  def __init__(self):
    self.signum = signal.SIGTERM
    self._received = self._agreed = False
    self._previous = {}

  def __enter__(self):
    # Python delivers signals to the main thread alone.
    if threading.current_thread() is threading.main_thread():
      for signum in (signal.SIGTERM, signal.SIGINT):
        self._previous[signum] = signal.signal(signum, self._handle)
    return self

  def __exit__(self, *exc_info):
    for signum, handler in self._previous.items():
      signal.signal(signum, handler)
    self._previous = {}

  def reached(self, step: int) -> bool:
    """Returns whether to stop after this step, the same in every process.

    Every process must ask after every step.
    """
    if jax.process_count() == 1:
      return self._received
    if not self._agreed and step % _ASK_EVERY == 0:
      received = np.asarray(self._received)
      self._agreed = bool(multihost_utils.process_allgather(received).any())
    return self._agreed

  def _handle(self, signum, frame):
    del frame
    self._received, self.signum = True, signum
    if signum == signal.SIGINT:
      signal.signal(signum, self._previous[signum])
      print('\nStopping after this step; Ctrl-C again stops at once.')
