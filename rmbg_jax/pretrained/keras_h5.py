"""Reading Keras HDF5 files, with h5py alone.

Three layouts hold the original network or its encoder:

* a full model saved by Keras 2 (weight names end in `:0`; `a + b` is a
  `TFOpLambda` node whose second input hides among the keyword arguments),
* a full model saved by Keras 3,
* weights only, as `save_weights` and the publisher of the ImageNet weights
  write them, without a graph.

The encoder's layers have fixed names. All others are numbered by Keras in the
order in which the process made them (`conv2d_17`), which depends on what else
it made before; so they are found by following the graph from the encoder's
output, or, where no graph is stored, by the rank of their number.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from rmbg_jax.pretrained import matching

_CONV_PARTS = ('kernel', 'bias')
_NORM_PARTS = ('gamma', 'beta', 'moving_mean', 'moving_variance')
# The last stage and the classifier, which the encoder does without.
_IGNORED_PREFIXES = ('conv5_', 'predictions')
_DEFAULT_SIZE = (512, 512)  # The original's, where the file does not say.
_BLOCKS = 4


def read_model(path: Path) -> matching.ForeignModel:
  """Reads a file that holds the whole original network, at any widths.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if the file is not HDF5, or not of such a network.
  """
  tensors, graph_config = _read_file(path)
  stage_sizes = _count_blocks(tensors)
  if not stage_sizes:
    raise ValueError(
      f'{path}: no ResNet50 encoder found (no layer conv1_conv and '
      'conv2_block1_1_conv). Only models of the original project load.'
    )
  convs = {
    name.removesuffix('/kernel'): tensor.shape
    for name, tensor in tensors.items()
    if name.endswith('/kernel')
  }
  encoder_out = f'conv{len(stage_sizes) + 1}_block{stage_sizes[-1]}_out'
  size, rates = _DEFAULT_SIZE, (3, 6, 9)
  try:
    if graph_config is None:
      layers = _find_by_rank(tensors, convs)
    else:
      graph = _Graph(graph_config)
      layers, rates = _find_by_graph(graph, encoder_out)
      size = graph.input_size() or _DEFAULT_SIZE
  except LookupError as error:
    raise ValueError(
      f'{path}: not the original network ({error.args[0]}). If this file holds '
      'only ImageNet weights, pass it as --config.model.encoder.weights.'
    ) from error
  names = _encoder_names(stage_sizes, prefix='encoder/')
  for ours, theirs in layers.items():
    is_norm = ours.rpartition('/')[2].startswith('bn')
    names |= _layer_names(ours, theirs, is_norm=is_norm)
  architecture = {
    'name': 'unet',
    'encoder': {
      'dialect': 'keras',
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
        for index in range(_BLOCKS)
      ]
    },
  }
  return matching.ForeignModel(architecture, size, tensors, names)


def load_encoder(
  encoder: Any, path: Path, *, stage_sizes: tuple[int, ...]
) -> Any:
  """Returns an encoder's variables with the file's weights.

  Args:
    encoder: `params` and `batch_stats` of a `ResNetEncoder` in the keras
      dialect, for their shapes.
    path: weights of `keras.applications.ResNet50`, with or without its top.
    stage_sizes: of the encoder.

  Raises:
    ValueError: if the file does not hold exactly these weights.
  """
  tensors, _ = _read_file(path)
  names = _encoder_names(stage_sizes, prefix='')
  return matching.assign(encoder, tensors, names, source=str(path))


def _read_file(
  path: Path,
) -> tuple[dict[str, np.ndarray], dict[str, Any] | None]:
  """Returns the weights by `layer/part`, and the graph if there is one."""
  if not path.exists():
    raise FileNotFoundError(f'{path}: no such file.')
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
      config = file.attrs.get('model_config')
      if '_layer_checkpoint_dependencies' in file or 'layers' in file:
        raise ValueError(
          f'{path}: this is the .weights.h5 layout of Keras 3, which does not '
          'say which layer is which. Save the whole model: model.save(NAME.h5).'
        )
      # A full model keeps its optimiser beside the weights.
      file.get('model_weights', file).visititems(visit)
  except OSError as error:
    raise ValueError(
      f'{path}: cannot be read as HDF5 ({error}). Download or save it again.'
    ) from error
  return tensors, json.loads(config)['config'] if config else None


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


def _encoder_names(
  stage_sizes: tuple[int, ...], *, prefix: str
) -> dict[str, str]:
  """Keras calls `conv2_block1/conv0` `conv2_block1_0_conv`."""
  names = {}
  for conv, norm in matching.encoder_layers(stage_sizes):
    if '/' in conv:
      block, part = conv.split('/')
      stem = f'{block}_{part.removeprefix("conv")}'
    else:
      stem = conv
    names |= _layer_names(prefix + conv, f'{stem}_conv', is_norm=False)
    names |= _layer_names(prefix + norm, f'{stem}_bn', is_norm=True)
  return names


def _layer_names(ours: str, theirs: str, *, is_norm: bool) -> dict[str, str]:
  keys = matching.NORM if is_norm else matching.CONV
  parts = _NORM_PARTS if is_norm else _CONV_PARTS
  return {
    key.format(ours): f'{theirs}/{part}'
    for key, part in zip(keys, parts, strict=True)
  }


class _Graph:
  """The layers of a functional model and what feeds what."""

  def __init__(self, config: Mapping[str, Any]):
    self.layers = {layer['name']: layer for layer in config['layers']}
    self.inputs = {
      name: list(_references(layer['inbound_nodes']))
      for name, layer in self.layers.items()
    }
    self.consumers: dict[str, list[str]] = {name: [] for name in self.layers}
    for name, inputs in self.inputs.items():
      for source in inputs:
        if source in self.consumers:
          self.consumers[source].append(name)

  def kind(self, name: str) -> str:
    return self.layers[name]['class_name']

  def option(self, name: str, key: str) -> Any:
    return self.layers[name]['config'][key]

  def input_size(self) -> tuple[int, int] | None:
    for name in self.layers:
      if self.kind(name) == 'InputLayer':
        config = self.layers[name]['config']
        shape = config.get('batch_input_shape') or config.get('batch_shape')
        return tuple(shape[1:3]) if all(shape[1:3]) else None
    return None

  def convs_after(self, name: str) -> list[str]:
    """The convolutions that read a layer, through layers without weights."""
    found = []
    for consumer in self.consumers[name]:
      if self.kind(consumer) == 'Conv2D':
        found.append(consumer)
      elif self.kind(consumer) in (
        'Activation',
        'ReLU',
        'Concatenate',
        'UpSampling2D',
      ):
        found += self.convs_after(consumer)
    return list(dict.fromkeys(found))

  def conv_after(self, name: str, *, kernel: int, head: bool = False) -> str:
    """The one convolution of that kernel size; a head has one filter."""
    return _only(
      [
        conv
        for conv in self.convs_after(name)
        if tuple(self.option(conv, 'kernel_size')) == (kernel, kernel)
        and (self.option(conv, 'filters') == 1) == head
      ],
      f'{kernel}x{kernel} convolution after {name}',
    )

  def norm_after(self, conv: str) -> str:
    return _only(
      [
        consumer
        for consumer in self.consumers[conv]
        if self.kind(consumer) == 'BatchNormalization'
      ],
      f'batch normalisation after {conv}',
    )


def _references(node: Any) -> Iterator[str]:
  """Yields the names of the layers that an `inbound_nodes` entry refers to.

  Keras 2 writes [name, node, tensor, {keyword: reference}], Keras 3
  {'keras_history': [name, node, tensor]}, both nested in whatever the call
  looked like.
  """
  if isinstance(node, Mapping):
    if 'keras_history' in node:
      yield node['keras_history'][0]
      return
    node = list(node.values())
  if isinstance(node, list):
    if len(node) >= 3 and isinstance(node[0], str) and node[1:3] == [0, 0]:
      yield node[0]
      node = node[3:]
    for inner in node:
      yield from _references(inner)


def _find_by_graph(
  graph: _Graph, encoder_out: str
) -> tuple[dict[str, str], tuple[int, ...]]:
  """Returns Keras' name of each layer after the encoder, and the rates."""
  if encoder_out not in graph.layers:
    raise LookupError(f'no layer {encoder_out}')
  branches = [
    conv
    for conv in graph.convs_after(encoder_out)
    if tuple(graph.option(conv, 'kernel_size')) == (3, 3)
  ]
  norms = [graph.norm_after(conv) for conv in branches]
  conv_out = _only(
    list(dict.fromkeys(c for norm in norms for c in graph.convs_after(norm))),
    'convolution after the dilated ones',
  )
  # The order in which they are concatenated is that of conv_out's channels.
  order = _concatenated(graph, conv_out)
  if sorted(order) != sorted(norms):
    raise LookupError(f'{conv_out} does not read the dilated convolutions')
  layers, rates = {}, []
  for norm in order:
    conv = branches[norms.index(norm)]
    rate = graph.option(conv, 'dilation_rate')[0]
    rates.append(rate)
    layers[f'bridge/conv_rate{rate}'] = conv
    layers[f'bridge/bn_rate{rate}'] = norm
  layers['bridge/conv_out'] = conv_out
  layers['bridge/bn_out'] = graph.norm_after(conv_out)

  previous = layers['bridge/bn_out']
  for index in range(_BLOCKS):
    conv1 = graph.conv_after(previous, kernel=3)
    _check_concatenation(graph, conv1)
    conv0 = graph.conv_after(previous, kernel=1)
    bn1 = graph.norm_after(conv1)
    conv2 = graph.conv_after(bn1, kernel=3)
    bn2 = graph.norm_after(conv2)
    block = f'decoder{index + 1}/residual'
    layers |= {
      f'{block}/conv0': conv0,
      f'{block}/bn0': graph.norm_after(conv0),
      f'{block}/conv1': conv1,
      f'{block}/bn1': bn1,
      f'{block}/conv2': conv2,
      f'{block}/bn2': bn2,
    }
    previous = _only(graph.consumers[bn2], f'addition after {bn2}')
    head = graph.conv_after(previous, kernel=1, head=True)
    layers[f'head{index + 1}/conv'] = head
  return layers, tuple(rates)


def _concatenated(graph: _Graph, conv: str) -> list[str]:
  """Returns the normalisations whose outputs a convolution concatenates."""
  concatenation = _only(graph.inputs[conv], f'input of {conv}')
  found = []
  for name in graph.inputs[concatenation]:
    while graph.kind(name) in ('Activation', 'ReLU'):
      name = _only(graph.inputs[name], f'input of {name}')
    found.append(name)
  return found


def _check_concatenation(graph: _Graph, conv: str) -> None:
  concatenation = _only(graph.inputs[conv], f'input of {conv}')
  first = graph.inputs[concatenation][0]
  if graph.kind(first) != 'UpSampling2D':
    raise LookupError(f'{concatenation} has the skip connection first')


def _find_by_rank(
  tensors: Mapping[str, np.ndarray], convs: Mapping[str, tuple[int, ...]]
) -> dict[str, str]:
  """Returns Keras' name of each layer after the encoder, without a graph.

  Relies on the original's order: three dilated convolutions, the 1x1 that
  mixes them, then three convolutions per block, of which the 1x1 is the
  shortcut; each is followed by a normalisation. Heads have one filter.
  """
  ranked = _by_number(convs, 'conv2d')
  heads = [name for name in ranked if convs[name][-1] == 1]
  others = [name for name in ranked if convs[name][-1] != 1]
  norms = _by_number(
    {n.removesuffix('/gamma') for n in tensors if n.endswith('/gamma')},
    'batch_normalization',
  )
  expected = 4 + 3 * _BLOCKS
  if len(others) != expected or len(norms) != expected or len(heads) != _BLOCKS:
    raise LookupError(
      f'{len(others)} convolutions, {len(norms)} normalisations and '
      f'{len(heads)} heads beside the encoder, not {expected}, {expected} and '
      f'{_BLOCKS}'
    )
  layers = {}
  for part, conv, norm in zip(
    ('rate3', 'rate6', 'rate9', 'out'), others, norms, strict=False
  ):
    layers[f'bridge/conv_{part}'] = conv
    layers[f'bridge/bn_{part}'] = norm
  for index in range(_BLOCKS):
    start = 4 + 3 * index
    block = f'decoder{index + 1}/residual'
    main = 0
    for conv, norm in zip(
      others[start : start + 3], norms[start : start + 3], strict=True
    ):
      if convs[conv][:2] == (1, 1):
        number = 0
      else:
        main += 1
        number = main
      layers[f'{block}/conv{number}'] = conv
      layers[f'{block}/bn{number}'] = norm
    layers[f'head{index + 1}/conv'] = heads[index]
  return layers


def _by_number(names, prefix: str) -> list[str]:
  """Returns `prefix`, `prefix_1`, ... in the order of their numbers."""
  numbered = []
  for name in names:
    if match := re.fullmatch(rf'{prefix}(?:_(\d+))?', name):
      numbered.append((int(match[1] or 0), name))
  return [name for _, name in sorted(numbered)]


def _only(found: list[str], what: str) -> str:
  if len(found) != 1:
    raise LookupError(f'{what}: found {", ".join(found) or "none"}, not one')
  return found[0]
