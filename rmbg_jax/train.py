"""The training loop.

`train_and_evaluate` reads from top to bottom in the order things happen in.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
import ml_collections
import optax
import tqdm

from data_pipelines import folder, loader, sources, transforms
from rmbg_jax import (
  checkpoints,
  evaluate,
  losses,
  models,
  optimizers,
  state,
  summary,
  writers,
)
from rmbg_jax.preprocessing import Preprocessing, make_preprocessing
from rmbg_jax.pretrained import imagenet

TrainStep = Callable[
  [state.TrainState, dict[str, jax.Array]],
  tuple[state.TrainState, dict[str, jax.Array]],
]


def make_train_step(
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  preprocessing: Preprocessing,
  *,
  loss_weights: dict[str, float],
) -> TrainStep:
  """Returns the jitted training step.

  It takes the state (whose buffers it reuses) and a batch, `image` (b, h, w, 3)
  and `alpha` (b, h, w, 1) in [0, 255], and returns the next state and `loss`.
  Over a mesh, the loss, its gradient and the batch statistics are those of
  the whole global batch.
  """

  def train_step(train_state, batch):
    images = preprocessing.normalize(batch['image'])
    alpha = batch['alpha'].astype(jnp.float32) / 255

    def compute_loss(params):
      outputs, updates = model.apply(
        {'params': params, 'batch_stats': train_state.batch_stats},
        images,
        train=True,
        mutable=['batch_stats'],
      )
      per_image = losses.compute_loss(outputs, alpha, weights=loss_weights)
      return jnp.mean(per_image), updates['batch_stats']

    (loss, batch_stats), grads = jax.value_and_grad(compute_loss, has_aux=True)(
      train_state.params
    )
    updates, opt_state = optimizer.update(
      grads, train_state.opt_state, train_state.params
    )
    next_state = state.TrainState(
      step=train_state.step + 1,
      params=optax.apply_updates(train_state.params, updates),
      batch_stats=batch_stats,
      opt_state=opt_state,
    )
    return next_state, {'loss': loss}

  return jax.jit(train_step, donate_argnames='train_state')


def train_and_evaluate(
  config: ml_collections.ConfigDict, workdir: Path
) -> dict[str, Any]:
  """Trains the network that a configuration describes.

  Args:
    config: as `configs/default.py` has it.
    workdir: for checkpoints, `log.csv` and pictures. A training found there
      goes on where it stopped.

  Returns:
    The last epoch's row of the log.

  Raises:
    FileNotFoundError: if data or weights are missing.
    ValueError: if the configuration or the data is wrong, or the working
      directory holds a training of another network.
    FloatingPointError: if the loss stops being finite.
  """
  mesh = state.make_mesh()
  _check_batch_size(config.data.batch_size)
  architecture, model = create_model(config.model)
  preprocessing = make_preprocessing(
    config.data.normalization or config.model.encoder.dialect,
    size=tuple(config.data.size),
  )
  loss_weights = dict(config.loss)

  training, validation = _load_pairs(config.data)
  train_batches, eval_batches = _make_batches(
    config, training, validation, size=preprocessing.size
  )
  steps_per_epoch = loader.count_steps(
    training, batch_size=config.data.batch_size
  )
  schedule = optimizers.make_schedule(
    config.optimizer.schedule,
    learning_rate=config.optimizer.learning_rate,
    warmup_steps=config.optimizer.warmup_steps,
    total_steps=config.train.epochs * steps_per_epoch,
  )
  optimizer = optimizers.make_optimizer(
    schedule,
    weight_decay=config.optimizer.weight_decay,
    clip_norm=config.optimizer.clip_norm,
  )
  train_step = make_train_step(
    model, optimizer, preprocessing, loss_weights=loss_weights
  )
  eval_step = evaluate.make_eval_step(
    model, preprocessing, loss_weights=loss_weights
  )

  print(summary.summarize(model, size=preprocessing.size))
  print(
    f'{len(training)} images to train on, {len(validation)} to validate, '
    f'{steps_per_epoch} steps per epoch, on {jax.device_count()} '
    f'{jax.devices()[0].platform} device(s). Working directory: {workdir}'
  )

  description = {
    'architecture': architecture,
    'preprocessing': preprocessing.to_dict(),
    'config': json.loads(config.to_json_best_effort()),
  }
  with checkpoints.CheckpointStore(workdir, writable=True) as store:
    # Another network's checkpoint is refused before any weights are loaded.
    start = _read_position(store, description)
    variables = state.create_variables(
      model, seed=config.seed, size=preprocessing.size
    )
    if start is None and config.model.encoder.weights:
      variables = imagenet.load_encoder(
        variables,
        config.model.encoder.weights,
        dialect=config.model.encoder.dialect,
        stage_sizes=tuple(config.model.encoder.stage_sizes),
      )
    train_state = state.create_train_state(variables, optimizer, mesh)
    first_epoch = 0
    if start is not None:
      train_state = store.restore(train_state, step=store.latest_step)
      train_batches.set_state(start['iterator'])
      first_epoch = start['epoch'] + 1
      print(f'Resumed at epoch {first_epoch}, step {int(train_state.step)}.')

    log = writers.CsvLog(workdir / 'log.csv', first_epoch=first_epoch)
    row = log.last
    for epoch in range(first_epoch, config.train.epochs):
      # Within an epoch, the order is: next batch -> step -> look at the
      # previous step's loss, while the device computes this one's. After it:
      # evaluate -> log -> save, so that a checkpoint has its own metrics.
      began = time.monotonic()
      train_state, loss = _train_epoch(
        train_step,
        train_state,
        train_batches,
        mesh=mesh,
        steps=steps_per_epoch,
        schedule=schedule,
        label=f'Epoch {epoch + 1}/{config.train.epochs}',
        val_loss=float(row.get('val_loss', math.nan)),
      )
      variables = {
        'params': train_state.params,
        'batch_stats': train_state.batch_stats,
      }
      scores = evaluate.evaluate(eval_step, variables, eval_batches, mesh=mesh)
      row = {
        'epoch': epoch,
        'learning_rate': float(schedule(int(train_state.step) - 1)),
        'loss': loss,
        **scores,
        'seconds': round(time.monotonic() - began, 2),
      }
      log.write(row)
      print(_describe_row(row))
      if config.train.grid_every and (
        (epoch + 1) % config.train.grid_every == 0
        or epoch + 1 == config.train.epochs
      ):
        _write_grid(
          workdir / 'pictures' / f'epoch_{epoch:04d}.png',
          eval_step,
          variables,
          next(iter(eval_batches)),
          count=config.train.grid_images,
          mesh=mesh,
        )
      store.save(
        train_state,
        metrics=scores,
        description={
          **description,
          'position': {'epoch': epoch, 'iterator': train_batches.get_state()},
        },
      )
    if store.best_step is not None:
      print(
        f'Best checkpoint: step {store.best_step} in {workdir}. Try it: '
        f'python -m rmbg_jax.predict --checkpoint={workdir} --input=PHOTOS '
        '--output=OUT'
      )
  return row


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


def _check_batch_size(batch_size: int) -> None:
  devices = jax.device_count()
  if batch_size % devices:
    raise ValueError(
      f'config.data.batch_size (={batch_size}) must be a multiple of the '
      f'number of devices (={devices}). Change it, or hide devices, for '
      'example with CUDA_VISIBLE_DEVICES.'
    )


def _load_pairs(data) -> tuple[list[folder.Pair], list[folder.Pair]]:
  return sources.load_pairs(
    data.name,
    data.dir,
    validation_share=data.validation_share,
    limit=data.limit,
    demo_count=data.demo.count,
    demo_size=data.demo.size,
  )


def _make_batches(
  config, training, validation, *, size
) -> tuple[grain.DatasetIterator, grain.IterDataset]:
  data = config.data
  decode = transforms.Decode(size, allow_empty=data.allow_empty_masks)
  read_options = grain.ReadOptions(
    num_threads=data.loader.threads, prefetch_buffer_size=data.loader.buffer
  )
  train_batches = loader.make_train_iterator(
    training,
    decode=decode,
    augment=transforms.Augment(
      flip=data.augment.flip, min_scale=data.augment.min_scale
    ),
    batch_size=data.batch_size,
    seed=config.seed,
    read_options=read_options,
  )
  eval_batches = loader.make_eval_batches(
    validation,
    decode=decode,
    batch_size=data.batch_size,
    read_options=read_options,
  )
  return train_batches, eval_batches


def _read_position(
  store: checkpoints.CheckpointStore, description: Mapping[str, Any]
) -> dict[str, Any] | None:
  """Returns where the training in the working directory stopped, if any.

  Raises:
    ValueError: if it trained another network or with other preprocessing.
  """
  if store.latest_step is None:
    return None
  saved = store.read_description(store.latest_step)
  differences = []
  for key in ('architecture', 'preprocessing'):
    differences += _compare(saved[key], description[key], key)
  if differences:
    raise ValueError(
      'The working directory holds the checkpoint of another network:\n  '
      + '\n  '.join(differences)
      + '\nPass another --workdir, or the configuration it was trained with.'
    )
  return saved['position']


def _compare(saved: Any, wanted: Any, path: str) -> list[str]:
  if isinstance(saved, Mapping) and isinstance(wanted, Mapping):
    return [
      line
      for key in sorted(saved.keys() | wanted.keys())
      for line in _compare(saved.get(key), wanted.get(key), f'{path}.{key}')
    ]
  if saved == wanted:
    return []
  return [f'{path}: {saved} in the checkpoint, {wanted} in the configuration']


def _train_epoch(
  train_step, train_state, batches, *, mesh, steps, schedule, label, val_loss
) -> tuple[state.TrainState, float]:
  """Trains an epoch; returns the state and the mean loss over its steps."""
  first_step = int(train_state.step)
  total, pending = 0.0, None
  progress = tqdm.tqdm(range(steps), desc=label, unit='batch', leave=False)
  for index in progress:
    batch = state.put_batch(next(batches), mesh)
    train_state, step_metrics = train_step(train_state, batch)
    if pending is not None:
      total += _finite_loss(pending, first_step + index)
      progress.set_postfix(
        loss=f'{total / index:.4f}',
        val_loss=f'{val_loss:.4f}',
        lr=f'{schedule(first_step + index):.2g}',
        refresh=False,
      )
    pending = step_metrics
  total += _finite_loss(pending, first_step + steps)
  return train_state, total / steps


def _finite_loss(step_metrics: Mapping[str, jax.Array], step: int) -> float:
  loss = float(step_metrics['loss'])
  if not math.isfinite(loss):
    raise FloatingPointError(
      f'The loss is {loss} at step {step}; the last checkpoint is kept. Lower '
      'config.optimizer.learning_rate or set config.optimizer.clip_norm.'
    )
  return loss


def _describe_row(row: Mapping[str, int | float]) -> str:
  return (
    f'Epoch {row["epoch"] + 1}: loss {row["loss"]:.4f}, '
    f'val_loss {row["val_loss"]:.4f}, MAE {row["val_mae"]:.4f}, '
    f'IoU {row["val_iou"]:.4f}, learning rate {row["learning_rate"]:.2g}, '
    f'{row["seconds"]:.0f} s'
  )


def _write_grid(path, eval_step, variables, batch, *, count, mesh) -> None:
  _, probs = eval_step(variables, state.put_batch(batch, mesh))
  count = min(count, int(batch['valid'].sum()))
  writers.write_grid(
    path,
    batch['image'][:count],
    batch['alpha'][:count],
    [output[:count] for output in jax.device_get(probs)],
  )
