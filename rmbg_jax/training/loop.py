"""The training loop.

`train_and_evaluate` reads from top to bottom in the order things happen in.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import tqdm
from jax.sharding import Mesh

from data_pipelines.io import errors
from rmbg_jax.training import (
  inputs,
  memory,
  monitor,
  optimizers,
  resume,
  setup,
  signals,
  state,
  summary,
  validation,
  writers,
)
from rmbg_jax.training.step import Metrics, TrainStep, read_metrics
from rmbg_jax.weights import checkpoints


def train_and_evaluate(
  config: ml_collections.ConfigDict, workdir: Path
) -> dict[str, Any]:
  """Trains the network that a configuration describes.

  Args:
    config: as `configs/default.py` has it.
    workdir: for checkpoints, logs and pictures. A training found there goes on
      where it stopped.

  Returns:
    The last epoch's row of the log.

  Raises:
    UserError: if data or weights are missing (as a FileNotFoundError too), the
      configuration or the data is wrong, or the working directory holds a
      training with other settings.
    DivergedError: if the loss stops being finite.
    Stopped: after SIGTERM or Ctrl-C, when everything is saved.
  """
  mesh = state.make_mesh()
  is_main = jax.process_index() == 0
  wanted, parts = config, setup.make_parts(config)
  data = parts.data
  on_plateau = config.optimizer.schedule == 'plateau'
  if is_main:
    print(summary.summarize(parts.model, size=parts.preprocessing.size))
    print(
      f'{len(data.training)} images to train on, {len(data.validation)} to '
      f'validate, {data.steps_per_epoch} steps per epoch, on '
      f'{jax.device_count()} {jax.devices()[0].platform} device(s). Working '
      f'directory: {workdir}'
    )

  position = resume.Position(
    monitor=monitor.MonitorState(learning_rate=config.optimizer.learning_rate)
  )
  with (
    memory.naming_keys(config),
    checkpoints.CheckpointStore(workdir, writable=True) as store,
    signals.StopRequest() as stop_request,
  ):
    latest = store.latest_step
    if latest is not None:  # Other settings are refused before anything loads.
      saved = store.read_description(latest)
      config = memory.take_chosen(config, saved['config'])
      resume.check_compatible(saved, setup.settle(parts, config).description)
      position = resume.Position.from_dict(saved['position'])
      training_data = saved['training_data']
    else:
      training_data = setup.find_training_data(config, parts)
      config = memory.choose(config, parts, mesh)
    parts = setup.settle(parts, config)
    chosen = memory.describe(wanted, config)
    if is_main and chosen:
      print(chosen)
    train_state = setup.create_train_state(
      config, parts, mesh, resumed=latest is not None
    )
    if latest is not None:
      train_state = resume.restore_state(store, train_state, step=latest)
      data.train_batches.set_state(position.iterator)
      if is_main and position.epoch >= config.train.epochs:
        print(
          f'Complete: {position.epoch} epochs. Raise config.train.epochs to go '
          'on.'
        )
      elif is_main:
        print(
          f'Resumed at epoch {position.epoch + 1}, step {position.step} of it.'
        )

    train_step = setup.make_train_step(config, parts)
    eval_step = validation.make_eval_step(
      parts.model,
      parts.preprocessing,
      deterministic=config.deterministic,
      **parts.loss_options,
    )
    predict_step = validation.make_predict_step(
      parts.model, parts.preprocessing, mesh
    )

    def save(train_state, position, *, metrics=None):
      description = {
        **parts.description,
        'training_data': training_data,
        'position': position.to_dict(),
      }
      resume.save_state(
        store, train_state, metrics=metrics, description=description
      )

    reporter = writers.Reporter(
      workdir,
      first_epoch=position.epoch,
      tensorboard=config.train.tensorboard,
      active=is_main,
    )
    if is_main and position.epoch < config.train.epochs:
      print('The first step compiles the network, which takes a while.')
    stopped, shown = False, None
    profiler = writers.Profiler(
      workdir, config.train.profile_steps, active=is_main
    )
    while position.epoch < config.train.epochs and not monitor.is_over(
      position.monitor, parts.monitor_settings
    ):
      schedule = parts.schedule
      if on_plateau:
        schedule = functools.partial(_get_rate, position.monitor)
      # Within an epoch, the order is: next batch -> step -> look at the
      # previous step's loss, while the device computes this one's. After it:
      # evaluate -> log -> save, so that a checkpoint has its own metrics.
      began, first_step = time.monotonic(), position.step
      train_state, position, report = _train_epoch(
        train_step,
        train_state,
        data,
        position,
        mesh=mesh,
        stop_request=stop_request,
        save=save,
        save_every=config.train.save_every,
        profiler=profiler,
        progress={
          'desc': f'Epoch {position.epoch + 1}/{config.train.epochs}',
          'disable': not is_main,
        },
        schedule=schedule,
        val_loss=reporter.last.get('val_loss', math.nan),
      )
      if position.step < data.steps_per_epoch:  # Stopped on request.
        save(train_state, position)
        stopped = True
        break
      trained = time.monotonic()
      scores = validation.evaluate(
        eval_step, train_state.eval_variables, data.eval_batches, mesh=mesh
      )
      _check_finite({'val_loss': scores['val_loss']}, int(train_state.step))
      row = {
        'epoch': position.epoch,
        'learning_rate': schedule(
          (position.epoch + 1) * data.steps_per_epoch - 1
        ),
        'loss': position.loss / data.steps_per_epoch,
        **{key: scores[key] for key in ('val_loss', 'val_mae', 'val_iou')},
        **report,
        'images_per_second': round(
          config.data.batch_size
          * (data.steps_per_epoch - first_step)
          / (trained - began),
          2,
        ),
        'seconds': round(time.monotonic() - began, 2),
      }
      reporter.write(row)
      if _is_due(position.epoch, config.train):
        # Always the same; to begin with the batches reads many ahead.
        shown = next(iter(data.eval_batches)) if shown is None else shown
        reporter.write_grid(
          position.epoch,
          _make_grid(
            predict_step,
            train_state.eval_variables,
            shown,
            count=config.train.grid_images,
            mesh=mesh,
          ),
        )
      position = resume.Position(
        epoch=position.epoch + 1,
        iterator=position.iterator,
        monitor=monitor.step_monitor(
          position.monitor, scores['val_loss'], parts.monitor_settings
        ),
      )
      save(train_state, position, metrics=scores)
      if stop_request.reached(position.epoch * data.steps_per_epoch):
        stopped = position.epoch < config.train.epochs
        break
    profiler.close()
    reporter.close()
    best = store.best_step
  # Everything is on disk now.
  if stopped:
    raise errors.Stopped(
      f'Stopped on request at epoch {position.epoch + 1}, step {position.step} '
      'of it, and saved. The same command goes on from there.',
      stop_request.signum,
    )
  if is_main:
    if position.epoch < config.train.epochs:
      print(
        'Stopped early: no lower validation loss for '
        f'{config.train.early_stopping} epochs (config.train.early_stopping).'
      )
    if best is not None:
      print(
        f'Best checkpoint: step {best} in {workdir}. Try it: python -m '
        f'rmbg_jax.predict --checkpoint={workdir} --input=PHOTOS --output=OUT'
      )
  return reporter.last


def _train_epoch(
  train_step: TrainStep,
  train_state: state.TrainState,
  data: inputs.Inputs,
  position: resume.Position,
  *,
  mesh: Mesh,
  stop_request: signals.StopRequest,
  save: Callable[[state.TrainState, resume.Position], None],
  save_every: int,
  profiler: writers.Profiler,
  progress: Mapping[str, Any],
  schedule: optimizers.Schedule,
  val_loss: float,
) -> tuple[state.TrainState, resume.Position, dict[str, float]]:
  """Trains to the end of the epoch, or until asked to stop.

  Every `save_every` steps, `save` gets the state and the position.

  Returns:
    The state, the position after its last step, and what to report: norms of
    the last step, seconds spent waiting for data, device memory in MB.
  """
  # On the host: asking the device would wait for it.
  epoch_start = position.epoch * data.steps_per_epoch
  total, pending, waited = position.loss, None, 0.0
  done = position.step

  def get_position():
    return dataclasses.replace(
      position, step=done, loss=total, iterator=data.train_batches.get_state()
    )

  with tqdm.tqdm(
    initial=done,
    total=data.steps_per_epoch,
    unit='batch',
    leave=False,
    **progress,
  ) as bar:
    while done < data.steps_per_epoch:
      profiler.before(epoch_start + done + 1)
      began = time.monotonic()
      batch = state.put_batch(next(data.train_batches), mesh)
      waited += time.monotonic() - began
      # The same type at each step: one program, whatever the rate.
      rate = state.put_scalar(schedule(epoch_start + done), mesh)
      train_state, step_metrics = train_step(train_state, batch, rate)
      if pending is not None:
        total += _read_metrics(pending, epoch_start + done)['loss']
        bar.set_postfix(
          loss=f'{total / done:.4f}',
          val_loss='-' if math.isnan(val_loss) else f'{val_loss:.4f}',
          lr=f'{schedule(epoch_start + done):.2g}',
          refresh=False,
        )
      pending = step_metrics
      done += 1
      bar.update()
      profiler.after(epoch_start + done, pending)
      if stop_request.reached(epoch_start + done):
        break
      due = save_every and done % save_every == 0
      if due and done < data.steps_per_epoch:  # Its end is saved anyway.
        total += _read_metrics(pending, epoch_start + done)['loss']
        pending = None
        save(train_state, get_position())
    report = _read_metrics(pending, epoch_start + done)
    total += report.pop('loss')
  report['data_seconds'] = round(waited, 2)
  memory = jax.local_devices()[0].memory_stats() or {}
  report['device_memory_mb'] = memory.get('peak_bytes_in_use', 0) // 2**20
  return train_state, get_position(), report


def _get_rate(state: monitor.MonitorState, step: int) -> float:
  """The schedule of an epoch on a plateau."""
  del step
  return state.learning_rate


def _read_metrics(metrics: Metrics, step: int) -> dict[str, float]:
  """Returns a step's metrics by name; all of them must be finite.

  A loss is that of the parameters before their update, so a finite one does not
  say that they are finite now.
  """
  values = read_metrics(metrics)
  _check_finite(values, step)
  return values


def _check_finite(values: Mapping[str, float], step: int) -> None:
  wrong = {key: v for key, v in values.items() if not math.isfinite(v)}
  if wrong:
    found = ', '.join(f'{key} {value}' for key, value in wrong.items())
    raise errors.DivergedError(
      f'Not finite at step {step}: {found}. The last checkpoint is kept. Go on '
      'from its weights in another working directory, with '
      '--config.init_from=THIS_WORKDIR and a lower '
      '--config.optimizer.learning_rate, or --config.optimizer.clip_norm=1.'
    )


def _is_due(epoch: int, settings: ml_collections.ConfigDict) -> bool:
  """Whether to write pictures: every so many epochs, and at the end."""
  if not settings.grid_every:
    return False
  return (epoch + 1) % settings.grid_every == 0 or epoch + 1 == settings.epochs


def _make_grid(
  predict_step: validation.PredictStep,
  variables: Any,
  batch: Mapping[str, Any],
  *,
  count: int,
  mesh: Mesh,
) -> Any:
  """Returns a picture of the first validation images (this process's)."""
  probs = predict_step(variables, state.put_batch(batch, mesh))
  count = min(count, int((batch['weight'] > 0).sum()))
  return writers.make_grid(
    batch['image'][:count],
    batch['alpha'][:count],
    [output[:count] for output in jax.device_get(probs)],
  )
