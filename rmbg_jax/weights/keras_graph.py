"""Finds the layers of the Keras project's network in a file.

The encoder's layers have fixed names. All others are numbered by Keras in the
order in which the process made them (`conv2d_17`), which depends on what else
it made before; so they are found by following the graph from the encoder's
output, or, where no graph is stored, by the rank of their number.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from data_pipelines.io.types import JsonObject

BLOCKS = 4


class Graph:
  """The layers of a functional model and what feeds what."""

  def __init__(self, config: JsonObject):
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
    """Returns the class of a layer."""
    return self.layers[name]['class_name']

  def option(self, name: str, key: str) -> Any:
    """Returns a setting of a layer."""
    return self.layers[name]['config'][key]

  def input_size(self) -> tuple[int, int] | None:
    """Returns the input's (height, width) in pixels, if they are fixed."""
    for name in self.layers:
      if self.kind(name) == 'InputLayer':
        config = self.layers[name]['config']
        # Keras 2's name and Keras 3's.
        shape = config.get('batch_input_shape') or config.get('batch_shape')
        return tuple(shape[1:3]) if all(shape[1:3]) else None
    return None

  def convs_after(self, name: str) -> list[str]:
    """Returns convolutions that read a layer, even through weightless ones."""
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
    return list(dict.fromkeys(found))  # Two ways may lead to one.

  def conv_after(self, name: str, *, kernel: int, head: bool = False) -> str:
    """Returns the one convolution of a kernel size; a head has one filter."""
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
    """Returns the normalisation that reads a convolution."""
    return _only(
      [
        consumer
        for consumer in self.consumers[conv]
        if self.kind(consumer) == 'BatchNormalization'
      ],
      f'batch normalisation after {conv}',
    )


def find_by_graph(
  graph: Graph, encoder_out: str
) -> tuple[dict[str, str], tuple[int, ...]]:
  """Returns Keras' name of each layer after the encoder, and the rates.

  Raises:
    LookupError: if the graph is not that network's.
  """
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
  order = []
  for name in _concatenated(graph, conv_out):
    while graph.kind(name) in ('Activation', 'ReLU'):
      name = _only(graph.inputs[name], f'input of {name}')
    order.append(name)
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

  # A block reads what the one before ends with: an addition, and for the first
  # block the bridge's normalisation.
  previous = layers['bridge/bn_out']
  for index in range(BLOCKS):
    conv1 = graph.conv_after(previous, kernel=3)
    # The order in which the channels of this project's kernels are, too.
    if graph.kind(_concatenated(graph, conv1)[0]) != 'UpSampling2D':
      raise LookupError(f'{conv1} reads the skip connection first')
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


def find_by_rank(
  tensors: Mapping[str, np.ndarray], convs: Mapping[str, tuple[int, ...]]
) -> dict[str, str]:
  """Returns Keras' name of each layer after the encoder, without a graph.

  Relies on the Keras project's order: three dilated convolutions, the 1x1 that
  mixes them, then three convolutions per block, of which the 1x1 is the
  shortcut; each is followed by a normalisation. Heads have one filter.

  Raises:
    LookupError: if there are more or fewer layers than that.
  """
  ranked = _by_number(convs, 'conv2d')
  heads = [name for name in ranked if convs[name][-1] == 1]
  others = [name for name in ranked if convs[name][-1] != 1]
  norms = _by_number(
    {n.removesuffix('/gamma') for n in tensors if n.endswith('/gamma')},
    'batch_normalization',
  )
  expected = 4 + 3 * BLOCKS
  if len(others) != expected or len(norms) != expected or len(heads) != BLOCKS:
    raise LookupError(
      f'{len(others)} convolutions, {len(norms)} normalisations and '
      f'{len(heads)} heads beside the encoder, not {expected}, {expected} and '
      f'{BLOCKS}'
    )
  layers = {}
  # The Keras project's rates: without a graph, nothing states them.
  for part, conv, norm in zip(
    ('rate3', 'rate6', 'rate9', 'out'), others, norms, strict=False
  ):
    layers[f'bridge/conv_{part}'] = conv
    layers[f'bridge/bn_{part}'] = norm
  for index in range(BLOCKS):
    start = 4 + 3 * index
    block = f'decoder{index + 1}/residual'
    pairs = zip(others[start:], norms[start : start + 3], strict=False)
    # The 1x1 is the shortcut, number 0; the others are 1 and 2.
    pairs = sorted(pairs, key=lambda pair: convs[pair[0]][:2] != (1, 1))
    for number, (conv, norm) in enumerate(pairs):
      layers[f'{block}/conv{number}'] = conv
      layers[f'{block}/bn{number}'] = norm
    layers[f'head{index + 1}/conv'] = heads[index]
  return layers


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


def _concatenated(graph: Graph, conv: str) -> list[str]:
  """Returns what is concatenated for a convolution."""
  return graph.inputs[_only(graph.inputs[conv], f'input of {conv}')]


def _by_number(names, prefix: str) -> list[str]:
  """Returns `prefix`, `prefix_1`, ... in the order of their numbers."""
  found = [name for name in names if re.fullmatch(rf'{prefix}(_\d+)?', name)]
  return sorted(found, key=lambda name: int(name[len(prefix) + 1 :] or 0))


def _only(found: list[str], what: str) -> str:
  if len(found) != 1:
    raise LookupError(f'{what}: found {", ".join(found) or "none"}, not one')
  return found[0]
