"""Settles 'auto' in a configuration by the memory of the device."""

import copy
from typing import Any, cast

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from data_pipelines.io import errors
from rmbg_jax import runtime
from rmbg_jax.models import graph
from rmbg_jax.models.layers import unflatten
from rmbg_jax.training import messages, setup, state
from rmbg_jax.training.step import TrainStep

# Evaluation, batches that are read ahead and gaps take the rest.
_SHARE = 0.9


# A configuration without 'auto', its components, and their training step.
Settled = tuple[ml_collections.ConfigDict, setup.Components, TrainStep]


def settle(
  config: ml_collections.ConfigDict,
  components: setup.Components,
  remat: bool,
  accumulation: int,
) -> Settled:
  """Returns what a training works with, with these values for 'auto'."""
  changed = copy.deepcopy(config)
  if config.model.remat == setup.AUTO:
    changed.model.remat = remat
  if config.optimizer.accumulation == setup.AUTO:
    changed.optimizer.accumulation = accumulation
  components = setup.settle(components, changed)
  return changed, components, setup.make_train_step(changed, components)


def choose(
  config: ml_collections.ConfigDict, components: setup.Components, mesh: Mesh
) -> Settled:
  """Settles 'auto' so that a step fits every device.

  A step that is compiled for this is not compiled again when it is called.

  Raises:
    UserError: if nothing that may be chosen fits, naming the keys to change.
  """
  remats, counts = [config.model.remat], [config.optimizer.accumulation]
  if setup.AUTO in remats:
    # A CPU's compiler merges the second computation with the first.
    remats = [False] if jax.default_backend() == 'cpu' else [False, True]
  if setup.AUTO in counts:
    images = config.data.batch_size // mesh.size
    counts = [n for n in range(1, images + 1) if images % n == 0]
  # To compute features again costs time alone. Each part of a batch has batch
  # statistics of its own, so parts come last, and few first.
  tries = [(remat, counts[0]) for remat in remats]
  tries += [(remats[-1], count) for count in counts[1:]]
  available = find_available() if len(tries) > 1 else 0
  if not available:  # Nothing to choose, or nothing known to choose by.
    return settle(config, components, *tries[0])
  limit, least, needed = _SHARE * available, 0.0, None
  for remat, count in tries:
    # Fewer parts than `least` cannot fit. The last try is made in any case.
    if count < least and count != tries[-1][1]:
      continue  # To compile a step takes a minute: not for too few parts.
    chosen = settle(config, components, remat, count)
    needed = measure_step(*chosen, mesh)
    if needed and needed <= limit:
      return chosen
    if needed and remat == tries[-1][0]:
      least = count * needed / limit  # As if all memory divided among parts.
  raise errors.UserError(
    f'{messages.name_batch(config)} takes '
    f'{f"{needed / 1e9:.1f} GB" if needed else "more"} of the '
    f'{available / 1e9:.1f} GB that each device has left, computed in '
    f'{tries[-1][1]} parts. {messages.MEMORY_REMEDIES}'
  )


def measure_step(
  config: ml_collections.ConfigDict,
  components: setup.Components,
  train_step: TrainStep,
  mesh: Mesh,
) -> int | None:
  """Returns the bytes of each device that a step takes, None for too many."""
  size, images = components.preprocessing.size, config.data.batch_size

  def make_arguments(variables):
    train_state = state.init_train_state(
      variables, components.optimizer, use_ema=config.optimizer.ema_decay > 0
    )
    batch = {
      'image': jnp.zeros((images, *size, 3), np.uint8),
      'alpha': jnp.zeros((images, *size, 1), np.uint8),
      'weight': jnp.zeros(images),
    }
    return train_state, batch, jnp.zeros(())

  def place(tree, sharding):
    return jax.tree.map(lambda x: x.update(sharding=sharding), tree)

  # Shapes alone: nothing is allocated.
  once, split = state.replicated(mesh), state.along_batch(mesh)
  variables = unflatten(
    {
      key: jax.ShapeDtypeStruct(shape, jnp.float32)
      for key, shape in graph.list_shapes(components.model.network).items()
    }
  )
  train_state, batch, rate = jax.eval_shape(make_arguments, variables)
  lowered = cast(jax.stages.Wrapped, train_step).lower(
    place(train_state, once), place(batch, split), place(rate, once)
  )
  try:
    sizes: Any = lowered.compile().memory_analysis()  # XLA's, without types.
  except jax.errors.JaxRuntimeError as error:
    if runtime.is_exhausted(error):  # While compiling.
      return None
    raise
  # Outputs in the buffers of arguments (`alias`) take no memory of their own.
  kept = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
  return sizes.argument_size_in_bytes + kept + sizes.temp_size_in_bytes


def find_available() -> int:
  """Returns the bytes that the fullest device of all hosts has left, or 0."""
  available = min(map(runtime.find_free_memory, jax.local_devices()))
  # JAX gathers 32-bit integers, too small for bytes.
  megabytes = np.asarray(available >> 20, np.int32)
  return int(np.min(multihost_utils.process_allgather(megabytes))) << 20
