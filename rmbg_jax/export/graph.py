"""A network as a list of simple operations, for the writers of the formats.

The same walk as `models/`, once more, with what other formats need and a Flax
module does not say: which operation reads which. Tests hold the two together.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
from flax import traverse_util
from jaxtyping import Float

from rmbg_jax.models import resnet, u2net, unet
from rmbg_jax.pretrained import matching

INPUT = 'image'


class Node(NamedTuple):
  """An operation and its result.

  Attributes:
    name: of both. A convolution has that of its variables in the network.
    op: 'input', 'conv', 'relu', 'pool' (maximum), 'add', 'concat' (of
      channels) or 'resize' (bilinear, half-pixel centres).
    inputs: names of the nodes that it reads.
    size: (height, width) of the result in pixels.
    stride: of a convolution; pools have 2.
    dilation: of a convolution; it is padded by half of its (dilated) kernel.
    kernel: of a pool, in pixels.
    padding: of a pool, ((top, bottom), (left, right)) pixels.
    norm: the batch normalisation behind a convolution; '' for none.
    epsilon: of that.
  """

  name: str
  op: str
  inputs: tuple[str, ...]
  size: tuple[int, int]
  stride: int = 1
  dilation: int = 1
  kernel: int = 1
  padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
  norm: str = ''
  epsilon: float = 0.0


class Graph:
  """Nodes in an order in which they can run.

  Attributes:
    nodes: by name. The first is the preprocessed image.
    outputs: names of the logits, as the network returns them.
  """

  def __init__(self, model: nn.Module, *, size: tuple[int, int]):
    """Walks through a network for input of (height, width) pixels.

    Raises:
      ValueError: for a network whose walk is not known.
    """
    walks = {unet.UNet: _walk_unet, u2net.U2Net: _walk_u2net}
    if type(model) not in walks:
      raise ValueError(f'{type(model).__name__} networks cannot be exported.')
    self.nodes = {INPUT: Node(INPUT, 'input', (), size)}
    self.outputs = walks[type(model)](self, model)

  def find_needed(self, output: str) -> list[Node]:
    """Returns the nodes that an output depends on, in order."""
    needed = {output}
    for node in reversed(self.nodes.values()):
      if node.name in needed:
        needed.update(node.inputs)
    return [node for node in self.nodes.values() if node.name in needed]

  def conv(
    self, x: str, name: str, *, stride: int = 1, dilation: int = 1, **norm: Any
  ) -> str:
    """Adds a convolution; `norm` and `epsilon` as of `Node`."""
    size = tuple(-(-side // stride) for side in self.nodes[x].size)
    return self._add(Node(name, 'conv', (x,), size, stride, dilation, **norm))

  def relu(self, x: str, name: str) -> str:
    """Adds a ReLU."""
    return self._add(Node(name, 'relu', (x,), self.nodes[x].size))

  def pool(self, x: str, name: str, **window: Any) -> str:
    """Adds a maximum pool; `kernel` and `padding` as of `Node`."""
    size = tuple(-(-side // 2) for side in self.nodes[x].size)
    return self._add(Node(name, 'pool', (x,), size, 2, **window))

  def add(self, x: str, y: str, name: str) -> str:
    """Adds an addition."""
    return self._add(Node(name, 'add', (x, y), self.nodes[x].size))

  def concat(self, inputs: list[str], name: str) -> str:
    """Adds a concatenation of channels."""
    size = self.nodes[inputs[0]].size
    return self._add(Node(name, 'concat', tuple(inputs), size))

  def resize(self, x: str, name: str, *, like: str) -> str:
    """Adds an enlargement to another node's size, if it is not of that size."""
    size = self.nodes[like].size
    if self.nodes[x].size == size:
      return x
    return self._add(Node(name, 'resize', (x,), size))

  def _add(self, node: Node) -> str:
    self.nodes[node.name] = node
    return node.name


def fold_conv(
  variables: Any, node: Node
) -> tuple[Float[np.ndarray, 'kh kw c f'], Float[np.ndarray, 'f']]:
  """Returns a convolution's kernel and bias, with its normalisation in them.

  Args:
    variables: `params` and `batch_stats` of the network.
    node: the convolution.
  """
  flat = traverse_util.flatten_dict(variables, sep='/')
  kernel, bias = (flat.get(key.format(node.name)) for key in matching.CONV)
  if bias is None:
    bias = np.zeros(kernel.shape[-1], np.float32)
  if node.norm:
    scale, shift, mean, variance = (
      flat[key.format(node.norm)].astype(np.float64) for key in matching.NORM
    )
    gain = scale / np.sqrt(variance + node.epsilon)
    kernel, bias = kernel * gain, (bias - mean) * gain + shift
  return kernel.astype(np.float32), bias.astype(np.float32)


def _walk_unet(graph: Graph, model: unet.UNet) -> tuple[str, ...]:
  features = _walk_encoder(graph, model)

  def conv(x, name, **options):
    norm = name.replace('conv', 'bn')
    return graph.conv(
      x, name, norm=norm, epsilon=unet.DECODER_EPSILON, **options
    )

  branches = [
    graph.relu(
      conv(features['conv4'], f'bridge/conv_rate{rate}', dilation=rate),
      f'bridge/relu_rate{rate}',
    )
    for rate in model.bridge_rates
  ]
  x = graph.concat(branches, 'bridge/concat')
  x = graph.relu(conv(x, 'bridge/conv_out'), 'bridge/relu_out')
  decoded = []
  skips = (features['conv3'], features['conv2'], features['conv1'], INPUT)
  for index, skip in enumerate(skips):
    block = f'decoder{index + 1}'
    x = graph.resize(x, f'{block}/resize', like=skip)
    x = graph.concat([x, skip], f'{block}/concat')
    y = graph.relu(conv(x, f'{block}/residual/conv1'), f'{block}/relu1')
    y = conv(y, f'{block}/residual/conv2')
    shortcut = conv(x, f'{block}/residual/conv0')
    x = graph.relu(graph.add(y, shortcut, f'{block}/add'), f'{block}/out')
    decoded.append(x)
  return tuple(
    graph.resize(
      graph.conv(x, f'head{index + 1}/conv'), f'head{index + 1}/out', like=INPUT
    )
    for index, x in enumerate(decoded)
  )


def _walk_encoder(graph: Graph, model: unet.UNet) -> dict[str, str]:
  """Returns the features' names, as `ResNetEncoder` calls them."""
  dialect = model.encoder_dialect

  def conv(x, name, **options):
    block, slash, part = f'encoder/{name}'.rpartition('/')
    norm = block + slash + part.replace('conv', 'bn')
    return graph.conv(
      x,
      f'encoder/{name}',
      norm=norm,
      epsilon=resnet.EPSILON[dialect],
      **options,
    )

  features = {}
  x = graph.relu(conv(INPUT, 'conv1', stride=2), 'encoder/relu1')
  features['conv1'] = x
  x = graph.pool(x, 'encoder/pool1', kernel=3, padding=((1, 1), (1, 1)))
  for name in resnet.block_names(model.encoder_stage_sizes):
    first = name.endswith('block1')
    stride = 2 if first and not name.startswith('conv2') else 1
    on_1x1, on_3x3 = (stride, 1) if dialect == 'keras' else (1, stride)
    shortcut = conv(x, f'{name}/conv0', stride=stride) if first else x
    y = conv(x, f'{name}/conv1', stride=on_1x1)
    y = graph.relu(y, f'encoder/{name}/relu1')
    y = conv(y, f'{name}/conv2', stride=on_3x3)
    y = graph.relu(y, f'encoder/{name}/relu2')
    y = graph.add(shortcut, conv(y, f'{name}/conv3'), f'encoder/{name}/add')
    x = graph.relu(y, f'encoder/{name}/out')
    features[name.partition('_')[0]] = x
  return features


def _walk_u2net(graph: Graph, model: u2net.U2Net) -> tuple[str, ...]:
  x, skips = INPUT, []
  for index, height in enumerate(u2net.HEIGHTS):
    stage = f'encoder/stage{index + 1}'
    x = _pool(graph, x, f'{stage}/pool') if index else x
    x = _walk_rsu(graph, x, stage, height=height)
    skips.append(x)
  outputs = [skips.pop()]
  for index, height in enumerate(u2net.HEIGHTS[-2::-1]):
    stage, skip = f'decoder{index + 1}', skips.pop()
    x = graph.resize(x, f'{stage}/resize', like=skip)
    x = graph.concat([x, skip], f'{stage}/concat')
    x = _walk_rsu(graph, x, stage, height=height)
    outputs.append(x)
  sides = []
  for index, x in enumerate(outputs):
    name = f'side{6 - index}'
    sides.append(graph.resize(graph.conv(x, name), f'{name}/out', like=INPUT))
  fused = graph.concat(sides[::-1], 'fuse/concat')
  return (*sides, graph.conv(fused, 'fuse'))


def _walk_rsu(graph: Graph, x: str, stage: str, *, height: int) -> str:
  dilations = u2net.rsu_dilations(height)

  def block(x, name, dilation=1):
    path = f'{stage}/{name}'
    conv = graph.conv(
      x,
      f'{path}/conv',
      dilation=dilation,
      norm=f'{path}/bn',
      epsilon=u2net.EPSILON,
    )
    return graph.relu(conv, f'{path}/relu')

  entry = x = block(x, 'conv_in')
  skips = []
  for index, dilation in enumerate(dilations):
    if 0 < index < height - 1:
      x = _pool(graph, x, f'{stage}/pool{index}')
    x = block(x, f'conv{index + 1}', dilation)
    skips.append(x)
  skips.pop()
  for index in reversed(range(len(skips))):
    name = f'{stage}/conv{index + 1}d'
    x = graph.resize(x, f'{name}/resize', like=skips[index])
    x = graph.concat([x, skips[index]], f'{name}/concat')
    x = block(x, f'conv{index + 1}d', dilations[index])
  return graph.add(x, entry, f'{stage}/out')


def _pool(graph: Graph, x: str, name: str) -> str:
  """Rounds up, as `u2net.max_pool` does."""
  height, width = graph.nodes[x].size
  padding = ((0, height % 2), (0, width % 2))
  return graph.pool(x, name, kernel=2, padding=padding)
