"""Computes networks with JAX, on all local devices."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, UInt8

from rmbg_jax import runtime as process
from rmbg_jax.inference import runtimes
from rmbg_jax.models import compiling, flax_network, layers
from rmbg_jax.weights import load


def make_function(
  networks: Sequence[load.LoadedModel],
  views: Sequence[runtimes.View],
  *,
  precision: str,
) -> Callable[[Sequence[layers.Variables], jax.Array], jax.Array]:
  """Returns the function that computes the mean of all views' logits.

  Args:
    networks: Networks that look at photos.
    views: How they look.
    precision: Type of the computation, 'float32' or 'bfloat16'.

  Returns:
    A function of each network's variables and photos (b, h, w, 3) in [0, 255]
    at the largest view's size, which returns logits (b, h, w).
  """
  models = [
    flax_network.FlaxNetwork(network.network, dtype=precision)
    for network in networks
  ]

  def compute_logits(variables, photos):
    total = jnp.zeros((), 'float32')
    for view in views:
      seen = photos[:, :, ::-1] if view.mirrored else photos
      if view.size != photos.shape[1:3]:
        shape = (photos.shape[0], *view.size, 3)
        seen = jax.image.resize(seen.astype('float32'), shape, 'bilinear')
      inputs = networks[view.network].preprocessing.normalize(seen)
      # XLA leaves out what only the other outputs need.
      outputs = flax_network.compute(
        models[view.network], variables[view.network], inputs
      )
      logits = outputs[-1][..., 0]
      logits = logits[:, :, ::-1] if view.mirrored else logits
      if len(views) > 1:
        logits = jnp.clip(logits, -runtimes.SURE, runtimes.SURE)
      total += jax.image.resize(logits, photos.shape[:3], 'bilinear')
    return total / len(views)

  return compute_logits


class JaxRuntime:
  """A `Runtime` that compiles the networks once, for one batch size.

  All local devices share a batch, whose size is a multiple of their number;
  smaller ones are padded. A forked process cannot use it; spawn processes, and
  construct one in each.
  """

  name = 'jax'

  def __init__(
    self,
    networks: Sequence[load.LoadedModel],
    views: Sequence[runtimes.View],
    *,
    precision: str,
    batch_size: int,
  ):
    """Moves the weights to the devices; see `make_runtime`."""
    devices = jax.local_devices()
    self.batch_size = -(-batch_size // len(devices)) * len(devices)
    self.precision = 'float32' if precision == 'auto' else precision
    mesh = Mesh(np.asarray(devices), ('data',))
    self._by_image = NamedSharding(mesh, PartitionSpec('data'))
    self._variables = jax.device_put(
      [network.variables for network in networks],
      NamedSharding(mesh, PartitionSpec()),
    )
    self._compute_logits = jax.jit(
      make_function(networks, views, precision=self.precision),
      compiler_options=compiling.make_options(),
    )

  def compute_logits(
    self, photos: UInt8[np.ndarray, 'b h w 3']
  ) -> Float[np.ndarray, 'b h w']:
    """Returns the mean of all views' logits.

    Raises:
      UserError: if the device's memory is used up.
    """
    count = len(photos)
    # One size, so that JAX compiles once.
    padding = ((0, self.batch_size - count), (0, 0), (0, 0), (0, 0))
    height, width = photos.shape[1:3]
    with process.naming_remedies(
      f'It is too little for {self.batch_size} photos at {height}x{width}: '
      'lower batch_size (--batch_size) or scales (--scales).'
    ):
      padded = jax.device_put(np.pad(photos, padding), self._by_image)
      return np.asarray(self._compute_logits(self._variables, padded))[:count]
