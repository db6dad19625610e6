"""Computes a refiner's windows with JAX."""

import jax
import numpy as np
from jaxtyping import Float, UInt8

from rmbg_jax.models import compiling, flax_network, refiner_jax
from rmbg_jax.weights import load

_BATCH = 32  # Windows that are computed together.


class JaxRefiner:
  """Refines windows; may be called from several threads."""

  def __init__(self, loaded: load.LoadedModel, *, side: int, precision: str):
    """Moves the weights to the device."""
    self._variables = jax.device_put(loaded.variables)
    self._side = side
    model = flax_network.FlaxNetwork(loaded.network, dtype=precision)
    self._compute = jax.jit(
      lambda *args: refiner_jax.refine(model, *args),
      compiler_options=compiling.make_options(),
    )

  def __call__(
    self,
    colours: UInt8[np.ndarray, 'n h w 3'],
    units: Float[np.ndarray, 'n h w'],
  ) -> Float[np.ndarray, 'n h w']:
    """Returns refined logits, in units of `refiner.LIMIT`."""
    results = np.empty_like(units)
    # One size, so that JAX compiles once; the last batch ends with windows of
    # the one before, which nobody reads.
    batch = np.zeros((_BATCH, self._side, self._side, 3), np.uint8)
    plane = np.zeros(batch.shape[:3], np.float32)
    for start in range(0, len(units), _BATCH):
      part = slice(start, start + _BATCH)
      count = len(units[part])
      batch[:count], plane[:count] = colours[part], units[part]
      results[part] = self._compute(self._variables, batch, plane)[:count]
    return results
