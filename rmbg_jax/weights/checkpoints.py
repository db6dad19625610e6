"""Training checkpoints on disk. The only file that knows Orbax.

A checkpoint holds two trees and a JSON description. `model` is what prediction
needs (the moving averages where there are any), `training` the rest of the
state; the description has architecture, preprocessing, configuration and the
position in the training. Orbax writes into a temporary folder and renames it,
so that a checkpoint is either whole or not there.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from data_pipelines.io import errors
from data_pipelines.io.types import JsonObject
from rmbg_jax.models import layers

_SUBDIRECTORY = 'checkpoints'
_policies = ocp.training.preservation_policies


def has_checkpoints(workdir: Path) -> bool:
  """Returns whether a training has saved anything in a working directory."""
  directory = workdir / _SUBDIRECTORY
  # Those that are half written have other names than a step.
  return directory.is_dir() and any(
    entry.name.isdigit() for entry in directory.iterdir()
  )


class CheckpointStore(contextlib.AbstractContextManager):
  """Keeps the latest checkpoint and the one with the lowest val_loss.

  Saving runs in the background; leaving the context waits for it.

  Attributes:
    workdir: Working directory of the training.
    writable: Whether this process trains there. Only then may it clear away
      the half-written checkpoint of a training that was killed: a reader must
      not, because that training may be running.
  """

  def __init__(self, workdir: Path, *, writable: bool):
    # Every save is ours, and forced; Orbax decides nothing. Any: its policies
    # do not fulfil its own protocols as they are declared.
    rank: Any = _rank
    saving: Any = ocp.training.save_decision_policies.SpecificStepsPolicy(())
    keeping: Any = _policies.AnyPreservationPolicy(
      [
        _policies.LatestN(1),
        _policies.BestN(
          get_metric_fn=rank, n=1, keep_checkpoints_without_metrics=False
        ),
      ]
    )
    context = ocp.Context()
    # Each device would write a slice of each array, after compiling a program
    # for it: a hundred programs, for some megabytes.
    context.array.saving.use_replica_parallel = False
    self._directory = (workdir / _SUBDIRECTORY).absolute()
    with self._naming_damage(''):  # It reads all metrics.
      self._checkpointer = ocp.training.Checkpointer(
        str(self._directory),
        context=context,
        save_decision_policy=saving,
        preservation_policy=keeping,
        cleanup_tmp_directories=writable,
      )

  def __exit__(self, *exc_info):
    with self._naming_failures():
      self._checkpointer.close()

  @property
  def steps(self) -> list[int]:
    """The steps of all checkpoints there are."""
    return [checkpoint.step for checkpoint in self._list()]

  @property
  def latest_step(self) -> int | None:
    """The step of the newest checkpoint, None if there is none."""
    return max(self.steps, default=None)

  @property
  def best_step(self) -> int | None:
    """The step of the lowest val_loss (the first on ties), None if none."""
    best = max(
      (found for found in self._list() if found.metrics),
      key=lambda found: _rank(cast(Mapping[str, float], found.metrics)),
      default=None,
    )
    return best.step if best else None

  def save(
    self,
    trees: Mapping[str, Any],  # Plain trees of any nodes.
    *,
    step: int,
    metrics: Mapping[str, float] | None,
    description: JsonObject,
  ) -> None:
    """Starts saving trees; a checkpoint of this step that is there stays.

    Args:
      trees: 'model', which `restore_model` reads, and others, of arrays.
      step: Step of the training, which names the checkpoint.
      metrics: The evaluation's, with `val_loss`, or None for a state between
        two evaluations, which can be the latest but not the best.
      description: JSON-compatible; `read_description` returns it.

    Raises:
      UserError: if this one or the one before it cannot be written, as where
        the disk is full.
    """
    if step == self.latest_step:
      return
    with self._naming_failures():
      self._checkpointer.save_checkpointables_async(
        step,
        dict(trees),
        # With the step, so that `_rank` can tell ties apart.
        metrics={**metrics, 'step': step} if metrics else None,
        custom_metadata=dict(description),
        force=True,
      )

  # Any: Orbax' class of it is not public.
  def _list(self) -> Sequence[Any]:
    with self._naming_damage(''):
      return self._checkpointer.checkpoints

  @contextlib.contextmanager
  def _naming_damage(self, name: str) -> Iterator[None]:
    """Names the checkpoint, '' for any, in errors over damaged files."""
    try:
      yield
    except (KeyError, ValueError, FileNotFoundError) as error:
      (reason, *_) = str(error).splitlines() or ['']
      raise errors.UserError(
        f'{self._directory / name}: a checkpoint there is '
        f'damaged or incomplete ({type(error).__name__}: {reason[:200]}). Copy '
        'it again, or remove the folder of that step, so that another is used.'
      ) from error

  @contextlib.contextmanager
  def _naming_failures(self) -> Iterator[None]:
    try:
      yield
    except (OSError, ValueError) as error:
      # TensorStore's errors are ValueErrors, with the system's number inside.
      number = getattr(error, 'errno', None)
      if found := re.search(r"os_error_code='(\d+)'", str(error)):
        number = int(found[1])
      # Not of the system: a mistake of the program.
      if number is None:
        raise
      whole = self._directory.iterdir()
      steps = [int(path.name) for path in whole if path.name.isdigit()]
      kept = max(steps, default=None)
      left = 'none is whole' if kept is None else f'that of step {kept} is kept'
      raise errors.UserError(
        f'{self._directory}: a checkpoint cannot be written '
        f'({os.strerror(number)}); {left}. Make room; the same command goes on '
        'from there.'
      ) from error

  def read_description(self, step: int) -> dict[str, Any]:
    """Returns the description that a checkpoint was saved with.

    Raises:
      UserError: if the checkpoint is damaged.
    """
    with self._naming_damage(str(step)):
      metadata = self._checkpointer.checkpointables_metadata(step)
      if not metadata.custom_metadata:
        raise ValueError('no description')
    return cast(dict[str, Any], metadata.custom_metadata)

  def restore(
    self,
    trees: Mapping[str, Any],  # As for `save`.
    *,
    step: int,
  ) -> dict[str, Any]:
    """Returns saved trees, laid out over the devices as `trees` are.

    Raises:
      UserError: if the checkpoint is of another network or optimiser.
    """
    abstract = jax.tree.map(ocp.arrays.to_shape_dtype_struct, dict(trees))
    try:
      return self._checkpointer.load_checkpointables(step, abstract)
    except (KeyError, ValueError) as error:
      raise errors.UserError(
        f'{self._directory / str(step)}: the checkpoint does not '
        'fit the configuration (is config.optimizer another one?), or is '
        'damaged: '
        f'{error.__cause__ or error}'
      ) from error

  def restore_model(
    self, shapes: Mapping[str, tuple[int, ...]], *, step: int
  ) -> layers.Variables:
    """Returns the saved `params` and `batch_stats` as NumPy arrays.

    Works on any device, whatever the checkpoint was saved on. Their shapes are
    passed by flat keys.

    Raises:
      UserError: if the checkpoint is damaged.
    """
    # NumPy arrays ask Orbax for such; their content is not used.
    abstract = layers.unflatten(
      {key: np.empty(shape, np.float32) for key, shape in shapes.items()}
    )
    with self._naming_damage(str(step)):
      trees = self._checkpointer.load_checkpointables(step, {'model': abstract})
    return trees['model']


def _rank(metrics: Mapping[str, float]) -> tuple[float, int]:
  """Orders checkpoints, best last: lowest val_loss, the earliest on ties."""
  return -metrics['val_loss'], -int(metrics['step'])
