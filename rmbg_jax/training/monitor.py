"""Lowers the learning rate and ends the training, as three Keras callbacks do.

ReduceLROnPlateau, EarlyStopping and ModelCheckpoint watch the same number, the
validation loss, each with its own idea of an improvement. Optax's
`reduce_on_plateau` counts steps and compares relatively, and Flax's early
stopping is one epoch late, so the three are kept here, with Keras' arithmetic.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from data_pipelines.io import errors
from data_pipelines.io.types import JsonObject


@dataclasses.dataclass(frozen=True, kw_only=True)
class MonitorSettings:
  """Thresholds for lowering the learning rate and for ending the training.

  Attributes:
    patience: Epochs without an improvement of `min_delta` after which the
      learning rate is multiplied by `factor`; 0 for never.
    factor: See there.
    min_delta: Smallest decrease of the loss that the plateau takes for one.
    min_learning_rate: The rate does not fall below it.
    stop_patience: Epochs without any improvement after which the training
      ends; 0 for never.
  """

  patience: int
  factor: float
  min_delta: float
  min_learning_rate: float
  stop_patience: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class MonitorState:
  """The state of the callbacks; part of every checkpoint.

  Attributes:
    learning_rate: Learning rate of the next epoch.
    plateau_best: The lowest loss, as the plateau sees it.
    plateau_wait: Epochs since.
    best: The lowest loss.
    stop_wait: Epochs since.
    improved: Whether the last epoch is the best one so far.
  """

  learning_rate: float
  plateau_best: float = math.inf
  plateau_wait: int = 0
  best: float = math.inf
  stop_wait: int = 0
  improved: bool = False

  def to_dict(self) -> dict[str, Any]:
    """Returns a JSON-compatible description; `from_dict` reads it."""
    # JSON knows no infinity.
    return {
      key: None if value == math.inf else value
      for key, value in dataclasses.asdict(self).items()
    }

  @classmethod
  def from_dict(cls, description: JsonObject) -> 'MonitorState':
    """Rebuilds the state from `to_dict`'s description."""
    values: dict[str, Any] = {
      key: math.inf if value is None else value
      for key, value in description.items()
    }
    return cls(**values)


def step_monitor(
  state: MonitorState, loss: float, settings: MonitorSettings
) -> MonitorState:
  """Returns the state after an epoch with that validation loss."""
  learning_rate = state.learning_rate
  if loss < state.plateau_best - settings.min_delta:
    plateau_best, plateau_wait = loss, 0
  else:
    plateau_best, plateau_wait = state.plateau_best, state.plateau_wait + 1
    if settings.patience and plateau_wait >= settings.patience:
      lowest = settings.min_learning_rate
      if learning_rate > lowest:  # Below it, Keras leaves the rate alone.
        learning_rate = max(learning_rate * settings.factor, lowest)
        plateau_wait = 0
  improved = loss < state.best
  stop_wait = 0 if improved else state.stop_wait + 1
  return MonitorState(
    learning_rate=learning_rate,
    plateau_best=plateau_best,
    plateau_wait=plateau_wait,
    best=loss if improved else state.best,  # The loss may be NaN.
    stop_wait=stop_wait,
    improved=improved,
  )


def is_over(state: MonitorState, settings: MonitorSettings) -> bool:
  """Returns whether there has been no improvement for too long."""
  return 0 < settings.stop_patience <= state.stop_wait


def check_finite(values: Mapping[str, float], step: int) -> None:
  """Raises a `DivergedError` that names the values that are not finite."""
  wrong = {key: v for key, v in values.items() if not math.isfinite(v)}
  if wrong:
    found = ', '.join(f'{key} {value}' for key, value in wrong.items())
    raise errors.DivergedError(
      f'Not finite at step {step}: {found}. The last checkpoint is kept. Go on '
      'from its weights in another working directory, with '
      '--config.init_from=THIS_WORKDIR and a lower '
      '--config.optimizer.learning_rate, or --config.optimizer.clip_norm=1.'
    )
