"""The refiner's training loop."""

import hashlib
import json
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import tqdm
from jaxtyping import Array, Float

from data_pipelines.datasets import folder, records
from data_pipelines.io import errors, images
from data_pipelines.io.types import JsonObject
from rmbg_jax import models
from rmbg_jax.models import refiner, refiner_jax
from rmbg_jax.models.flax_network import FlaxNetwork, upsample_bilinear
from rmbg_jax.models.layers import Variables
from rmbg_jax.models.preprocessing import make_preprocessing
from rmbg_jax.refining import composing, windows
from rmbg_jax.training import resume, signals, state
from rmbg_jax.weights import checkpoints

_AHEAD = 2  # Batches that are drawn while a step is computed.
_VALIDATION_BATCHES = 8
_EMA_DECAY = 0.995
_FINE_WEIGHT = 1.5  # Of the loss at the finer level.
_SLOPE_WEIGHT = 4.0  # Of the squared error of slopes.


def train(config: ml_collections.ConfigDict, workdir: Path) -> None:
  """Trains the refiner of a configuration, such as `configs/refiner.py`.

  The folder gets compositions and checkpoints; a training found there goes on
  where it stopped.

  Raises:
    UserError: if data is missing or wrong, or the working directory holds a
      training with other settings.
    DivergedError: if the loss stops being finite.
    Stopped: after SIGTERM or Ctrl-C, when everything is saved.
  """
  if config.model.name != 'refiner':
    raise errors.UserError(
      f'config.model.name={config.model.name}: train it with python -m '
      'rmbg_jax.main; pass --config=refiner here.'
    )
  _check_settings(config)
  pairs, fold = _read_pairs(config.data.dir), config.data.fold
  if fold >= 0 and len(pairs) <= max(1, fold):
    raise errors.UserError(
      f'config.data.fold={fold}: none or all of the {len(pairs)} photos would '
      'be held out. Pass -1 to hold none out, or add photos.'
    )
  description = _describe(config, pairs)
  with checkpoints.CheckpointStore(workdir, writable=True) as store:
    if store.latest_step is not None:
      saved = store.read_description(store.latest_step)
      resume.check_compatible(saved, description)
    # It can be interrupted at once, and goes on with what is missing.
    source, held_out = _load_windows(config, pairs, workdir)
    _train(config, store, description, source, held_out)


def _train(
  config: ml_collections.ConfigDict,
  store: checkpoints.CheckpointStore,
  description: JsonObject,
  source: windows.WindowSource,
  held_out: windows.WindowSource,
) -> None:
  with (
    signals.StopRequest() as stop_request,
    futures.ThreadPoolExecutor(1) as pool,
  ):
    model = models.create_model(description['architecture'])
    optimizer = _make_optimizer(config)
    trees = _create_trees(model, optimizer, config.seed)
    if store.latest_step is not None:
      trees = store.restore(trees, step=store.latest_step)
    validation = [
      # Other numbers than the training's, and the same at every validation.
      held_out.draw(config.data.batch_size, [config.seed + 1, number])
      for number in range(_VALIDATION_BATCHES)
    ]
    step, steps = int(trees['training']['step']), config.optimizer.steps
    coming = []
    train_step, compute_loss = _make_steps(model, optimizer)
    bar = tqdm.tqdm(initial=step, total=steps, unit='step')
    stopped = False
    while step < steps and not stopped:
      while len(coming) <= _AHEAD:
        # By the step's number, so that resuming repeats the same batches.
        seed = [config.seed, step + len(coming)]
        coming.append(pool.submit(source.draw, config.data.batch_size, seed))
      trees, loss = train_step(trees, coming.pop(0).result())
      step += 1
      bar.update()
      stopped = stop_request.reached(step)
      if stopped or step == steps or step % config.train.save_every == 0:
        val_loss = np.mean(
          [compute_loss(trees['model'], one) for one in validation]
        ).item()
        bar.write(f'Step {step}: loss {loss:.4f}, val_loss {val_loss:.4f}')
        if not np.isfinite([val_loss, loss]).all():
          raise errors.DivergedError(
            f'Not finite at step {step}: loss {loss}, val_loss {val_loss}. Go '
            'on in another --workdir, with a lower '
            '--config.optimizer.learning_rate.'
          )
        metrics = {'val_loss': val_loss}
        store.save(trees, step=step, metrics=metrics, description=description)
    bar.close()
  if step < steps:
    raise errors.Stopped(
      f'Stopped on request at step {step}, and saved. The same command goes on '
      'from there.',
      stop_request.signum,
    )


def _check_settings(config: ml_collections.ConfigDict) -> None:
  data, optimizer = config.data, config.optimizer
  for key in ('dir', 'backgrounds'):
    if not data[key]:
      raise errors.UserError(
        f'config.data.{key} is not set: pass --config.data.{key}=FOLDER.'
      )
  has_side = data.side > 0 and data.side % 32 == 0
  for room, key, fits, wanted in (
    ('data', 'side', has_side, 'a multiple of 32'),
    ('data', 'batch_size', data.batch_size > 0, '1 or more'),
    ('data', 'count', data.count > 0, '1 or more'),
    ('data', 'coarse', len(data.coarse) > 0, 'one network or more'),
    ('data', 'folds', data.folds > 1, '2 or more'),
    ('data', 'limit', data.limit >= 0, '0 or more'),
    ('data', 'sharp_limit', data.sharp_limit > 0, '1 or more'),
    ('data', 'fold', -1 <= data.fold < data.folds, '-1, or below data.folds'),
    ('optimizer', 'steps', optimizer.steps > 0, '1 or more'),
    ('optimizer', 'warmup_steps', optimizer.warmup_steps >= 0, '0 or more'),
    ('optimizer', 'learning_rate', optimizer.learning_rate >= 0, '0 or more'),
    ('train', 'save_every', config.train.save_every > 0, '1 or more'),
  ):
    if not fits:
      raise errors.UserError(
        f'config.{room}.{key}={config[room][key]}: it must be {wanted}.'
      )


def _read_pairs(directory: str) -> list[records.Pair]:
  """Returns the pairs of a data set but those that are for tests."""
  return [p for p in folder.read_folder(directory) if p.split != 'test']


def _describe(
  config: ml_collections.ConfigDict, pairs: Sequence[records.Pair]
) -> dict[str, Any]:
  """Returns the description in every checkpoint."""
  side, settings = config.data.side, json.loads(config.to_json_best_effort())
  names = [pair.name for pair in pairs]
  digest = hashlib.sha256(json.dumps(names).encode()).hexdigest()
  return {
    'architecture': settings['model'],
    # Of a window's colours; its other channels are logits.
    'preprocessing': make_preprocessing(
      'efficientnet', size=(side, side)
    ).to_dict(),
    'config': settings,
    'data': {'photos': len(names), 'names': digest[:16]},
    'training_data': sorted(
      {pair.source or Path(config.data.dir).name for pair in pairs}
    ),
  }


def _load_windows(
  config: ml_collections.ConfigDict,
  pairs: Sequence[records.Pair],
  workdir: Path,
) -> tuple[windows.WindowSource, windows.WindowSource]:
  """Composes photos; returns the windows to train on and to validate on.

  Those are of held-out photos; without any, the same.
  """
  data = config.data
  backgrounds = sorted(
    path
    for path in Path(data.backgrounds).rglob('*')
    if images.is_image_file(path)
  )
  if not backgrounds:
    raise errors.UserError(
      f'config.data.backgrounds={data.backgrounds}: no photos there.'
    )
  settings = {
    'checkpoints': tuple(data.coarse),
    'seed': config.seed,
    'backgrounds': backgrounds,
  }
  composed = composing.compose_all(
    pairs,
    directory=workdir / 'composed',
    count=data.count,
    reduce=1,
    **settings,
  )
  names = sorted({one.name for one in composed})
  # By photo: compositions of one are never on both sides.
  out = set() if data.fold < 0 else set(names[data.fold :: data.folds])
  if data.limit:
    kept = [name for name in names if name not in out]
    # From all parts of the data set.
    chosen = np.linspace(0, len(kept) - 1, min(data.limit, len(kept)))
    names = [kept[round(index)] for index in chosen]
  training = [
    one for one in composed if one.name in names and one.name not in out
  ]
  held_out = [one for one in composed if one.name in out]
  if data.sharp_dir:
    sharp = _read_pairs(data.sharp_dir)
    order = np.random.default_rng(config.seed).permutation(len(sharp))
    training += composing.compose_all(
      [sharp[index] for index in sorted(order[: data.sharp_limit])],
      directory=workdir / 'sharp',
      count=2,
      reduce=2,
      **settings,
    )
  options = {'side': data.side, 'most_wrong': data.most_wrong}
  source = windows.WindowSource(training, **options)
  if not held_out:
    return source, source
  return source, windows.WindowSource(held_out, **options)


def _make_optimizer(
  config: ml_collections.ConfigDict,
) -> optax.GradientTransformation:
  schedule = optax.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=config.optimizer.learning_rate,
    warmup_steps=min(config.optimizer.warmup_steps, config.optimizer.steps - 1),
    decay_steps=config.optimizer.steps,
  )
  return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


def _create_trees(
  model: FlaxNetwork, optimizer: optax.GradientTransformation, seed: int
) -> dict[str, Any]:
  """Returns what a checkpoint holds: moving averages as the model, the rest."""
  variables = state.create_variables(model, seed=seed)
  params = jax.device_put(variables['params'])
  # Next to no change at first.
  head = params['head_conv']
  params = {**params, 'head_conv': {**head, 'kernel': head['kernel'] * 0.1}}
  return {
    'model': {'params': params},
    'training': {
      'step': jnp.zeros((), jnp.int32),
      'params': params,
      'opt_state': optimizer.init(params),
    },
  }


def _make_steps(model: FlaxNetwork, optimizer: optax.GradientTransformation):
  """Returns the jitted training step and the jitted loss."""

  def compute_loss(
    variables: Variables, batch: windows.Windows
  ) -> Float[Array, '']:
    colours, alpha, units = map(jnp.asarray, batch)
    # As in `learned.py`: first at half of the size, then from that answer.
    half = refiner_jax.halve(colours)
    units = refiner_jax.refine(model, variables, half, units)
    loss = _compare(units, refiner_jax.halve(alpha))
    units = upsample_bilinear(units[..., None], factor=2)[..., 0]
    units = refiner_jax.refine(model, variables, colours, units)
    return loss + _FINE_WEIGHT * _compare(units, alpha)

  @jax.jit
  def train_step(trees, batch):
    before = trees['training']
    loss, grads = jax.value_and_grad(
      lambda params: compute_loss({'params': params}, batch)
    )(before['params'])
    updates, opt_state = optimizer.update(
      grads, before['opt_state'], before['params']
    )
    params = optax.apply_updates(before['params'], updates)
    step = before['step'].astype(jnp.float32)
    # As in `training/step.py`.
    decay = jnp.minimum(_EMA_DECAY, (1 + step) / (10 + step))
    averages = jax.tree.map(
      lambda old, new: old + (1 - decay) * (new - old),
      trees['model'],
      {'params': params},
    )
    training = {
      'step': before['step'] + 1,
      'params': params,
      'opt_state': opt_state,
    }
    return {'model': averages, 'training': training}, loss

  return train_step, jax.jit(compute_loss)


def _compare(
  units: Float[Array, 'b h w'], alpha: Float[Array, 'b h w']
) -> Float[Array, '']:
  """Returns the mean difference of alpha and of its slopes, at two scales."""
  found = jax.nn.sigmoid(units * refiner.LIMIT)
  loss = jnp.abs(found - alpha).mean()
  halves = refiner_jax.halve(found), refiner_jax.halve(alpha)
  for first, second in ((found, alpha), halves):
    for axis in (1, 2):
      slopes = jnp.diff(first, axis=axis) - jnp.diff(second, axis=axis)
      loss += _SLOPE_WEIGHT * (slopes**2).mean()
  return loss
