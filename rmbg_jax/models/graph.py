"""Records a network as a list of operations, for other runtimes and formats.

It needs no JAX.
"""

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from rmbg_jax.models import layers

INPUT = 'image'
CONVOLUTIONS = ('conv', 'depthwise')
_Padding = tuple[tuple[int, int], tuple[int, int]]


class Node(NamedTuple):
  """An operation and its result.

  Attributes:
    name: Name of both. A convolution has that of its variables in the network.
    op: 'input', 'conv', 'depthwise' (a convolution of each channel alone),
      'relu', 'relu6', 'pool' (maximum), 'add', 'concat' (of channels) or
      'resize' (bilinear, half-pixel centres).
    inputs: Names of the nodes that it reads.
    shape: (height, width, channels) of the result.
    kernel: Side of a kernel or of the pooling window, in pixels.
    stride: Stride of a convolution or pool, in pixels.
    dilation: Dilation of a convolution, in pixels.
    padding: ((top, bottom), (left, right)) pixels of a convolution or pool.
    same: Whether the padding is that of TensorFlow's 'SAME'.
    use_bias: Whether a convolution has a bias of its own.
    norm: The batch normalisation behind a convolution; '' for none.
    epsilon: Epsilon of the batch normalisation.
  """

  name: str
  op: str
  inputs: tuple[str, ...]
  shape: tuple[int, int, int]
  kernel: int = 1
  stride: int = 1
  dilation: int = 1
  padding: _Padding = ((0, 0), (0, 0))
  same: bool = False
  use_bias: bool = False
  norm: str = ''
  epsilon: float = 0.0


class Graph:
  """Nodes in an order in which they can run.

  Attributes:
    nodes: Nodes by name. The first is the preprocessed image.
    outputs: Names of the logits, as the network returns them.
  """

  def __init__(self, network: layers.Network, *, size: tuple[int, int]):
    """Records a network for input of (height, width) pixels.

    Raises:
      UserError: if the network does not take such images, or cannot be built.
    """
    self.nodes = {INPUT: Node(INPUT, 'input', (), (*size, network.channels))}
    self.outputs = network.compute(_Recorder(self.nodes), INPUT)

  def find_needed(self, output: str) -> list[Node]:
    """Returns the nodes that an output depends on, in order."""
    needed = {output}
    # Backwards, a node's readers have been seen when its turn comes.
    for node in reversed(self.nodes.values()):
      if node.name in needed:
        needed.update(node.inputs)
    return [node for node in self.nodes.values() if node.name in needed]

  def list_shapes(self) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the network's variables by their flat keys."""
    shapes: dict[str, tuple[int, ...]] = {}
    for node in self.nodes.values():
      if node.op not in CONVOLUTIONS:
        continue
      filters = node.shape[-1]
      # A depthwise kernel has one input channel for each filter.
      inner = 1
      if node.op == 'conv':
        inner = self.nodes[node.inputs[0]].shape[-1]
      kernel, bias = (key.format(node.name) for key in layers.CONV_KEYS)
      shapes[kernel] = (node.kernel, node.kernel, inner, filters)
      if node.use_bias:
        shapes[bias] = (filters,)
      if node.norm:
        shapes |= {
          key.format(node.norm): (filters,) for key in layers.NORM_KEYS
        }
    return shapes


def list_shapes(network: layers.Network) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of a network's variables by their flat keys."""
  # They do not depend on the size.
  return Graph(network, size=(32, 32)).list_shapes()


@dataclasses.dataclass(frozen=True)
class _Recorder:
  """`Layers` that note what they are asked for.

  Attributes:
    nodes: The graph's nodes, to which is added.
    prefix: Path of the part of the network, with a slash at its end.
  """

  nodes: dict[str, Node]
  prefix: str = ''

  def conv(self, x: str, name: str, wanted: layers.Convolution) -> str:
    size = self._shrink(x, wanted.stride)
    reach = wanted.dilation * (wanted.kernel // 2)
    padding = ((reach, reach), (reach, reach))
    if wanted.same:
      padding = tuple(
        _pad_same(old, new, wanted.stride, wanted.kernel)
        for old, new in zip(self.nodes[x].shape, size, strict=False)
      )
    norm = ''
    if wanted.epsilon is not None:
      norm = self.prefix + name.replace('conv', 'bn')
    x = self._add(
      name,
      'depthwise' if wanted.depthwise else 'conv',
      (x,),
      (*size, wanted.filters),
      kernel=wanted.kernel,
      stride=wanted.stride,
      dilation=wanted.dilation,
      padding=padding,
      same=wanted.same,
      use_bias=wanted.use_bias,
      norm=norm,
      epsilon=wanted.epsilon or 0.0,
    )
    if not wanted.activation:
      return x
    name = name.replace('conv', 'relu')
    return self._add(name, wanted.activation, (x,), self.nodes[x].shape)

  def relu(self, x: str, name: str) -> str:
    return self._add(name, 'relu', (x,), self.nodes[x].shape)

  def add(self, x: str, y: str, name: str) -> str:
    return self._add(name, 'add', (x, y), self.nodes[x].shape)

  def concat(self, inputs: Sequence[str], name: str) -> str:
    height, width, _ = self.nodes[inputs[0]].shape
    channels = sum(self.nodes[x].shape[-1] for x in inputs)
    return self._add(name, 'concat', tuple(inputs), (height, width, channels))

  def resize(self, x: str, name: str, *, like: str) -> str:
    height, width, _ = self.nodes[like].shape
    *old, channels = self.nodes[x].shape
    # An enlargement by 1 is no operation, so exported files have none.
    if old == [height, width]:
      return x
    return self._add(name, 'resize', (x,), (height, width, channels))

  def pool(self, x: str, name: str, *, kernel: int) -> str:
    *old, channels = self.nodes[x].shape
    if kernel % 2:
      padding = ((kernel // 2,) * 2,) * 2
    else:
      # As PyTorch's `ceil_mode`: odd sides get a pixel to the right and below.
      padding = tuple((0, side % 2) for side in old)
    size = self._shrink(x, 2)
    return self._add(
      name,
      'pool',
      (x,),
      (*size, channels),
      kernel=kernel,
      stride=2,
      padding=padding,
    )

  def find_shape(self, x: str) -> tuple[int, int, int]:
    return self.nodes[x].shape

  def part(
    self,
    name: str,
    function: Callable[..., layers.R],
    *inputs: str,
    **options: Hashable,
  ) -> layers.R:
    inner = dataclasses.replace(self, prefix=f'{self.prefix}{name}/')
    return function(inner, *inputs, **options)

  def _shrink(self, x: str, stride: int) -> tuple[int, int]:
    height, width, _ = self.nodes[x].shape
    # Rounded up, as 'SAME' and even padding do.
    return -(-height // stride), -(-width // stride)

  def _add(
    self,
    name: str,
    op: str,
    inputs: tuple[str, ...],
    shape: tuple[int, int, int],
    **options: Any,  # Fields of `Node`.
  ) -> str:
    node = Node(self.prefix + name, op, inputs, shape, **options)
    self.nodes[node.name] = node
    return node.name


def _pad_same(old: int, new: int, stride: int, kernel: int) -> tuple[int, int]:
  # TensorFlow's rule; the odd pixel goes to the right and below.
  total = max(0, (new - 1) * stride + kernel - old)
  return total // 2, total - total // 2


def fold_conv(
  variables: Mapping[str, np.ndarray], node: Node
) -> tuple[Float[np.ndarray, 'f c kh kw'], Float[np.ndarray, 'f']]:
  """Returns a convolution's kernel and bias, with its normalisation in them.

  Args:
    variables: The network's variables by their flat keys.
    node: The convolution.
  """
  keys = [key.format(node.name) for key in layers.CONV_KEYS]
  kernel, bias = variables[keys[0]], variables.get(keys[1])
  height, width, *channels = kernel.shape
  if bias is None:
    bias = np.zeros(channels[1], np.float32)
  gain = np.ones(channels[1])
  if node.norm:
    scale, shift, mean, variance = (
      # float64: a tiny variance makes gains that float32 rounds visibly.
      variables[key.format(node.norm)].astype(np.float64)
      for key in layers.NORM_KEYS
    )
    gain = scale / np.sqrt(variance + node.epsilon)
    bias = (bias - mean) * gain + shift
  # In float64, large kernels would take a tenth of a second; turned around as
  # a whole, twice the time.
  gain = gain.astype(np.float32)[:, None]
  # (f, c, kh, kw), the order of ONNX and OpenVINO; Flax has (kh, kw, c, f).
  folded = np.empty((*channels[::-1], height, width), np.float32)
  for row, column in np.ndindex(height, width):
    plane = folded[:, :, row, column]
    np.multiply(np.asarray(kernel[row, column]).T, gain, out=plane)
  return folded, bias.astype(np.float32)
