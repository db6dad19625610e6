"""The training loop.

`train_and_evaluate` reads from top to bottom in the order things happen in.
"""

import dataclasses
import functools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
import tqdm
from jax.sharding import Mesh
from jaxtyping import UInt8

from data_pipelines.io import errors
from rmbg_jax import runtime
from rmbg_jax.training import (
  clock,
  logs,
  memory,
  messages,
  monitor,
  optimizers,
  profiling,
  resume,
  setup,
  signals,
  state,
  validation,
)
from rmbg_jax.training.step import Metrics, TrainStep, read_metrics
from rmbg_jax.weights import checkpoints


def train_and_evaluate(
  config: ml_collections.ConfigDict, workdir: Path
) -> dict[str, Any]:
  """Trains the network that a configuration describes.

  Args:
    config: Configuration with the keys of `configs/default.py`.
    workdir: Folder for checkpoints, logs and pictures. A training found there
      goes on where it stopped.

  Returns:
    The last epoch's row of the log.

  Raises:
    UserError: if data or weights are missing (as a FileNotFoundError too), the
      configuration or the data is wrong, or the working directory holds a
      training with other settings.
    DivergedError: if the loss stops being finite.
    Stopped: after SIGTERM or Ctrl-C, when everything is saved.
  """
  if config.model.name == 'refiner':  # It has other settings.
    raise errors.UserError(
      'config.model.name=refiner: train it with python -m '
      'rmbg_jax.train_refiner.'
    )
  with (
    runtime.naming_remedies(
      f'It is too little for {messages.name_batch(config)}. '
      f'{messages.MEMORY_REMEDIES}'
    ),
    checkpoints.CheckpointStore(workdir, writable=True) as store,
    signals.StopRequest() as stop_request,
  ):
    training = _prepare(config, workdir, store, stop_request)
    # To see what the training begins with, and so what it has improved.
    if config.init_from and store.latest_step is None:
      scores = training.evaluate().items()
      found = ', '.join(f'{key} {value:.4f}' for key, value in scores)
      _say(f'Before the first step: {found}')
    stopped = False
    while not stopped and not training.is_over:
      # Within an epoch, the order is: next batch -> step -> look at the
      # previous step's loss, while the device computes this one's. After it:
      # evaluate -> log -> save, so that a checkpoint has its own metrics.
      began = time.monotonic()
      report = training.train_epoch()
      if report is None:  # Stopped on request.
        training.save()
        stopped = True
        break
      scores = training.evaluate()
      training.write(report, scores, seconds=time.monotonic() - began)
      training.advance(scores)
      training.save(metrics=scores)
      stopped = training.is_stopped_between_epochs()
    training.close()
    best = store.best_step
  # Everything is on disk now.
  if stopped:
    position = training.position
    raise errors.Stopped(
      f'Stopped on request at epoch {position.epoch + 1}, step {position.step} '
      'of it, and saved. The same command goes on from there.',
      stop_request.signum,
    )
  _say(messages.describe_end(training.position, config, best, workdir))
  return training.reporter.last


@dataclasses.dataclass(kw_only=True)
class Training:
  """A training under way: what it works with, and where it stands.

  Attributes:
    config: Configuration of the training, without 'auto'.
    components: Made of the configuration.
    mesh: The devices.
    train_step: See `step.make_train_step`.
    eval_step: See `validation.make_eval_step`.
    store: Store of the checkpoints.
    stop_request: Whether to stop.
    reporter: Writes logs and pictures.
    profiler: Records some steps.
    clock: Measures how much of a limited time is over.
    training_data: Sources that the network has seen when the training ends.
    train_state: State after the last step taken.
    position: Position of that state in the training.
  """

  config: ml_collections.ConfigDict
  components: setup.Components
  mesh: Mesh
  train_step: TrainStep
  eval_step: validation.EvalStep
  store: checkpoints.CheckpointStore
  stop_request: signals.StopRequest
  reporter: logs.Reporter
  profiler: profiling.Profiler
  clock: clock.Clock
  training_data: list[str]
  train_state: state.TrainState
  position: resume.Position

  @property
  def is_over(self) -> bool:
    """Whether all epochs or the time are over, or early stopping ends them."""
    return (
      self.position.epoch >= self.config.train.epochs
      or self.position.share >= 1
      or monitor.is_over(
        self.position.monitor, self.components.monitor_settings
      )
    )

  @property
  def schedule(self) -> optimizers.Schedule:
    """The learning rate by step, in this epoch."""
    if self.config.optimizer.schedule == 'plateau':
      return lambda step: self.position.monitor.learning_rate
    return self.clock.limit(
      self.components.schedule,
      steps=self.config.train.epochs * self.components.data.steps_per_epoch,
      warmup_steps=self.config.optimizer.warmup_steps,
    )

  def train_epoch(self) -> dict[str, float] | None:
    """Trains to the end of the epoch, saving between steps where that is due.

    Returns:
      What to report: the mean rate in images/s, norms of the last step, seconds
      spent waiting for data, device memory in MB. None if asked to stop.
    """
    data, start = self.components.data, self.position
    # On the host: asking the device would wait for it.
    first = start.epoch * data.steps_per_epoch
    schedule, save_every = self.schedule, self.config.train.save_every
    pending, total, done, waited = None, start.loss, start.step, 0.0
    began = time.monotonic()
    with self._make_bar() as bar:
      while done < data.steps_per_epoch:
        self.profiler.before(first + done + 1)
        asked = time.monotonic()
        batch = state.put_batch(next(data.train_batches), self.mesh)
        waited += time.monotonic() - asked
        # The same type at each step: one program, whatever the rate.
        rate = state.put_scalar(schedule(first + done), self.mesh)
        self.train_state, step_metrics = self.train_step(
          self.train_state, batch, rate
        )
        if pending is not None:
          total += _read_metrics(pending, first + done)['loss']
          self.clock.begin()
          self._show(bar, total / done, schedule(first + done))
        pending = step_metrics
        done += 1
        bar.update()
        self.profiler.after(first + done, pending)
        # The caller saves, once the loss is read below.
        if self.stop_request.reached(first + done) or self.clock.share >= 1:
          break
        due = save_every and done % save_every == 0
        if due and done < data.steps_per_epoch:  # The end is saved anyway.
          # The sum of losses that is saved has this step's, too.
          total += _read_metrics(pending, first + done)['loss']
          pending = None
          self._move_to(done, total)
          self.save()
      report = _read_metrics(step_metrics, first + done)
      self._move_to(done, total + report.pop('loss'))
    if done < data.steps_per_epoch and self.position.share < 1:
      return None
    # Only the steps that this process has done of an epoch that is resumed.
    images = self.config.data.batch_size * (done - start.step)
    stats = jax.local_devices()[0].memory_stats() or {}  # None on a CPU.
    return {
      **report,
      'data_seconds': round(waited, 2),
      'device_memory_mb': stats.get('peak_bytes_in_use', 0) // 2**20,
      'images_per_second': round(images / (time.monotonic() - began), 2),
    }

  def evaluate(self) -> dict[str, float]:
    """Returns `val_loss`, `val_mae` and `val_iou`; all are finite."""
    scores = validation.evaluate(
      self.eval_step,
      self.train_state.eval_variables,
      self.components.data.eval_batches,
      mesh=self.mesh,
    )
    monitor.check_finite(
      {'val_loss': scores['val_loss']}, int(self.train_state.step)
    )
    return scores

  def write(
    self,
    report: Mapping[str, float],
    scores: Mapping[str, float],
    *,
    seconds: float,
  ) -> None:
    """Writes the epoch's row of the log, and its picture where one is due.

    Args:
      report: Values that `train_epoch` returned.
      scores: Values that `evaluate` returned.
      seconds: Duration of both, in seconds.
    """
    epoch, steps = self.position.epoch, self.components.data.steps_per_epoch
    self.reporter.write(
      {
        'epoch': epoch,
        # The rate of the epoch's last step.
        'learning_rate': self.schedule((epoch + 1) * steps - 1),
        'loss': self.position.loss / self.position.step,
        **{key: scores[key] for key in ('val_loss', 'val_mae', 'val_iou')},
        **report,
        'seconds': round(seconds, 2),
      }
    )
    every = self.config.train.grid_every
    is_last = epoch + 1 == self.config.train.epochs
    if every and (is_last or (epoch + 1) % every == 0):
      self.reporter.write_grid(epoch, self._make_grid())

  def advance(self, scores: Mapping[str, float]) -> None:
    """Moves to the next epoch, with the rate that the scores ask for."""
    self.position = resume.Position(
      epoch=self.position.epoch + 1,
      share=self.position.share,
      iterator=self.position.iterator,
      monitor=monitor.step_monitor(
        self.position.monitor,
        scores['val_loss'],
        self.components.monitor_settings,
      ),
    )

  def save(self, *, metrics: Mapping[str, float] | None = None) -> None:
    """Starts saving a checkpoint; with metrics, it may become the best."""
    resume.save_state(
      self.store,
      self.train_state,
      metrics=metrics,
      description={
        **self.components.description,
        'training_data': self.training_data,
        'position': self.position.to_dict(),
      },
    )

  def is_stopped_between_epochs(self) -> bool:
    """Returns whether to stop here, with epochs left."""
    steps = self.position.epoch * self.components.data.steps_per_epoch
    asked = self.stop_request.reached(steps)  # By all processes, in any case.
    return asked and self.position.epoch < self.config.train.epochs

  def close(self) -> None:
    """Closes the logs."""
    self.profiler.close()
    self.reporter.close()

  def _move_to(self, step: int, loss: float) -> None:
    self.position = dataclasses.replace(
      self.position,
      step=step,
      loss=loss,
      share=self.clock.share,
      iterator=self.components.data.train_batches.get_state(),
    )

  def _make_bar(self) -> tqdm.tqdm:
    return tqdm.tqdm(
      desc=f'Epoch {self.position.epoch + 1}/{self.config.train.epochs}',
      initial=self.position.step,
      total=self.components.data.steps_per_epoch,
      unit='batch',
      leave=False,
      disable=not _is_main(),
    )

  def _show(self, bar: tqdm.tqdm, loss: float, rate: float) -> None:
    val_loss = self.reporter.last.get('val_loss')
    bar.set_postfix(
      loss=f'{loss:.4f}',
      val_loss='-' if val_loss is None else f'{val_loss:.4f}',
      lr=f'{rate:.2g}',
      refresh=False,
    )

  def _make_grid(self) -> UInt8[np.ndarray, 'h w 3']:
    """Draws this process's first validation images: photo, truth, outputs."""
    batch = self._first_batch
    _, probs = self.eval_step(
      self.train_state.eval_variables, state.put_batch(batch, self.mesh)
    )
    # One at least: a process may have nothing but padding.
    count = max(1, int((batch['weight'] > 0).sum()))
    count = min(count, self.config.train.grid_images)
    columns = [
      np.asarray(batch['image']),
      np.repeat(np.asarray(batch['alpha']), 3, axis=-1),
    ]
    for output in map(state.read_own_part, probs):
      grey = np.round(output * 255).astype(np.uint8)
      columns.append(np.repeat(grey, 3, axis=-1))
    return np.concatenate(
      [np.concatenate(column[:count]) for column in columns], axis=1
    )

  @functools.cached_property
  def _first_batch(self) -> state.Batch:
    # Kept: to begin with the batches reads many ahead.
    return next(iter(self.components.data.eval_batches))


def _prepare(
  config: ml_collections.ConfigDict,
  workdir: Path,
  store: checkpoints.CheckpointStore,
  stop_request: signals.StopRequest,
) -> Training:
  """Returns the training at its last checkpoint, or at its beginning."""
  began = time.monotonic()
  if config.train.minutes and jax.process_count() > 1:
    raise errors.UserError(
      f'config.train.minutes={config.train.minutes} is for one host: the '
      f'clocks of {jax.process_count()} differ. Set it to 0.'
    )
  mesh, components = state.make_mesh(), setup.make_components(config)
  _say(messages.describe_beginning(components, workdir))
  wanted, latest = config, store.latest_step
  if latest is None:
    position = resume.Position(
      monitor=monitor.MonitorState(learning_rate=config.optimizer.learning_rate)
    )
    training_data = setup.find_training_data(config, components)
    _say(messages.describe_other_input(config, components))
    config, components, train_step = memory.choose(config, components, mesh)
  else:  # Other settings are refused before anything loads.
    saved = store.read_description(latest)
    position = resume.Position.from_dict(saved['position'])
    training_data = saved['training_data']
    # As at the beginning: other parts have other batch statistics.
    config, components, train_step = memory.settle(
      config,
      components,
      saved['config']['model']['remat'],
      saved['config']['optimizer']['accumulation'],
    )
    resume.check_compatible(saved, components.description)
    steps = components.data.steps_per_epoch
    _say(messages.describe_changed_rate(saved, config, steps, position))
  _say(messages.describe_memory(wanted, config))
  train_state = setup.create_train_state(
    config, components, mesh, resumed=latest is not None
  )
  if latest is not None:
    train_state = resume.restore_state(store, train_state, step=latest)
  if position.iterator is not None:
    components.data.train_batches.set_state(position.iterator)
  _say(messages.describe_position(position, config, resumed=latest is not None))
  return Training(
    config=config,
    components=components,
    mesh=mesh,
    train_step=train_step,
    eval_step=validation.make_eval_step(
      components.model,
      components.preprocessing,
      mesh,
      deterministic=config.deterministic,
      **components.loss_options,
    ),
    store=store,
    stop_request=stop_request,
    reporter=logs.Reporter(
      workdir,
      first_epoch=position.epoch,
      tensorboard=config.train.tensorboard,
      active=_is_main(),
    ),
    profiler=profiling.Profiler(
      workdir, config.train.profile_steps, active=_is_main()
    ),
    clock=clock.Clock(config.train.minutes, began=began, share=position.share),
    training_data=training_data,
    train_state=train_state,
    position=position,
  )


def _is_main() -> bool:
  """Returns whether this process is the one that prints and writes."""
  return jax.process_index() == 0


def _say(text: str) -> None:
  if _is_main() and text:
    print(text)


def _read_metrics(metrics: Metrics, step: int) -> dict[str, float]:
  """Returns a step's metrics by name; all of them must be finite.

  A loss is that of the parameters before their update, so a finite one does not
  say that they are finite now.
  """
  values = read_metrics(metrics)
  monitor.check_finite(values, step)
  return values
