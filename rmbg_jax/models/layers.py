"""Declares what networks are made of, without a framework.

A network is a function of `Layers`: `flax_network.py` computes it in JAX, for
training too, and `graph.py` records it as a list of operations, for other
runtimes and file formats. So each network is described once.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import (
  Any,
  ClassVar,
  NamedTuple,
  Protocol,
  TypeVar,
  runtime_checkable,
)

# Features (b, h, w, c): an array of JAX, or a name in a graph.
T = TypeVar('T')
R = TypeVar('R')  # Result of a part of a network.

# `params` and `batch_stats`, nested by name. Any: arrays of NumPy or JAX, their
# shapes, or further such mappings.
Variables = Mapping[str, Any]
# The flat keys of a convolution's and a batch normalisation's variables, with
# the layer's path in place of {}.
CONV_KEYS = ('params/{}/kernel', 'params/{}/bias')
NORM_KEYS = (
  'params/{}/scale',
  'params/{}/bias',
  'batch_stats/{}/mean',
  'batch_stats/{}/var',
)


def flatten(variables: Variables, prefix: str = '') -> dict[str, Any]:
  """Returns the leaves by flat keys, such as `params/encoder/conv1/kernel`."""
  flat = {}
  for name, value in variables.items():
    if isinstance(value, Mapping):
      flat |= flatten(value, f'{prefix}{name}/')
    else:
      flat[prefix + name] = value
  return flat


def unflatten(
  flat: Mapping[str, Any],  # Any: leaves of all kinds.
) -> dict[str, Any]:
  """Returns the leaves nested by name again."""
  tree: dict[str, Any] = {}
  for key, value in flat.items():
    *path, name = key.split('/')
    inner = tree
    for part in path:
      inner = inner.setdefault(part, {})
    inner[name] = value
  return tree


class Convolution(NamedTuple):
  """A convolution, and the batch normalisation and activation behind it.

  Attributes:
    filters: Channels of the result.
    kernel: Side of the kernel in pixels, odd.
    stride: Stride in pixels.
    dilation: Dilation in pixels.
    same: Whether to pad as TensorFlow's 'SAME', which is uneven where there is
      a stride; otherwise by half of the (dilated) kernel.
    depthwise: Whether each channel is convolved alone.
    use_bias: Whether the convolution has a bias.
    epsilon: Epsilon of the batch normalisation; None for none, and for
      computing in float32.
    activation: 'relu' for max(x, 0), 'relu6' for the same, at most 6; '' for
      none.
    accurate: Whether sums should be short, to round less.
  """

  filters: int
  kernel: int = 1
  stride: int = 1
  dilation: int = 1
  same: bool = False
  depthwise: bool = False
  use_bias: bool = True
  epsilon: float | None = None
  activation: str = ''
  accurate: bool = False


@runtime_checkable
class Layers(Protocol[T]):
  """Operations on features (b, h, w, c), in a part of a network.

  Names are those of the variables, relative to the part, or for operations
  without variables those that an export may show.
  """

  def conv(self, x: T, name: str, wanted: Convolution) -> T:
    """Convolves, normalises and activates.

    Args:
      x: Features.
      name: Name of the convolution, with `conv` in it; the normalisation's has
        `bn` there, the activation's `relu`.
      wanted: What is computed.
    """
    ...

  def relu(self, x: T, name: str) -> T:
    """Returns max(x, 0)."""
    ...

  def add(self, x: T, y: T, name: str) -> T:
    """Returns x + y."""
    ...

  def concat(self, inputs: Sequence[T], name: str) -> T:
    """Concatenates channels."""
    ...

  def resize(self, x: T, name: str, *, like: T) -> T:
    """Enlarges to another one's size, bilinear with half-pixel centres."""
    ...

  def pool(self, x: T, name: str, *, kernel: int) -> T:
    """Halves the resolution, rounding up, by the maximum.

    An odd kernel is centred; one of 2 pixels has the pixel to the right and
    below, where there is one.
    """
    ...

  def find_shape(self, x: T) -> tuple[int, int, int]:
    """Returns (height, width, channels)."""
    ...

  def part(
    self, name: str, function: Callable[..., R], *inputs: T, **options: Hashable
  ) -> R:
    """Returns what a part of the network computes.

    A training may compute a part of the network or of its encoder twice, so
    that its inner features need not be kept for the gradient.

    Args:
      name: Name of the part; the variables inside are below it. `encoder` is
        the one whose stages can be frozen (`Network.find_stage`).
      function: Computes it, from `Layers`, the inputs and the options.
      *inputs: Features.
      **options: Options of the function.
    """
    ...


@runtime_checkable
class Network(Protocol):
  """Describes a network; hashable.

  Attributes:
    channels: Channels of its input.
  """

  channels: ClassVar[int]

  @property
  def bn_momentum(self) -> float:
    """Returns the momentum of the running batch statistics in training."""
    ...

  def compute(self, layers: Layers[T], images: T) -> tuple[T, ...]:
    """Computes logit maps (b, h, w, 1), coarse to fine.

    Args:
      layers: What they are computed with.
      images: Preprocessed images (b, h, w, c).

    Returns:
      All that is supervised; the last is the prediction.
    """
    ...

  def find_stage(self, child: str) -> int:
    """Returns the stage that a child of the encoder belongs to, from 1."""
    ...
