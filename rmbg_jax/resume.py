"""Where a training stands, and whether a checkpoint may go on with it."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from data_pipelines import errors
from rmbg_jax.monitor import MonitorState

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
# What checkpoints that do not name a setting were made with.
_BEFORE = {
  'architecture.encoder.name': 'resnet50',
  'config.model.encoder.name': 'resnet50',
  'config.model.encoder.frozen_stages': 0,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Position:
  """A point in a training, as its checkpoint stores it.

  Attributes:
    epoch: the epoch that comes next or is under way, from 0.
    step: steps of it that are done.
    loss: sum of their losses.
    iterator: state of the data iterator after the last batch used, None at
      the very beginning.
    monitor: state of the epoch monitor.
  """

  epoch: int = 0
  step: int = 0
  loss: float = 0.0
  iterator: dict[str, Any] | None = None
  monitor: MonitorState

  def to_dict(self) -> dict[str, Any]:
    """Returns a JSON-compatible description; `from_dict` reads it."""
    return dataclasses.asdict(self) | {'monitor': self.monitor.to_dict()}

  @classmethod
  def from_dict(cls, description: Mapping[str, Any]) -> 'Position':
    """Rebuilds the position from `to_dict`'s description."""
    monitor = MonitorState.from_dict(description['monitor'])
    return cls(**{**description, 'monitor': monitor})


def check_compatible(
  saved: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
  """Refuses to go on with a checkpoint under other settings.

  Args:
    saved: the checkpoint's description.
    wanted: that of the configuration.

  Raises:
    UserError: listing every setting that differs and may not.
  """
  differences = [
    f'{path}: {old} in the checkpoint, {new} in the configuration'
    for key in ('architecture', 'preprocessing', 'config', 'data')
    for path, old, new in _differences(saved.get(key), wanted.get(key), key)
    if not path.startswith(CHANGEABLE)
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
  elif (_BEFORE.get(path) if saved is None else saved) != wanted:
    yield path, saved, wanted
