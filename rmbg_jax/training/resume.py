"""Saves the position of a training and resumes it."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from data_pipelines.io import errors
from data_pipelines.io.types import JsonObject
from rmbg_jax.training.monitor import MonitorState
from rmbg_jax.training.state import TrainState
from rmbg_jax.weights import checkpoints

# Settings that may change between two parts of a training: how long it lasts
# and what it shows, how fast data is read, and what is kept or computed again.
CHANGEABLE = (
  'config.name',
  'config.model.remat',
  'config.train',
  'config.data.dir',
  'config.data.threads',
  'config.data.buffer',
  'config.data.device.cache_dir',
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Position:
  """A point in a training, as its checkpoint stores it.

  Attributes:
    epoch: The epoch that comes next or is under way, from 0.
    step: Steps of it that are done.
    loss: Sum of their losses.
    share: Share of the training's time that is over, where it is limited.
    iterator: State of the data iterator after the last batch used, None at
      the very beginning.
    monitor: State of the epoch monitor.
  """

  epoch: int = 0
  step: int = 0
  loss: float = 0.0
  share: float = 0.0
  iterator: dict[str, Any] | None = None
  monitor: MonitorState

  def to_dict(self) -> dict[str, Any]:
    """Returns a JSON-compatible description; `from_dict` reads it."""
    return dataclasses.asdict(self) | {'monitor': self.monitor.to_dict()}

  @classmethod
  def from_dict(cls, description: JsonObject) -> 'Position':
    """Rebuilds the position from `to_dict`'s description."""
    monitor = MonitorState.from_dict(description['monitor'])
    values: dict[str, Any] = {**description, 'monitor': monitor}
    return cls(**values)


def check_compatible(saved: JsonObject, wanted: JsonObject) -> None:
  """Refuses to go on with a checkpoint under other settings.

  Args:
    saved: The checkpoint's description.
    wanted: Description of the configuration asked for.

  Raises:
    UserError: listing every setting that differs and may not.
  """
  differences = [
    f'{path}: {old} in the checkpoint, {new} in the configuration'
    for key in ('architecture', 'preprocessing', 'config', 'data')
    for path, old, new in _differences(saved.get(key), wanted.get(key), key)
    if not path.startswith(CHANGEABLE)  # By prefix: all below a key.
  ]
  if differences:
    raise errors.UserError(
      'The working directory holds a training with other settings or data:\n  '
      + '\n  '.join(differences)
      + '\nPass these as they were, or another --workdir (with '
      '--config.init_from=THIS_WORKDIR to start from its weights).'
    )


def _differences(
  saved: Any, wanted: Any, path: str
) -> Iterator[tuple[str, Any, Any]]:
  if isinstance(saved, Mapping) and isinstance(wanted, Mapping):
    for key in sorted(saved.keys() | wanted.keys()):
      yield from _differences(saved.get(key), wanted.get(key), f'{path}.{key}')
  elif saved != wanted:
    yield path, saved, wanted


def save_state(
  store: checkpoints.CheckpointStore,
  state: TrainState,
  *,
  metrics: Mapping[str, float] | None,
  description: JsonObject,
) -> None:
  """Starts saving a state under its step; see `CheckpointStore.save`."""
  store.save(
    _to_trees(state),
    step=int(state.step),
    metrics=metrics,
    description=description,
  )


def restore_state(
  store: checkpoints.CheckpointStore, state: TrainState, *, step: int
) -> TrainState:
  """Returns the saved state, laid out over the devices as `state` is.

  Raises:
    UserError: if the checkpoint is of another network or optimiser.
  """
  loaded = store.restore(_to_trees(state), step=step)
  model, training = loaded['model'], loaded['training']
  if state.ema is not None:
    return dataclasses.replace(state, ema=model, **training)
  return dataclasses.replace(state, **model, **training)


def _to_trees(state: TrainState) -> dict[str, Any]:
  """Returns the variables for prediction ('model'), the rest ('training')."""
  training = {'step': state.step, 'opt_state': state.opt_state}
  if state.ema is not None:
    training |= {'params': state.params, 'batch_stats': state.batch_stats}
  return {'model': state.eval_variables, 'training': training}
