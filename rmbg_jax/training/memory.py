"""Fits a training step to the memory of the device.

It settles 'auto' for `model.remat` and `optimizer.accumulation`.
"""

import contextlib
import copy
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data_pipelines.io import errors
from rmbg_jax import runtime
from rmbg_jax.training import setup, state

# Evaluation, batches that are read ahead and what cannot be packed tightly take
# the rest.
_SHARE = 0.9
_CGROUP_LIMITS = (
  Path('/sys/fs/cgroup/memory.max'),
  Path('/sys/fs/cgroup/memory/memory.limit_in_bytes'),
)
_REMEDIES = (
  'Pass --config.optimizer.accumulation=auto --config.model.remat=auto, or '
  'a higher accumulation, or change config.model.dtype (to bfloat16), '
  'config.data.batch_size, config.data.size or config.data.loader (to grain).'
)


def replace_auto(
  config: ml_collections.ConfigDict, remat: bool, accumulation: int
) -> ml_collections.ConfigDict:
  """Returns a copy of a configuration with these values where it has 'auto'."""
  changed = copy.deepcopy(config)
  if config.model.remat == setup.AUTO:
    changed.model.remat = remat
  if config.optimizer.accumulation == setup.AUTO:
    changed.optimizer.accumulation = accumulation
  return changed


def choose(
  config: ml_collections.ConfigDict, components: setup.Components, mesh: Mesh
) -> ml_collections.ConfigDict:
  """Returns a configuration without 'auto', whose step fits the device.

  First what changes nothing but the time: to compute features again for the
  gradient. A batch in parts has batch statistics of the parts, so it comes in
  as few as will do. Each try compiles the step.

  Args:
    config: Configuration of the training.
    components: Components that the loop works with, of this configuration.
    mesh: The devices.

  Raises:
    UserError: if nothing that may be chosen fits, naming the keys to change.
  """
  remats, counts = [config.model.remat], [config.optimizer.accumulation]
  available = find_available() if setup.AUTO in remats + counts else None
  if available is None:
    return replace_auto(config, False, 1)
  if setup.AUTO in remats:
    # A CPU's compiler merges the second computation with the first.
    remats = [False] if jax.default_backend() == 'cpu' else [False, True]
  if setup.AUTO in counts:
    share = config.data.batch_size // mesh.size
    counts = [n for n in range(1, share + 1) if share % n == 0]
  found, needed = search(
    lambda *tried: measure_step(replace_auto(config, *tried), components, mesh),
    remats=remats,
    counts=counts,
    limit=int(_SHARE * available),
  )
  if found is None:
    height, width = config.data.size
    least = 'more' if needed is None else f'{needed / 1e9:.1f} GB'
    raise errors.UserError(
      f'config.data.batch_size={config.data.batch_size} at {height}x{width} '
      f'takes {least} of the {available / 1e9:.1f} GB that each device has '
      f'left, computed in {counts[-1]} parts. {_REMEDIES}'
    )
  return replace_auto(config, *found)


def describe(
  wanted: ml_collections.ConfigDict, chosen: ml_collections.ConfigDict
) -> str:
  """Returns what was chosen if a configuration has 'auto', else ''."""
  if setup.AUTO not in (wanted.model.remat, wanted.optimizer.accumulation):
    return ''
  return (
    f'For the memory there is: config.model.remat={chosen.model.remat}, '
    f'config.optimizer.accumulation={chosen.optimizer.accumulation}.'
  )


def search(
  measure: Callable[[bool, int], int | None],
  *,
  remats: Iterable[bool],
  counts: list[int],
  limit: int,
) -> tuple[tuple[bool, int] | None, int | None]:
  """Returns the first (remat, accumulation) that fits, and what it takes.

  Args:
    measure: Returns the bytes that a step takes, None for too many to compile.
    remats: Values to try, in this order.
    counts: Parts to compute a batch in, ascending.
    limit: Bytes that there are.

  Returns:
    None where nothing fits, and then the bytes of the last one that was tried.
  """
  tries = [(remat, counts[0]) for remat in remats]
  tries += [(tries[-1][0], count) for count in counts[1:]]
  needed = least = None
  for remat, count in tries:
    if least and count < least and count != counts[-1]:
      continue
    needed = measure(remat, count)
    if needed is not None and needed <= limit:
      return (remat, count), needed
    if needed is not None and remat == tries[-1][0]:
      # So many parts are needed even if all memory divides among them.
      least = count * needed / limit
  return None, needed


def measure_step(
  config: ml_collections.ConfigDict, components: setup.Components, mesh: Mesh
) -> int | None:
  """Returns the bytes of each device that a training step takes.

  None where compiling it finds already that there are too few.
  """
  model = setup.create_model(config)[1]
  step = setup.make_train_step(config, components._replace(model=model))
  size, batch_size = components.preprocessing.size, config.data.batch_size

  def make_arguments():
    images = jnp.zeros((1, *size, 3))
    train_state = state.init_train_state(
      model.init(jax.random.key(0), images, train=False),
      components.optimizer,
      use_ema=config.optimizer.ema_decay > 0,
    )
    batch = {
      'image': jnp.zeros((batch_size, *size, 3), np.uint8),
      'alpha': jnp.zeros((batch_size, *size, 1), np.uint8),
      'weight': jnp.zeros(batch_size),
    }
    return train_state, batch, jnp.zeros(())

  replicated = state.replicated(mesh)
  by_image = NamedSharding(mesh, PartitionSpec('data'))
  arguments = jax.tree.map(
    lambda shardings, part: jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=shardings), part
    ),
    (replicated, by_image, replicated),
    jax.eval_shape(make_arguments),
  )
  try:
    compiled = cast(jax.stages.Wrapped, step).lower(*arguments).compile()
  except jax.errors.JaxRuntimeError as error:
    if runtime.is_exhausted(error):
      return None
    raise
  analysis: Any = compiled.memory_analysis()  # XLA's, without types.
  return (
    analysis.argument_size_in_bytes
    + analysis.output_size_in_bytes
    - analysis.alias_size_in_bytes
    + analysis.temp_size_in_bytes
  )


def find_available() -> int | None:
  """Returns the bytes that every device has left, None if it is not known.

  All hosts get the same answer. For a CPU, it is the memory of the machine, or
  of the container.
  """
  available = min(map(_find_free, jax.local_devices()))
  if jax.process_count() > 1:
    megabytes = np.asarray(available >> 20, np.int32)
    every = multihost_utils.process_allgather(megabytes)
    available = int(every.min()) << 20
  return available or None


def _find_free(device: jax.Device) -> int:
  """Returns the bytes that a device has left, 0 if it is not known."""
  stats = device.memory_stats() or {}
  if 'bytes_limit' in stats:
    return stats['bytes_limit'] - stats.get('bytes_in_use', 0)
  if device.platform != 'cpu' or not hasattr(os, 'sysconf'):
    return 0
  limits = [os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')]
  for path in _CGROUP_LIMITS:
    with contextlib.suppress(OSError, ValueError):  # 'max' is no number.
      limits.append(int(path.read_text()))
  # Devices of one host share its memory.
  return min(limits) // jax.local_device_count()


def naming_keys(
  config: ml_collections.ConfigDict,
) -> contextlib.AbstractContextManager[None]:
  """Adds the keys to change to errors of used up memory."""
  height, width = config.data.size
  return runtime.naming_remedies(
    f'It is too little for config.data.batch_size={config.data.batch_size} at '
    f'{height}x{width}. {_REMEDIES}'
  )
