"""Measures the memory that a training step needs, and fits it to the device."""

import contextlib
import copy
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data_pipelines.io import errors
from data_pipelines.io.types import JsonObject
from rmbg_jax import runtime
from rmbg_jax.models import graph, layers
from rmbg_jax.training import setup, state

# Keys that may be 'auto', with the value to try first.
KEYS = {'model.remat': False, 'optimizer.accumulation': 1}
# Evaluation, batches that are read ahead and what cannot be packed tightly take
# the rest.
_SHARE = 0.9
_CGROUP_LIMITS = (
  Path('/sys/fs/cgroup/memory.max'),
  Path('/sys/fs/cgroup/memory/memory.limit_in_bytes'),
)

# Bytes that a step takes with (remat, accumulation); None for too many.
Measure = Callable[[bool, int], int | None]


def take_chosen(
  config: ml_collections.ConfigDict, saved: JsonObject
) -> ml_collections.ConfigDict:
  """Returns a configuration with a checkpoint's choices where it has 'auto'.

  Args:
    config: Configuration of the training.
    saved: The configuration in the checkpoint's description.
  """
  chosen = {}
  for key in _find_open(config):
    group, name = key.split('.')
    chosen[key] = saved[group].get(name, KEYS[key])
  return _replace(config, chosen)


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
  is_open = _find_open(config)
  available = find_available() if is_open else None
  if available is None:
    return _replace(config, {key: KEYS[key] for key in is_open})
  share = config.data.batch_size // mesh.size
  remats = (_get(config, 'model.remat'),)
  if 'model.remat' in is_open:
    # A CPU's compiler merges the second computation with the first.
    remats = (False,) if jax.default_backend() == 'cpu' else (False, True)
  counts = [_get(config, 'optimizer.accumulation')]
  if 'optimizer.accumulation' in is_open:
    counts = [n for n in range(1, share + 1) if share % n == 0]

  def measure(remat, accumulation):
    tried = {'model.remat': remat, 'optimizer.accumulation': accumulation}
    return measure_step(_replace(config, tried), components, mesh)

  found, needed = search(
    measure, remats=remats, counts=counts, limit=int(_SHARE * available)
  )
  gigabytes = f'{available / 1e9:.1f} GB'
  if found is None:
    height, width = config.data.size
    least = 'more' if needed is None else f'{needed / 1e9:.1f} GB'
    raise errors.UserError(
      f'config.data.batch_size={config.data.batch_size} at {height}x{width} '
      f'takes {least} of the {gigabytes} that each device has left, computed '
      f'in {counts[-1]} parts. ' + _describe_remedies()
    )
  remat, accumulation = found
  chosen = {'model.remat': remat, 'optimizer.accumulation': accumulation}
  return _replace(config, {key: chosen[key] for key in is_open})


def describe(
  wanted: ml_collections.ConfigDict, chosen: ml_collections.ConfigDict
) -> str:
  """Returns what was chosen where a configuration has 'auto', '' if nowhere."""
  values = [f'config.{key}={_get(chosen, key)}' for key in _find_open(wanted)]
  return f'For the memory there is: {", ".join(values)}.' if values else ''


def search(
  measure: Measure,
  *,
  remats: tuple[bool, ...],
  counts: list[int],
  limit: int,
) -> tuple[tuple[bool, int] | None, int | None]:
  """Returns the first (remat, accumulation) that fits, and what it takes.

  Args:
    measure: Function that returns what a step takes; every call compiles it.
    remats: Values to try, in this order.
    counts: Parts to compute a batch in, ascending.
    limit: Bytes that there are.

  Returns:
    None where nothing fits, and then the bytes of the last one that was tried.
  """
  for remat in remats:
    needed = measure(remat, counts[0])
    if needed is not None and needed <= limit:
      return (remat, counts[0]), needed
  index = 1
  while index < len(counts):
    # So many parts are needed even if all memory divides among them.
    least = counts[index - 1] * needed / limit if needed is not None else 0
    while index < len(counts) - 1 and counts[index] < least:
      index += 1
    needed = measure(remats[-1], counts[index])
    if needed is not None and needed <= limit:
      return (remats[-1], counts[index]), needed
    index += 1
  return None, needed


def measure_step(
  config: ml_collections.ConfigDict, components: setup.Components, mesh: Mesh
) -> int | None:
  """Returns the bytes of each device that a training step takes.

  None where compiling it finds already that there are too few.
  """
  model = setup.create_model(config.model)[1]
  step = setup.make_train_step(config, components._replace(model=model))
  size, batch_size = components.preprocessing.size, config.data.batch_size
  shapes = graph.Graph(model.network, size=size).list_shapes()
  variables = layers.unflatten(
    {
      key: jax.ShapeDtypeStruct(shape, np.float32)
      for key, shape in shapes.items()
    }
  )
  train_state = jax.eval_shape(
    lambda variables: state.init_train_state(
      variables, components.optimizer, use_ema=config.optimizer.ema_decay > 0
    ),
    variables,
  )
  replicated = state.replicated(mesh)
  by_image = NamedSharding(mesh, PartitionSpec('data'))
  arguments = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated),
    train_state,
  )
  batch = {
    'image': ((batch_size, *size, 3), np.uint8),
    'alpha': ((batch_size, *size, 1), np.uint8),
    'weight': ((batch_size,), np.float32),
  }
  batch = {
    key: jax.ShapeDtypeStruct(*described, sharding=by_image)
    for key, described in batch.items()
  }
  rate = jax.ShapeDtypeStruct((), np.float32, sharding=replicated)
  try:
    compiled = (
      cast(jax.stages.Wrapped, step).lower(arguments, batch, rate).compile()
    )
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
  found = []
  for device in jax.local_devices():
    stats = device.memory_stats() or {}
    if 'bytes_limit' in stats:
      found.append(stats['bytes_limit'] - stats.get('bytes_in_use', 0))
    elif device.platform == 'cpu' and (host := _find_host_memory()):
      # Devices of one host share its memory.
      found.append(host // jax.local_device_count())
  available = min(found, default=0)
  if jax.process_count() > 1:
    megabytes = np.asarray(available >> 20, np.int32)
    every = multihost_utils.process_allgather(megabytes)
    available = int(every.min()) << 20
  return available or None


def _find_host_memory() -> int | None:
  if not hasattr(os, 'sysconf'):
    return None
  limits = [os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')]
  for path in _CGROUP_LIMITS:
    with contextlib.suppress(OSError, ValueError):  # 'max' is no number.
      limits.append(int(path.read_text()))
  return min(limits)


def naming_keys(config: ml_collections.ConfigDict) -> Any:
  """Has errors of used up memory name a training's keys to change."""
  height, width = config.data.size
  return runtime.naming_remedies(
    f'It is too little for config.data.batch_size={config.data.batch_size} at '
    f'{height}x{width}. ' + _describe_remedies()
  )


def _describe_remedies() -> str:
  return (
    'Pass --config.optimizer.accumulation=auto --config.model.remat=auto, or '
    'a higher accumulation, or change config.model.dtype (to bfloat16), '
    'config.data.batch_size, config.data.size or config.data.loader (to grain).'
  )


def _find_open(config: ml_collections.ConfigDict) -> list[str]:
  return [key for key in KEYS if _get(config, key) == setup.AUTO]


def _get(config: ml_collections.ConfigDict, key: str) -> Any:
  group, name = key.split('.')
  return config[group][name]


def _replace(
  config: ml_collections.ConfigDict, values: Mapping[str, Any]
) -> ml_collections.ConfigDict:
  changed = copy.deepcopy(config)
  for key, value in values.items():
    group, name = key.split('.')
    changed[group][name] = value
  return changed
