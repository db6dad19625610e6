"""The refiner: a small network that sharpens a coarse alpha along edges.

It sees windows of a photo together with a coarse alpha, and what a guided
filter (He and Sun, arXiv:1505.00996) makes of both; it corrects the coarse
logits. It is run from coarse to fine, each time at twice the size, so one
network serves photos of any size (`inference/learned.py`).

`refiner_jax.py` makes its input in JAX, `openvino_refiner.py` in OpenVINO.
"""

import dataclasses
import functools
import math
from typing import ClassVar

from rmbg_jax.models.layers import Convolution, Layers, T

LIMIT = 7.0  # Logits are given and computed in units of it, in [-1, 1].
MOST = 1 / (1 + math.exp(-LIMIT))  # The largest alpha that these express.
BLOCK = 2  # Side of the blocks of pixels that are channels of one place.
_convolution = functools.partial(Convolution, kernel=3, activation='relu')
# Side of the guided filter's window, in blocks, and the variance of colour, in
# [0, 1], below which it does not follow an edge.
GUIDE_SIDE, GUIDE_EPSILON = 5, 1e-4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refiner:
  """Describes a refiner.

  Pixels come in blocks of 2x2, since few channels at full resolution would take
  most of the time.

  Attributes:
    channels: Channels of the input: of each pixel of a block, row by row, red,
      green and blue, (value - 127) / 128 each, and in units of `LIMIT` the
      coarse logit and that of the guided filter's alpha.
    bn_momentum: Not used: there is no batch normalisation.
    filters: Channels at 1/2, 1/4, 1/8 and 1/16 of the window's size.
  """

  channels: ClassVar[int] = BLOCK**2 * 5
  bn_momentum: ClassVar[float] = 0.99
  filters: tuple[int, ...] = (24, 32, 32, 40)

  def compute(self, layers: Layers[T], images: T) -> tuple[T, ...]:
    """Computes what to add to the coarse logits, in units of `LIMIT`.

    Args:
      layers: What it is computed with.
      images: Windows (b, h, w, 20) of blocks; h and w are multiples of 8.

    Returns:
      One map (b, h, w, 4), the block's pixels row by row.
    """
    first, *others = self.filters
    x = layers.conv(images, 'conv1', _convolution(first))
    skips = [x]
    for number, filters in enumerate(others, start=2):
      down = _convolution(filters, stride=2)
      x = layers.conv(x, f'down{number}_conv', down)
      x = layers.conv(x, f'conv{number}', _convolution(filters))
      skips.append(x)
    x = skips.pop()
    for number in range(len(others), 0, -1):
      skip = skips.pop()
      filters = self.filters[number - 1]
      # Channels first, then size: the 1x1 convolution is cheaper when small.
      x = layers.conv(x, f'side{number}_conv', Convolution(filters))
      x = layers.resize(x, f'up{number}', like=skip)
      # Added, not concatenated: channels at the finest size cost the most.
      x = layers.relu(layers.add(x, skip, f'add{number}'), f'add{number}_relu')
      x = layers.conv(x, f'up{number}_conv', _convolution(filters))
    return (layers.conv(x, 'head_conv', Convolution(BLOCK**2, kernel=3)),)

  def find_stage(self, child: str) -> int:
    """Returns 1: no part of it can be frozen alone."""
    del child
    return 1
