"""A network as a list of simple operations, for the writers of the formats.

The same walk as `models/`, once more, with what other formats need and a Flax
module does not say: which operation reads which. Tests hold the two together.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float

from data_pipelines.io.errors import UserError
from rmbg_jax.models import efficientnet, layers, resnet, u2net, unet

INPUT = 'image'


class Node(NamedTuple):
  """An operation and its result.

  Attributes:
    name: Name of both. A convolution has that of its variables in the network.
    op: 'input', 'conv', 'depthwise' (a convolution of each channel alone),
      'relu', 'relu6', 'pool' (maximum), 'add', 'concat' (of channels) or
      'resize' (bilinear, half-pixel centres).
    inputs: Names of the nodes that it reads.
    size: (height, width) of the result in pixels.
    stride: Stride of a convolution, in pixels; pools have 2.
    dilation: Dilation of a convolution, in pixels.
    kernel: Side of the pooling window, in pixels.
    padding: ((top, bottom), (left, right)) pixels of a pool or a convolution;
      () pads a convolution by half of its (dilated) kernel.
    norm: The batch normalisation behind a convolution; '' for none.
    epsilon: Epsilon of the batch normalisation.
    accurate: Whether the sums of a convolution should be short, to round less.
  """

  name: str
  op: str
  inputs: tuple[str, ...]
  size: tuple[int, int]
  stride: int = 1
  dilation: int = 1
  kernel: int = 1
  padding: tuple[tuple[int, int], ...] = ()
  norm: str = ''
  epsilon: float = 0.0
  accurate: bool = False


class Graph:
  """Nodes in an order in which they can run.

  Attributes:
    nodes: Nodes by name. The first is the preprocessed image.
    outputs: Names of the logits, as the network returns them.
  """

  def __init__(self, model: nn.Module, *, size: tuple[int, int]):
    """Walks through a network for input of (height, width) pixels.

    Raises:
      UserError: for a network whose walk is not known.
    """
    self.nodes = {INPUT: Node(INPUT, 'input', (), size)}
    if isinstance(model, unet.UNet):
      self.outputs = _walk_unet(self, model)
    elif isinstance(model, u2net.U2Net):
      self.outputs = _walk_u2net(self, model)
    else:
      raise UserError(f'{type(model).__name__} networks cannot be exported.')

  def find_needed(self, output: str) -> list[Node]:
    """Returns the nodes that an output depends on, in order."""
    needed = {output}
    for node in reversed(self.nodes.values()):
      if node.name in needed:
        needed.update(node.inputs)
    return [node for node in self.nodes.values() if node.name in needed]

  def conv(
    self,
    x: str,
    name: str,
    *,
    stride: int = 1,
    dilation: int = 1,
    norm: str = '',
    epsilon: float = 0.0,
    accurate: bool = False,
  ) -> str:
    """Adds a convolution; all as of `Node`."""
    node = Node(
      name,
      'conv',
      (x,),
      self._shrink(x, stride),
      stride,
      dilation,
      norm=norm,
      epsilon=epsilon,
      accurate=accurate,
    )
    return self._add(node)

  def conv_same(
    self,
    x: str,
    name: str,
    *,
    kernel: int,
    stride: int = 1,
    depthwise: bool = False,
    norm: str = '',
    epsilon: float = 0.0,
  ) -> str:
    """Adds a convolution padded as TensorFlow's 'SAME'.

    Args:
      x: The node that it reads.
      name: Name of the node.
      kernel: Its side in pixels.
      stride: Stride of the convolution, in pixels.
      depthwise: Whether each channel is convolved alone.
      norm: Name of the batch normalisation behind it, '' for none.
      epsilon: Epsilon of the batch normalisation.
    """
    size = self._shrink(x, stride)
    padding = []
    for old, new in zip(self.nodes[x].size, size, strict=True):
      total = max(0, (new - 1) * stride + kernel - old)
      padding.append((total // 2, total - total // 2))
    op = 'depthwise' if depthwise else 'conv'
    node = Node(
      name,
      op,
      (x,),
      size,
      stride,
      padding=tuple(padding),
      norm=norm,
      epsilon=epsilon,
    )
    return self._add(node)

  def relu(self, x: str, name: str, *, op: str = 'relu') -> str:
    """Adds a ReLU, or a 'relu6'."""
    return self._add(Node(name, op, (x,), self.nodes[x].size))

  def pool(
    self,
    x: str,
    name: str,
    *,
    kernel: int,
    padding: tuple[tuple[int, int], ...],
  ) -> str:
    """Adds a maximum pool; `kernel` and `padding` as of `Node`."""
    size = self._shrink(x, 2)
    node = Node(name, 'pool', (x,), size, 2, kernel=kernel, padding=padding)
    return self._add(node)

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

  def _shrink(self, x: str, stride: int) -> tuple[int, int]:
    height, width = self.nodes[x].size
    return -(-height // stride), -(-width // stride)

  def _add(self, node: Node) -> str:
    self.nodes[node.name] = node
    return node.name


def fold_conv(
  variables: layers.Variables, node: Node
) -> tuple[Float[np.ndarray, 'kh kw c f'], Float[np.ndarray, 'f']]:
  """Returns a convolution's kernel and bias, with its normalisation in them.

  Args:
    variables: `params` and `batch_stats` of the network.
    node: The convolution.
  """

  def find(key: str) -> Any:  # An array, None if there is none.
    found: Any = variables
    for part in key.split('/'):
      found = found.get(part, {})
    return None if isinstance(found, Mapping) else found

  kernel, bias = (find(key.format(node.name)) for key in layers.CONV_KEYS)
  if bias is None:
    bias = np.zeros(kernel.shape[-1], np.float32)
  if node.norm:
    scale, shift, mean, variance = (
      find(key.format(node.norm)).astype(np.float64) for key in layers.NORM_KEYS
    )
    gain = scale / np.sqrt(variance + node.epsilon)
    bias = (bias - mean) * gain + shift
    # In float64, large kernels would take a tenth of a second.
    kernel = kernel * gain.astype(np.float32)
  return kernel.astype(np.float32), bias.astype(np.float32)


def find_padding(
  node: Node, kernel: Float[Array | np.ndarray, 'kh kw c f']
) -> tuple[tuple[int, int], ...]:
  """Returns ((top, bottom), (left, right)) pixels around a convolution."""
  if node.padding:
    return node.padding
  down, right = (node.dilation * (side // 2) for side in kernel.shape[:2])
  return (down, down), (right, right)


def _walk_unet(graph: Graph, model: unet.UNet) -> tuple[str, ...]:
  walk = (
    _walk_resnet if model.encoder_name == 'resnet50' else _walk_efficientnet
  )
  *skips, coarsest = walk(graph, model)
  skips = [INPUT, *skips]

  def conv(x, name, **options):
    norm = name.replace('conv', 'bn')
    return graph.conv(
      x, name, norm=norm, epsilon=unet.DECODER_EPSILON, **options
    )

  branches = [
    graph.relu(
      conv(coarsest, f'bridge/conv_rate{rate}', dilation=rate),
      f'bridge/relu_rate{rate}',
    )
    for rate in model.bridge_rates
  ]
  x = graph.concat(branches, 'bridge/concat')
  x = graph.relu(conv(x, 'bridge/conv_out'), 'bridge/relu_out')
  decoded = []
  for index in range(len(model.decoder_filters)):
    block, skip = f'decoder{index + 1}', skips.pop()
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


def _walk_resnet(graph: Graph, model: unet.UNet) -> list[str]:
  """Returns the names of the features, fine to coarse."""
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
  return list(features.values())


def _walk_efficientnet(graph: Graph, model: unet.UNet) -> list[str]:
  """Returns the names of the features, fine to coarse."""

  def conv(x, name, *, activate=True, **options):
    norm = name.replace('conv', 'bn')
    x = graph.conv_same(
      x,
      f'encoder/{name}',
      norm=f'encoder/{norm}',
      epsilon=efficientnet.EPSILON,
      **options,
    )
    if not activate:
      return x
    return graph.relu(x, f'encoder/{name.replace("conv", "relu")}', op='relu6')

  x = conv(INPUT, 'conv1', kernel=3, stride=2)
  features = []
  stages = efficientnet.make_stages(model.encoder_name)
  for number, stage in enumerate(stages, start=1):
    for index in range(stage.blocks):
      block = f'stage{number}_block{index + 1}'
      y = conv(x, f'{block}/conv0', kernel=1) if stage.expansion > 1 else x
      y = conv(
        y,
        f'{block}/conv1',
        kernel=stage.kernel,
        stride=1 if index else stage.stride,
        depthwise=True,
      )
      y = conv(y, f'{block}/conv2', kernel=1, activate=False)
      # Only a stage's first block changes size or channels.
      x = graph.add(x, y, f'encoder/{block}/add') if index else y
    if number in efficientnet.FEATURES:
      features.append(x)
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

  def block(x, name, dilation=1, **options):
    path = f'{stage}/{name}'
    conv = graph.conv(
      x,
      f'{path}/conv',
      dilation=dilation,
      norm=f'{path}/bn',
      epsilon=u2net.EPSILON,
      **options,
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
    x = block(x, f'conv{index + 1}d', dilations[index], accurate=True)
  return graph.add(x, entry, f'{stage}/out')


def _pool(graph: Graph, x: str, name: str) -> str:
  """Rounds up, as `u2net.max_pool` does."""
  height, width = graph.nodes[x].size
  padding = ((0, height % 2), (0, width % 2))
  return graph.pool(x, name, kernel=2, padding=padding)
