"""Loads a trained network from any kind of file or folder.

Only a training's working directory needs JAX for it: Orbax imports it.
"""

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines.io import errors, files
from rmbg_jax import models
from rmbg_jax.models import graph, layers, preprocessing
from rmbg_jax.weights import (
  foreign_onnx,
  hub,
  onnx_published,
  release,
  u2net_onnx,
)
from rmbg_jax.weights.loaded import (
  LoadedModel,
  assign,
  find_shapes,
)

if TYPE_CHECKING:
  from rmbg_jax.models import flax_network

# Names the default weights that come with the project.
RELEASED = 'released'
_RELEASED_NAMES = (RELEASED, *release.RELEASED)

# Names of files that are downloaded.
DOWNLOADED = tuple(onnx_published.PUBLISHED)

_KINDS = (
  "a training's working directory (WORKDIR, WORKDIR@latest or WORKDIR@STEP), a "
  '.safetensors release, a Keras .h5 or an .onnx file, '
  'hf://OWNER/NAME[@REVISION][/FILE], or one of '
  f'{", ".join((*_RELEASED_NAMES, *DOWNLOADED))}'
)


def load_model(path: str | os.PathLike) -> LoadedModel:
  """Loads a network with its weights and its preprocessing.

  Args:
    path: The working directory of a training, whose best checkpoint is
      taken (`@latest` or `@STEP` behind it takes another); a release
      `.safetensors`; a Keras `model.h5` of the Keras project; an `.onnx`
      file of U2-Net, or of any network that makes a mask
      (docs/other_networks.md); one of these three on the Hugging Face hub,
      `hf://OWNER/NAME[@REVISION][/FILE]`; or a name: 'lite' and 'small', which
      come with the project, 'released', which is both together, or one of
      `DOWNLOADED`. (`./lite` is a path.)

  Raises:
    MissingFileError: if there is nothing at the path.
    UserError: if it is none of these, or damaged.
  """
  name = os.fspath(path)
  if name == RELEASED:
    first, *others = map(load_model, release.RELEASED)
    first = first.with_prediction(release.PREDICTIONS[name])
    description = {**first.description, 'scores': release.SCORES}
    return dataclasses.replace(
      first, description=description, partners=tuple(others)
    )
  if name in release.RELEASED:
    path = release.find_released(name)
  elif name in onnx_published.PUBLISHED:
    path = onnx_published.find_published(name)
  elif name.startswith(hub.PREFIX):
    path = hub.fetch(name)
  check_exists(path)
  path, which = _split_step(Path(path))
  suffix = path.suffix.lower()
  if path.is_dir():
    loaded = _load_workdir(path, which)
  elif suffix == '.safetensors':
    loaded = release.read_release(path)
    if name in release.PREDICTIONS:
      loaded = loaded.with_prediction(release.PREDICTIONS[name])
  elif suffix in ('.h5', '.hdf5'):
    from rmbg_jax.weights import keras_h5  # H5py is for these alone.

    loaded = keras_h5.read_model(path)
  elif suffix == '.onnx':
    loaded = _load_onnx(path)
  elif suffix == '.keras':
    raise errors.UserError(
      f"{path}: Keras' .h5 is read, not this. In Keras: model.save('model.h5')."
    )
  else:
    raise errors.UserError(
      f'{path}: unknown kind of checkpoint. Pass {_KINDS}.'
    )
  return loaded


def check_exists(path: str | os.PathLike) -> None:
  """Checks that there is something at the path, without loading it.

  Names of checkpoints and files on the hub are not looked for.

  Raises:
    MissingFileError: if there is nothing.
    UserError: if it is no address on the hub but begins like one.
  """
  if os.fspath(path).startswith(hub.PREFIX):
    hub.parse_address(os.fspath(path))
    return
  if os.fspath(path) in (*_RELEASED_NAMES, *DOWNLOADED):
    return
  found, _ = _split_step(Path(path))
  if not found.exists():
    # As it was passed: a Path would make the name `lite` of `./lite`.
    name = os.fspath(path)
    raise errors.MissingFileError(f'{name}: no such checkpoint. Pass {_KINDS}.')


def check_own(loaded: LoadedModel) -> None:
  """Raises a `UserError` for an `OnnxNetwork`, whose weights stay its own."""
  if isinstance(loaded.network, foreign_onnx.OnnxNetwork):
    loaded.network.refuse()


def load_fitting(
  path: str | os.PathLike, model: 'flax_network.FlaxNetwork'
) -> LoadedModel:
  """Returns the network at the path whose weights fit another one.

  Of several networks, it is the first that fits; if none does, the first.

  Raises:
    MissingFileError: if there is nothing at the path.
    UserError: if it cannot be loaded, or its weights cannot be another's.
  """
  loaded = load_model(path)
  check_own(loaded)
  shapes = graph.list_shapes(model.network)
  networks = (loaded, *loaded.partners)
  fitting = (n for n in networks if find_shapes(n.variables) == shapes)
  return next(fitting, loaded)


def load_variables(
  path: str | os.PathLike, model: 'flax_network.FlaxNetwork'
) -> layers.Variables:
  """Returns another network's weights for this one, to start a training from.

  They are `params` and `batch_stats`, float32 NumPy arrays.

  Raises:
    MissingFileError: if there is nothing at the path.
    UserError: listing what does not fit, by name.
  """
  loaded, shapes = load_fitting(path, model), graph.list_shapes(model.network)
  folded = getattr(loaded.network, 'freeze_norm', False)
  if folded and not getattr(model.network, 'freeze_norm', True):
    raise errors.UserError(
      f'{path}: the batch normalisations are folded into the convolutions, and '
      'new batch statistics would undo what the weights have learnt. Set '
      'config.model.freeze_norm=True.'
    )
  flat = layers.flatten(loaded.variables)
  return assign(shapes, flat, source=str(path))


def _split_step(path: Path) -> tuple[Path, str]:
  """Splits `WORKDIR@STEP`; a folder whose own name has an @ stays whole."""
  name, separator, which = path.name.rpartition('@')
  if not separator or path.exists():
    return path, 'best'
  return path.with_name(name), which


def _load_workdir(path: Path, which: str) -> LoadedModel:
  # Orbax takes a second to import, and only training checkpoints need it.
  from rmbg_jax.weights import checkpoints

  if not checkpoints.has_checkpoints(path):
    raise errors.MissingFileError(
      f"{path}: no checkpoints here. Pass a training's working directory."
    )
  with checkpoints.CheckpointStore(path, writable=False) as store:
    kept = {str(step): step for step in store.steps}
    kept['latest'] = store.latest_step
    # A training that was stopped before its first evaluation has no best one.
    kept['best'] = store.best_step or store.latest_step
    if which not in kept:
      raise errors.MissingFileError(
        f'{path}@{which}: no such checkpoint. There are {", ".join(kept)}.'
      )
    step = kept[which]
    description = store.read_description(step)
    network = models.create_network(description['architecture'])
    variables = store.restore_model(graph.list_shapes(network), step=step)
  return LoadedModel(
    network=network,
    variables=variables,
    preprocessing=preprocessing.Preprocessing.from_dict(
      description['preprocessing']
    ),
    description={**description, 'step': step},
  )


def _load_onnx(path: Path) -> LoadedModel:
  # First, since the next line reads the whole file.
  if path.stat().st_size >= 2**31:  # Protobuf's own limit.
    raise errors.UserError(
      f'{path}: larger than 2 GB, which an ONNX file cannot be. Save it again, '
      'with float16 weights.'
    )
  sha256 = files.hash_file(path)
  settings = foreign_onnx.find_settings(path, sha256)
  if settings is None:
    try:
      return u2net_onnx.read_model(path)
    except u2net_onnx.OtherNetworkError as error:
      raise foreign_onnx.explain_missing(path, str(error)) from error
  network = foreign_onnx.OnnxNetwork(
    path=path, output=settings.get('output', 0), sigmoid=settings['sigmoid']
  )
  return LoadedModel(
    network=network,
    variables={},
    preprocessing=preprocessing.Preprocessing.from_dict(
      {key: settings[key] for key in preprocessing.CHECKS}
    ),
    description=foreign_onnx.describe(network, settings, sha256),
  )
