"""The state that training changes, and its layout over the devices."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from rmbg_jax.models import graph
from rmbg_jax.models.flax_network import FlaxNetwork
from rmbg_jax.models.layers import Variables, unflatten

# `image`, `alpha` and `weight`: on the devices, or this process's part on the
# host.
Batch = Mapping[str, np.ndarray | jax.Array]


@flax.struct.dataclass
class TrainState:
  """Everything a training step reads and writes.

  Attributes:
    step: Number of steps taken, an int32 scalar.
    params: The network's parameters, float32.
    batch_stats: Running batch statistics, float32.
    opt_state: The optimiser's state.
    ema: Exponential moving averages of `params` and `batch_stats`, or None.
  """

  step: Any  # An array, its shape or its sharding, as in all fields.
  params: Variables
  batch_stats: Variables
  opt_state: optax.OptState
  ema: Variables | None = None

  @property
  def eval_variables(self) -> Variables:
    """Variables to evaluate and predict with: averages, if there are any."""
    if self.ema is not None:
      return self.ema
    return {'params': self.params, 'batch_stats': self.batch_stats}


def make_mesh() -> Mesh:
  """Returns a mesh of all devices of all hosts, with one axis, 'data'."""
  return jax.make_mesh(
    (jax.device_count(),), ('data',), axis_types=(AxisType.Auto,)
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of the state: a copy on every device."""
  return NamedSharding(mesh, PartitionSpec())


def along_batch(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of a batch: a part on every device."""
  return NamedSharding(mesh, PartitionSpec('data'))


def put_batch(batch: Batch, mesh: Mesh) -> dict[str, jax.Array]:
  """Puts a host's part of a batch on its devices, split along the batch."""
  return {
    key: jax.make_array_from_process_local_data(along_batch(mesh), value)
    for key, value in batch.items()
  }


def read_own_part(values: jax.Array) -> np.ndarray:
  """Returns the part of a batch that is on this host's devices, in order."""
  shards = sorted(
    values.addressable_shards, key=lambda shard: shard.index[0].start or 0
  )
  return np.concatenate([np.asarray(shard.data) for shard in shards])


def put_scalar(value: float, mesh: Mesh) -> jax.Array:
  """Puts a number, which all hosts have, on every device, in float32."""
  return jax.make_array_from_process_local_data(
    replicated(mesh), np.float32(value)
  )


def create_variables(model: FlaxNetwork, *, seed: int) -> Variables:
  """Returns freshly initialised `params` and `batch_stats`, NumPy arrays.

  Kernels are uniform within sqrt(6 / inputs of a filter): He et al., "Delving
  Deep into Rectifiers", ICCV 2015, arXiv:1502.01852, equation 10.
  """
  rng, flat = np.random.default_rng(seed), {}
  shapes = graph.list_shapes(model.network)
  # Here, not in JAX: to compile hundreds of random draws takes ten seconds.
  for key in sorted(shapes, key=lambda key: key.split('/')):
    shape, name = shapes[key], key.rpartition('/')[2]
    if name == 'kernel':
      reach = np.sqrt(6 / np.prod(shape[:-1]))
      flat[key] = rng.uniform(-reach, reach, shape).astype(np.float32)
    else:
      flat[key] = np.full(shape, float(name in ('scale', 'var')), np.float32)
  return unflatten(flat)


def init_train_state(
  variables: Variables,
  optimizer: optax.GradientTransformation,
  *,
  use_ema: bool,
) -> TrainState:
  """Returns the state before the first step; see `create_train_state`."""
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables['params'],
    batch_stats=variables['batch_stats'],
    opt_state=optimizer.init(variables['params']),
    # Copies: the step reuses every buffer of the state, each once.
    ema=jax.tree.map(jnp.copy, variables) if use_ema else None,
  )


def create_train_state(
  variables: Variables,
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
  *,
  use_ema: bool = False,
) -> TrainState:
  """Returns the state before the first step, replicated over the mesh.

  Args:
    variables: `params` and `batch_stats`.
    optimizer: Decides the shape of the optimiser's state.
    mesh: The devices.
    use_ema: Whether to keep moving averages.
  """

  def create(variables):
    return init_train_state(variables, optimizer, use_ema=use_ema)

  # NumPy arrays may go to devices of several hosts.
  variables = jax.device_get(variables)
  return jax.jit(create, out_shardings=replicated(mesh))(variables)
