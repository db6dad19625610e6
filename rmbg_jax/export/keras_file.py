"""Writes an `.h5` that the Keras project's code loads and runs.

Uses only h5py and JSON, in the layout of a full model of Keras 2, which Keras 3
reads as well. Layers have that project's names. As in its notebook, the user
feeds BGR / 255 and takes the last of four outputs; a fixed layer `preprocess`
turns that into the input of the training.
"""

import collections
import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from data_pipelines.io import errors, files
from rmbg_jax import export
from rmbg_jax.models import graph as graph_lib
from rmbg_jax.models import layers as layers_lib
from rmbg_jax.models import unet
from rmbg_jax.weights import keras_h5, keras_preprocess, load, release

# Version of the layout; Keras 2 and 3 check that there is one.
_KERAS_VERSION = '2.15.0'

_INPUT = 'input_1'


def save(path: Path, loaded: load.LoadedModel) -> None:
  """Writes a Keras model: BGR / 255 (b, h, w, 3) to probs (b, h, w, 4), any b.

  Raises:
    UserError: for a network that is not that project's, at any widths, for
      several, or for a preprocessing that no layer does.
  """
  if not isinstance(loaded.network, unet.UNet):
    raise errors.UserError(
      f'{path}: {type(loaded.network).__name__} has no counterpart in the '
      'Keras project. Export it to .onnx or .stablehlo.'
    )
  if loaded.partners:
    raise errors.UserError(
      f'{path}: this checkpoint is {1 + len(loaded.partners)} networks, and a '
      'Keras file holds one. Export to .onnx or .stablehlo, or pass one of '
      f'them, such as --checkpoint={release.RELEASED[0]}.'
    )
  loaded = _fold_temperature(loaded)
  model = _Model(loaded)
  config = {
    'class_name': 'Functional',
    'config': {
      'name': 'model',
      'trainable': True,
      'layers': list(model.layers.values()),
      'input_layers': [[_INPUT, 0, 0]],
      'output_layers': [[model.output, 0, 0]],
    },
  }
  description = export.describe(
    loaded,
    size=loaded.preprocessing.size,
    takes='float32 (b, {}, {}, 3), BGR in [0, 1]',
    gives='float32 (b, {}, {}, 4) in [0, 1]; the last is alpha',
  )
  with files.write_atomically(path) as partial, h5py.File(partial, 'w') as file:
    file.attrs['model_config'] = json.dumps(config)
    file.attrs[release.DESCRIPTION] = json.dumps(description)
    group = file.create_group('model_weights')
    # Keras writes them in both places.
    for place in (file, group):
      place.attrs['backend'] = 'tensorflow'
      place.attrs['keras_version'] = _KERAS_VERSION
    _write_weights(group, model)


def _fold_temperature(loaded: load.LoadedModel) -> load.LoadedModel:
  """Returns a network whose heads' weights have the temperature in them."""
  temperature = np.float32(loaded.temperature)
  if temperature == 1:
    return loaded
  # Heads have no activation: weights divided are logits divided.
  flat = {
    key: value / temperature if key.startswith('params/head') else value
    for key, value in layers_lib.flatten(loaded.variables).items()
  }
  return dataclasses.replace(
    loaded.with_temperature(1.0), variables=layers_lib.unflatten(flat)
  )


def _write_weights(group: h5py.Group, model: '_Model') -> None:
  names = _sort_as_keras(model.sources, model.output)
  group.attrs['layer_names'] = [name.encode() for name in names]
  for name in names:
    layer = group.create_group(name)
    weights = model.weights.get(name, {})
    layer.attrs['weight_names'] = [
      f'{name}/{part}:0'.encode() for part in weights
    ]
    for part, value in weights.items():
      layer[f'{name}/{part}:0'] = value
  group.create_group('top_level_model_weights').attrs['weight_names'] = []


def _sort_as_keras(sources: Mapping[str, list[str]], output: str) -> list[str]:
  """Returns the layers' names in the order of Keras' `model.layers`.

  Keras assigns weights by this order, not by name: the layers that are farthest
  from the output first, on ties the ones that are met first on a walk from it.
  """
  met: list[str] = []
  finished: dict[str, None] = {}  # A dict, as an ordered set.

  def walk(name):
    if name not in met:
      met.append(name)
      for source in sources[name]:
        walk(source)
      finished[name] = None

  walk(output)
  depths = {output: 0}
  # Backwards, a layer comes after all that read it: its depth is final.
  for name in reversed(finished):
    for source in sources[name]:
      depths[source] = max(depths.get(source, 0), depths[name] + 1)
  return sorted(met, key=lambda name: (-depths[name], met.index(name)))


class _Model:
  """The layers of the Keras model, and their weights."""

  def __init__(self, loaded: load.LoadedModel):
    graph = graph_lib.Graph(loaded.network, size=loaded.preprocessing.size)
    self.layers: dict[str, dict[str, Any]] = {}  # Configurations by name.
    self.sources: dict[str, list[str]] = {}  # The layers that each reads.
    # Arrays by the layer's name and the weight's.
    self.weights: dict[str, dict[str, np.ndarray]] = {}
    self._graph = graph
    self._variables = layers_lib.flatten(loaded.variables)
    self._momentum = loaded.network.bn_momentum
    self._counts: collections.Counter[str] = collections.Counter()
    # The name of the layer that has a node's result.
    self._names: dict[str, str] = {}
    self._add_input(loaded)
    for node in graph.nodes.values():
      if node.op != 'input':
        self._names[node.name] = self._add_node(node)
    probs = [
      self._add('Activation', [self._names[name]], activation='sigmoid')
      for name in graph.outputs
    ]
    self.output = self._add('Concatenate', probs, axis=-1)

  def _add(
    self, kind: str, sources: list[str], *, name: str = '', **config: Any
  ) -> str:
    """Adds a layer; without a name it gets the next of Keras' own."""
    if not name:
      # Such as batch_normalization, conv2d, re_lu.
      base = re.sub(r'(?<=[a-z])(?=[A-Z])', '_', kind).lower()
      number = self._counts[base]
      self._counts[base] += 1
      name = f'{base}_{number}' if number else base
    self.sources[name] = sources
    self.layers[name] = {
      'class_name': kind,
      'config': {'name': name, **config},
      'name': name,
      'inbound_nodes': [[[source, 0, 0, {}] for source in sources]]
      if sources
      else [],
    }
    return name

  def _add_input(self, loaded: load.LoadedModel) -> None:
    self._add(
      'InputLayer',
      [],
      name=_INPUT,
      batch_input_shape=[None, *loaded.preprocessing.size, 3],
      dtype='float32',
    )
    name = self._add(
      'Conv2D',
      [_INPUT],
      name=keras_preprocess.LAYER,
      trainable=False,
      filters=3,
      kernel_size=[1, 1],
    )
    layer = keras_preprocess.make_layer(loaded.preprocessing)
    self.weights[name] = dict(zip(keras_h5.CONV_PARTS, layer, strict=True))
    self._names[graph_lib.INPUT] = name

  def _add_node(self, node: graph_lib.Node) -> str:
    sources = [self._names[name] for name in node.inputs]
    name = keras_h5.find_encoder_layer(node.name)
    if node.op in ('conv', 'depthwise'):
      return self._add_conv(node, sources, name)
    if node.op in _SIMPLE:
      kind, config = _SIMPLE[node.op]
      return self._add(kind, sources, name=name, **config)
    if node.op == 'pool':
      # Keras pads with zeros, which never win: pooled values are not negative.
      pad = self._add_padding(sources, name, node.padding)
      return self._add(
        'MaxPooling2D',
        [pad],
        name=name,
        pool_size=[node.kernel] * 2,
        strides=[node.stride] * 2,
      )
    before = self._graph.nodes[node.inputs[0]].shape[:2]
    return self._add(
      'UpSampling2D',
      sources,
      size=[
        new // old for new, old in zip(node.shape[:2], before, strict=True)
      ],
      interpolation='bilinear',
    )

  def _add_conv(
    self, node: graph_lib.Node, sources: list[str], name: str
  ) -> str:
    kernel, *bias = self._find(layers_lib.CONV_KEYS, node.name)
    padding = 'same'
    if node.stride > 1 and not node.same:  # Keras' 'same' is uneven here.
      padding = 'valid'
      if node.kernel > 1:
        sources = [self._add_padding(sources, name, node.padding)]
    parts = keras_h5.CONV_PARTS
    if node.op == 'depthwise':
      kind, size = 'DepthwiseConv2D', {'depth_multiplier': 1}
      # Keras has (kh, kw, channels, 1), Flax (kh, kw, 1, channels).
      kernel, parts = kernel.swapaxes(2, 3), ('depthwise_kernel', parts[1])
    else:
      kind, size = 'Conv2D', {'filters': kernel.shape[-1]}
    name = self._add(
      kind,
      sources,
      name=name,
      **size,
      kernel_size=list(kernel.shape[:2]),
      strides=[node.stride] * 2,
      dilation_rate=[node.dilation] * 2,
      padding=padding,
      use_bias=bool(bias),
    )
    # Not strict: there may be no bias.
    self.weights[name] = dict(zip(parts, (kernel, *bias), strict=False))
    if not node.norm:
      return name
    norm = self._add(
      'BatchNormalization',
      [name],
      name=keras_h5.find_encoder_layer(node.norm),
      momentum=self._momentum,
      epsilon=node.epsilon,
    )
    values = self._find(layers_lib.NORM_KEYS, node.norm)
    self.weights[norm] = dict(zip(keras_h5.NORM_PARTS, values, strict=True))
    return norm

  def _add_padding(
    self, sources: list[str], name: str, padding: tuple[tuple[int, int], ...]
  ) -> str:
    # As Keras names it: conv1_pad is before conv1_conv.
    name = name.rpartition('_')[0] + '_pad'
    return self._add('ZeroPadding2D', sources, name=name, padding=padding)

  def _find(self, keys: tuple[str, ...], path: str) -> list[np.ndarray]:
    """Returns those variables that a layer has, in the keys' order."""
    wanted = [key.format(path) for key in keys]
    return [self._variables[key] for key in wanted if key in self._variables]


# Layers by operation, where nothing depends on the node.
_SIMPLE = {
  'add': ('Add', {}),
  'concat': ('Concatenate', {'axis': -1}),
  'relu': ('Activation', {'activation': 'relu'}),
  'relu6': ('ReLU', {'max_value': 6.0}),
}
