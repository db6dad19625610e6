"""The training loop and the training step.

`train_and_evaluate` reads from top to bottom in the order things happen in.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax
import tqdm
from jax.sharding import Mesh

from rmbg_jax import (
  checkpoints,
  inputs,
  losses,
  models,
  monitor,
  optimizers,
  resume,
  signals,
  state,
  summary,
  validation,
  writers,
)
from rmbg_jax.preprocessing import Preprocessing, make_preprocessing
from rmbg_jax.pretrained import imagenet, load

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
TrainStep = Callable[
  [state.TrainState, Batch], tuple[state.TrainState, Metrics]
]


def make_train_step(
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  preprocessing: Preprocessing,
  *,
  loss_weights: Mapping[str, float],
  output_weights: Sequence[float],
  freeze_encoder: bool = False,
  accumulation: int = 1,
  ema_decay: float = 0.0,
  deterministic: bool = False,
) -> TrainStep:
  """Returns the jitted training step.

  It takes the state (whose buffers it reuses) and a batch as the loader makes
  it, and returns the next state and the step's `loss`, `grad_norm`,
  `param_norm` and `update_norm`. Over a mesh, the loss, its gradient and the
  batch statistics are those of the whole global batch.

  Args:
    model: the network.
    optimizer: of its parameters.
    preprocessing: of its input.
    loss_weights: see `losses.compute_loss`.
    output_weights: see `losses.compute_loss`.
    freeze_encoder: whether the encoder and its statistics stay as they are;
      the optimiser must leave it alone as well.
    accumulation: parts that a batch is computed in, one after the other, to
      save memory. The gradient is that of the whole batch, but for the batch
      statistics, which are those of each part.
    ema_decay: of the moving averages, which the state must have, or 0. In the
      first steps the decay is (1 + step) / (10 + step), as long as that is
      lower.
    deterministic: whether a GPU must give the same bits every time.
  """

  def compute_loss(params, batch_stats, batch, total_weight):
    if freeze_encoder:
      encoder = jax.lax.stop_gradient(params['encoder'])
      params = {**params, 'encoder': encoder}
    outputs, updates = model.apply(
      {'params': params, 'batch_stats': batch_stats},
      preprocessing.normalize(batch['image']),
      train=True,
      freeze_encoder=freeze_encoder,
      mutable=['batch_stats'],
    )
    per_image = losses.compute_loss(
      outputs,
      batch['alpha'].astype(jnp.float32) / 255,
      weights=loss_weights,
      output_weights=output_weights,
    )
    loss = jnp.sum(per_image * batch['weight']) / total_weight
    return loss, updates['batch_stats']

  compute_grads = jax.value_and_grad(compute_loss, has_aux=True)

  def accumulate_grads(params, batch_stats, batch, total_weight):
    def add_part(carry, part):
      loss, batch_stats, grads = carry
      (part_loss, batch_stats), part_grads = compute_grads(
        params, batch_stats, part, total_weight
      )
      grads = jax.tree.map(jnp.add, grads, part_grads)
      return (loss + part_loss, batch_stats, grads), None

    # Every part takes its share from every device's images.
    parts = jax.tree.map(
      lambda x: x.reshape(-1, accumulation, *x.shape[1:]).swapaxes(0, 1), batch
    )
    zeros = jax.tree.map(jnp.zeros_like, params)
    start = (jnp.zeros(()), batch_stats, zeros)
    (loss, batch_stats, grads), _ = jax.lax.scan(add_part, start, parts)
    return (loss, batch_stats), grads

  def train_step(train_state, batch):
    compute = compute_grads if accumulation == 1 else accumulate_grads
    (loss, batch_stats), grads = compute(
      train_state.params,
      train_state.batch_stats,
      batch,
      jnp.maximum(jnp.sum(batch['weight']), 1e-6),
    )
    updates, opt_state = optimizer.update(
      grads, train_state.opt_state, train_state.params
    )
    params = optax.apply_updates(train_state.params, updates)
    step_metrics = {
      'loss': loss,
      'grad_norm': optax.tree.norm(grads),
      'param_norm': optax.tree.norm(params),
      'update_norm': optax.tree.norm(updates),
    }
    ema = train_state.ema
    if ema_decay:
      step = train_state.step.astype(jnp.float32)
      decay = jnp.minimum(ema_decay, (1 + step) / (10 + step))
      ema = jax.tree.map(
        lambda old, new: old + (1 - decay) * (new - old),
        ema,
        {'params': params, 'batch_stats': batch_stats},
      )
    next_state = state.TrainState(
      step=train_state.step + 1,
      params=params,
      batch_stats=batch_stats,
      opt_state=opt_state,
      ema=ema,
    )
    return next_state, step_metrics

  on_gpu = jax.default_backend() == 'gpu'
  options = {'xla_gpu_deterministic_ops': True} if on_gpu else {}
  return jax.jit(
    train_step,
    donate_argnames='train_state',
    compiler_options=options if deterministic else None,
  )


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
    FileNotFoundError: if data or weights are missing.
    ValueError: if the configuration or the data is wrong, or the working
      directory holds a training with other settings.
    FloatingPointError: if the loss stops being finite.
    SystemExit: after SIGTERM, when everything is saved.
  """
  mesh = state.make_mesh()
  is_main = jax.process_index() == 0
  architecture, model = create_model(config.model)
  preprocessing = make_preprocessing(
    config.data.normalization or config.model.encoder.dialect,
    size=tuple(config.data.size),
  )
  loss_options = {
    'loss_weights': dict(config.loss.weights),
    'output_weights': tuple(config.loss.outputs),
  }
  losses.check_weights(*loss_options.values())
  settings = monitor.MonitorSettings(
    **config.optimizer.plateau, stop_patience=config.train.early_stopping
  )
  data = inputs.make_inputs(config, size=preprocessing.size)

  schedule = optimizers.make_schedule(
    config.optimizer.schedule,
    learning_rate=config.optimizer.learning_rate,
    warmup_steps=config.optimizer.warmup_steps,
    total_steps=config.train.epochs * data.steps_per_epoch,
  )
  on_plateau = config.optimizer.schedule == 'plateau'
  optimizer = optimizers.make_optimizer(
    config.optimizer.learning_rate if on_plateau else schedule,
    weight_decay=config.optimizer.weight_decay,
    clip_norm=config.optimizer.clip_norm,
    encoder_rate=config.optimizer.encoder_rate,
  )
  train_step = make_train_step(
    model,
    optimizer,
    preprocessing,
    freeze_encoder=config.optimizer.encoder_rate == 0,
    accumulation=config.optimizer.accumulation,
    ema_decay=config.optimizer.ema_decay,
    deterministic=config.deterministic,
    **loss_options,
  )
  eval_step = validation.make_eval_step(model, preprocessing, **loss_options)
  predict_step = validation.make_predict_step(model, preprocessing, mesh)

  if is_main:
    print(summary.summarize(model, size=preprocessing.size))
    print(
      f'{len(data.training)} images to train on, {len(data.validation)} to '
      f'validate, {data.steps_per_epoch} steps per epoch, on '
      f'{jax.device_count()} {jax.devices()[0].platform} device(s). Working '
      f'directory: {workdir}'
    )

  description = {
    'architecture': architecture,
    'preprocessing': preprocessing.to_dict(),
    'config': json.loads(config.to_json_best_effort()),
  }

  def describe(position):
    return {**description, 'position': position.to_dict()}

  position = resume.Position(
    monitor=monitor.MonitorState(learning_rate=config.optimizer.learning_rate)
  )
  with (
    checkpoints.CheckpointStore(workdir, writable=True) as store,
    signals.StopRequest() as stop_request,
  ):
    latest = store.latest_step
    if latest is not None:  # Other settings are refused before anything loads.
      saved = store.read_description(latest)
      resume.check_compatible(saved, description)
      position = resume.Position.from_dict(saved['position'])
    train_state = state.create_train_state(
      _create_variables(
        config, model, preprocessing, resumed=latest is not None
      ),
      optimizer,
      mesh,
      use_ema=config.optimizer.ema_decay > 0,
    )
    if latest is not None:
      train_state = store.restore(train_state, step=latest)
      data.train_batches.set_state(position.iterator)
      if is_main:
        print(
          f'Resumed at epoch {position.epoch + 1}, step {position.step} of it.'
        )

    reporter = writers.Reporter(
      workdir,
      first_epoch=position.epoch,
      tensorboard=config.train.tensorboard,
      active=is_main,
    )
    while position.epoch < config.train.epochs and not position.monitor.stop:
      if on_plateau:
        rate = position.monitor.learning_rate
        schedule = optax.constant_schedule(rate)
        train_state = train_state.replace(
          opt_state=optimizers.set_learning_rate(train_state.opt_state, rate)
        )
      # Within an epoch, the order is: next batch -> step -> look at the
      # previous step's loss, while the device computes this one's. After it:
      # evaluate -> log -> save, so that a checkpoint has its own metrics.
      began = time.monotonic()
      train_state, position, report = _train_epoch(
        train_step,
        train_state,
        data,
        position,
        mesh=mesh,
        stop_request=stop_request,
        profiler=writers.Profiler(workdir, config.train.profile_steps),
        progress={
          'desc': f'Epoch {position.epoch + 1}/{config.train.epochs}',
          'disable': not is_main,
        },
        schedule=schedule,
        val_loss=reporter.last.get('val_loss', math.nan),
      )
      if position.step < data.steps_per_epoch:  # Stopped on request.
        store.save(train_state, metrics=None, description=describe(position))
        break
      trained = time.monotonic()
      scores = validation.evaluate(
        eval_step, train_state.eval_variables, data.eval_batches, mesh=mesh
      )
      row = {
        'epoch': position.epoch,
        'learning_rate': float(schedule(int(train_state.step) - 1)),
        'loss': position.loss / data.steps_per_epoch,
        **{key: scores[key] for key in ('val_loss', 'val_mae', 'val_iou')},
        **report,
        'images_per_second': round(
          config.data.batch_size * data.steps_per_epoch / (trained - began), 2
        ),
        'seconds': round(time.monotonic() - began, 2),
      }
      reporter.write(row)
      if _is_due(position.epoch, config.train):
        reporter.write_grid(
          position.epoch,
          _make_grid(
            predict_step,
            train_state.eval_variables,
            next(iter(data.eval_batches)),
            count=config.train.grid_images,
            mesh=mesh,
          ),
        )
      position = resume.Position(
        epoch=position.epoch + 1,
        iterator=position.iterator,
        monitor=monitor.step_monitor(
          position.monitor, scores['val_loss'], settings
        ),
      )
      store.save(train_state, metrics=scores, description=describe(position))
    reporter.close()
    best = store.best_step
  # Everything is on disk now.
  if position.step:
    raise SystemExit(
      f'Stopped on request at epoch {position.epoch + 1}, step {position.step} '
      'of it, and saved. The same command goes on from there.'
    )
  if is_main:
    if position.monitor.stop:
      print(
        f'Stopped early: no lower validation loss for {settings.stop_patience} '
        'epochs (config.train.early_stopping).'
      )
    print(
      f'Best checkpoint: step {best} in {workdir}. Try it: python -m '
      f'rmbg_jax.predict --checkpoint={workdir} --input=PHOTOS --output=OUT'
    )
  return reporter.last


def create_model(
  model_config: ml_collections.ConfigDict,
) -> tuple[dict[str, Any], nn.Module]:
  """Returns the architecture that `config.model` describes, and the network.

  The architecture is what a checkpoint stores: everything in `config.model`
  but where the first weights come from and the type of the computation.
  """
  architecture = json.loads(model_config.to_json_best_effort())
  dtype = architecture.pop('dtype')
  architecture['encoder'].pop('weights')
  return architecture, models.create_model(architecture, dtype=dtype)


def _create_variables(
  config: ml_collections.ConfigDict,
  model: nn.Module,
  preprocessing: Preprocessing,
  *,
  resumed: bool,
) -> Any:
  """Returns the first `params` and `batch_stats`, or, to resume, any."""
  if config.init_from and not resumed:
    return load.load_variables(config.init_from, model)
  variables = state.create_variables(
    model, seed=config.seed, size=preprocessing.size
  )
  encoder = config.model.encoder
  if encoder.weights and not resumed:
    variables = imagenet.load_encoder(
      variables,
      encoder.weights,
      dialect=encoder.dialect,
      stage_sizes=tuple(encoder.stage_sizes),
    )
  return variables


def _train_epoch(
  train_step: TrainStep,
  train_state: state.TrainState,
  data: inputs.Inputs,
  position: resume.Position,
  *,
  mesh: Mesh,
  stop_request: signals.StopRequest,
  profiler: writers.Profiler,
  progress: Mapping[str, Any],
  schedule: optax.Schedule,
  val_loss: float,
) -> tuple[state.TrainState, resume.Position, dict[str, float]]:
  """Trains to the end of the epoch, or until asked to stop.

  Returns:
    The state, the position after its last step, and what to report: norms of
    the last step, seconds spent waiting for data, device memory in MB.
  """
  # On the host: asking the device would wait for it.
  epoch_start = position.epoch * data.steps_per_epoch
  total, pending, waited = position.loss, None, 0.0
  done = position.step
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
      train_state, step_metrics = train_step(train_state, batch)
      if pending is not None:
        total += _finite_loss(pending, epoch_start + done)
        bar.set_postfix(
          loss=f'{total / done:.4f}',
          val_loss=f'{val_loss:.4f}',
          lr=f'{schedule(epoch_start + done):.2g}',
          refresh=False,
        )
      pending = step_metrics
      done += 1
      bar.update()
      profiler.after(epoch_start + done, pending)
      if stop_request.reached(epoch_start + done):
        break
    total += _finite_loss(pending, epoch_start + done)
  report = {
    key: float(value) for key, value in pending.items() if key != 'loss'
  }
  report['data_seconds'] = round(waited, 2)
  memory = jax.local_devices()[0].memory_stats() or {}
  report['device_memory_mb'] = memory.get('peak_bytes_in_use', 0) // 2**20
  position = resume.Position(
    epoch=position.epoch,
    step=done,
    loss=total,
    iterator=data.train_batches.get_state(),
    monitor=position.monitor,
  )
  return train_state, position, report


def _finite_loss(step_metrics: Metrics, step: int) -> float:
  loss = float(step_metrics['loss'])
  if not math.isfinite(loss):
    raise FloatingPointError(
      f'The loss is {loss} at step {step}; the last checkpoint is kept. Lower '
      'config.optimizer.learning_rate or set config.optimizer.clip_norm.'
    )
  return loss


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
