"""One way to load a trained network, whatever it is stored as."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from rmbg_jax import models
from rmbg_jax.preprocessing import Preprocessing, make_preprocessing
from rmbg_jax.pretrained import keras_h5, matching, release


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedModel:
  """A network that is ready to be applied.

  Attributes:
    model: the network; `model.apply(variables, images)` gives logits.
    variables: `params` and `batch_stats`, float32 NumPy arrays.
    preprocessing: what the network expects of an image.
    description: what the file says of itself.
  """

  model: nn.Module
  variables: Any
  preprocessing: Preprocessing
  description: Mapping[str, Any]


def load_model(
  path: str | os.PathLike, *, dtype: str = 'float32'
) -> LoadedModel:
  """Loads a network with its weights and its preprocessing.

  Args:
    path: the working directory of a training (its best checkpoint is taken), a
      release `.safetensors`, or a Keras `model.h5` of the original project.
    dtype: of the computation, 'float32' or 'bfloat16'.

  Raises:
    FileNotFoundError: if there is nothing at the path.
    ValueError: if it is none of these, or damaged.
  """
  path = Path(path)
  if path.is_dir():
    return _load_workdir(path, dtype)
  if not path.exists():
    raise FileNotFoundError(
      f"{path}: no such checkpoint. Pass a training's working directory, a "
      '.safetensors release or a Keras .h5 file.'
    )
  if path.suffix == '.safetensors':
    return _load_release(path, dtype)
  if path.suffix in ('.h5', '.hdf5'):
    return _load_keras(path, dtype)
  raise ValueError(
    f"{path}: unknown kind of checkpoint. Pass a training's working directory, "
    'a .safetensors release or a Keras .h5 file.'
  )


def load_variables(path: str | os.PathLike, model: nn.Module) -> Any:
  """Returns another network's weights for this one, to start a training from.

  Args:
    path: as `load_model` takes it, or 'released' for the released weights.
    model: the network that is to be trained.

  Returns:
    `params` and `batch_stats`, float32 NumPy arrays.

  Raises:
    FileNotFoundError: if there is nothing at the path.
    ValueError: listing what does not fit, by name.
  """
  loaded = load_model(release.find_released() if path == 'released' else path)
  flat = traverse_util.flatten_dict(loaded.variables, sep='/')
  shapes = _shapes(model)
  names = {key: key for key in traverse_util.flatten_dict(shapes, sep='/')}
  return matching.assign(shapes, flat, names, source=str(path))


def _load_workdir(path: Path, dtype: str) -> LoadedModel:
  # Orbax takes a second to import, and only training checkpoints need it.
  from rmbg_jax import checkpoints

  if not checkpoints.has_checkpoints(path):
    raise FileNotFoundError(
      f'{path}: no checkpoints here. Pass the --workdir of a training.'
    )
  with checkpoints.CheckpointStore(path, writable=False) as store:
    # Stopped within its first epoch, a training has not evaluated any.
    step = store.latest_step if store.best_step is None else store.best_step
    description = store.read_description(step)
    model = models.create_model(description['architecture'], dtype=dtype)
    variables = store.restore_model(_shapes(model), step=step)
  return LoadedModel(
    model=model,
    variables=variables,
    preprocessing=Preprocessing.from_dict(description['preprocessing']),
    description={**description, 'step': step},
  )


def _load_release(path: Path, dtype: str) -> LoadedModel:
  tensors, description = release.read_release(path)
  model = models.create_model(description['architecture'], dtype=dtype)
  shapes = _shapes(model)
  names = {key: key for key in traverse_util.flatten_dict(shapes, sep='/')}
  return LoadedModel(
    model=model,
    variables=matching.assign(shapes, tensors, names, source=str(path)),
    preprocessing=Preprocessing.from_dict(description['preprocessing']),
    description=description,
  )


def _load_keras(path: Path, dtype: str) -> LoadedModel:
  keras_model = keras_h5.read_model(path)
  model = models.create_model(keras_model.architecture, dtype=dtype)
  return LoadedModel(
    model=model,
    variables=matching.assign(
      _shapes(model), keras_model.tensors, keras_model.names, source=str(path)
    ),
    # The original feeds BGR / 255 in training and prediction.
    preprocessing=make_preprocessing('original', size=keras_model.size),
    description={'architecture': keras_model.architecture},
  )


def _shapes(model: nn.Module) -> Any:
  """Returns the network's variables as shapes, computing nothing."""
  return jax.eval_shape(
    lambda: model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
  )
