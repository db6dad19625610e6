"""Reads Keras HDF5 files, with h5py alone.

Three layouts hold the original network or its encoder:

* a full model saved by Keras 2 (weight names end in `:0`; `a + b` is a
  `TFOpLambda` node whose second input hides among the keyword arguments),
* a full model saved by Keras 3,
* weights only, as `save_weights` and the publisher of the ImageNet weights
  write them, without a graph.

`keras_graph.py` finds the layers. Files of `rmbg_jax/export/keras_file.py` have
a layer `preprocess` before the network (`keras_preprocess.py`) and describe
themselves.
"""

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from data_pipelines.io import errors, files
from rmbg_jax.weights import (
  keras_graph,
  keras_preprocess,
  loaded,
  release,
)

# Keras' names of the weights in `layers.CONV_KEYS` and `NORM_KEYS`.
CONV_PARTS = ('kernel', 'bias')
NORM_PARTS = ('gamma', 'beta', 'moving_mean', 'moving_variance')
make_namer = functools.partial(
  loaded.make_namer, separator='/', parts=(*CONV_PARTS, *NORM_PARTS)
)
# The last stage and the classifier, which the encoder does without.
_IGNORED_PREFIXES = ('conv5_', 'predictions')


def read_model(path: Path) -> loaded.LoadedModel:
  """Reads a file that holds the whole original network, at any widths.

  Raises:
    MissingFileError: if there is no such file.
    UserError: if the file is not HDF5, or not of such a network.
  """
  tensors, attributes = read_file(path)
  stage_sizes = _count_blocks(tensors)
  if not stage_sizes:
    raise errors.UserError(
      f'{path}: no ResNet50 encoder found (no layer conv1_conv and '
      'conv2_block1_1_conv). Only models of the Keras project load.'
    )
  preprocess = [
    tensors.pop(f'{keras_preprocess.LAYER}/{part}', None) for part in CONV_PARTS
  ]
  convs = {
    name.removesuffix('/kernel'): tensor.shape
    for name, tensor in tensors.items()
    if name.endswith('/kernel')
  }
  encoder_out = f'conv{len(stage_sizes) + 1}_block{stage_sizes[-1]}_out'
  # The original's, and Keras' momentum, where the file does not say.
  size, rates, momentum = (512, 512), (3, 6, 9), 0.99
  try:
    if 'model_config' not in attributes:
      layers = keras_graph.find_by_rank(tensors, convs)
    else:
      graph = keras_graph.Graph(attributes['model_config']['config'])
      layers, rates = keras_graph.find_by_graph(graph, encoder_out)
      size = graph.input_size() or size
      momentum = graph.option(layers['bridge/bn_out'], 'momentum')
  except LookupError as error:
    raise errors.UserError(
      f"{path}: not the Keras project's network ({error.args[0]}). If it holds "
      'only ImageNet weights, pass it as --config.model.encoder.weights.'
    ) from error
  # Without biases the encoder is torchvision's: only an exported file has that.
  dialect = 'keras' if 'conv1_conv/bias' in tensors else 'torchvision'
  description = attributes.get(release.DESCRIPTION, {})
  description.pop('interface', None)  # It describes the file, not the network.
  description['architecture'] = {
    'name': 'unet',
    'encoder': {
      'dialect': dialect,
      'stage_sizes': list(stage_sizes),
      'width': tensors['conv1_conv/kernel'].shape[-1],
    },
    'bridge': {
      'filters': convs[layers['bridge/conv_out']][-1],
      'rates': list(rates),
    },
    'decoder': {
      'filters': [
        convs[layers[f'decoder{index + 1}/residual/conv1']][-1]
        for index in range(keras_graph.BLOCKS)
      ]
    },
    'bn_momentum': momentum,
  }
  try:
    preprocessing = keras_preprocess.read_layer(
      *preprocess, size=size, stated=description.get('preprocessing')
    )
  except ValueError as error:
    raise errors.UserError(f'{path}: {error}') from error

  def find_layer(path: str) -> str:
    return find_encoder_layer(path) or layers[path]

  find_name = make_namer(find_layer)
  return loaded.assemble(path, description, preprocessing, tensors, find_name)


def find_encoder_layer(path: str) -> str:
  """Returns Keras' name of `encoder/bn1` or such, '' for other parts.

  The encoder's layers alone have fixed names.
  """
  part, _, path = path.partition('/')
  if part != 'encoder':
    return ''
  block, _, name = path.rpartition('/')
  kind = name.rstrip('0123456789')
  number = name.removeprefix(kind)
  # The stem: conv1_conv, conv1_bn, conv1_relu, pool1_pool.
  if not block:
    block, number = ('pool' if kind == 'pool' else 'conv') + number, ''
  return '_'.join(filter(None, (block, number, kind)))


def read_file(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """Returns the weights by `layer/part`, and the descriptions in the file.

  The last stage of ResNet50 and its classifier are left out.

  Raises:
    MissingFileError: if there is no such file.
    UserError: if the file is not HDF5, or damaged.
  """
  if not path.exists():
    raise errors.MissingFileError(f'{path}: no such file.')
  tensors = {}

  def visit(name, node):
    if not isinstance(node, h5py.Dataset):
      return
    # .../layer/part:0, below groups that depend on the layout.
    *_, layer, part = name.split('/')
    if not layer.startswith(_IGNORED_PREFIXES):
      tensors[f'{layer}/{part.removesuffix(":0")}'] = node[()]

  try:
    with h5py.File(path) as file:
      attributes = {
        key: files.parse_json(
          file.attrs[key], f'{path}: its {key}', remedy='Save the model again.'
        )
        for key in ('model_config', release.DESCRIPTION)
        if key in file.attrs
      }
      if '_layer_checkpoint_dependencies' in file or 'layers' in file:
        raise errors.UserError(
          f'{path}: this is the .weights.h5 layout of Keras 3, which does not '
          'say which layer is which. Save the whole model: model.save(NAME.h5).'
        )
      # A full model keeps its optimiser beside the weights.
      file.get('model_weights', file).visititems(visit)
  except (OSError, RuntimeError) as error:  # RuntimeError: damaged inside.
    raise errors.UserError(
      f'{path}: cannot be read as HDF5 ({error}). Download or save it again.'
    ) from error
  return tensors, attributes


def _count_blocks(tensors: Mapping[str, np.ndarray]) -> tuple[int, ...]:
  """Returns the stage sizes of the encoder, () if it is not there."""
  blocks: dict[int, int] = {}
  for name in tensors:
    if match := re.fullmatch(r'conv([2-4])_block(\d+)_1_conv/kernel', name):
      stage, block = int(match[1]), int(match[2])
      blocks[stage] = max(blocks.get(stage, 0), block)
  if 'conv1_conv/kernel' not in tensors or sorted(blocks) != [2, 3, 4]:
    return ()
  return tuple(blocks[stage] for stage in sorted(blocks))
