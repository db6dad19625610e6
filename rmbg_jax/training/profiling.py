"""Records steps of a training with JAX' profiler."""

from collections.abc import Sequence
from pathlib import Path

import jax


class Profiler:
  """Records a range of steps with `jax.profiler` into `WORKDIR/profile`."""

  def __init__(self, workdir: Path, steps: Sequence[int], *, active: bool):
    """Takes the first and last step to record, from 1; (0, 0) for none.

    Of several processes, one is active.
    """
    self._directory = str(workdir / 'profile')
    self._first, self._last = steps if active else (0, 0)
    self._running = False

  def before(self, step: int) -> None:
    """Starts the profile where it is due; call it before dispatching a step."""
    if self._first <= step <= self._last and not self._running:
      jax.profiler.start_trace(self._directory)
      self._running = True

  def after(self, step: int, results: jax.Array) -> None:
    """Ends the profile after its last step, once that has results."""
    if self._running and step >= self._last:
      # Steps are dispatched ahead: without waiting, the last ones would be cut.
      jax.block_until_ready(results)
      self.close()

  def close(self) -> None:
    """Ends the recording, if one is under way."""
    if self._running:
      jax.profiler.stop_trace()
      self._running = False
