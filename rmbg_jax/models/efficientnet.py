"""The light encoder: EfficientNet-Lite 0, 1 or 2, without its classifier.

Tan and Le, "EfficientNet", ICML 2019, arXiv:1905.11946; the Lite variants
(TensorFlow's `efficientnet/lite`, 2020) have no squeeze-and-excitation, ReLU6
for swish, and a stem and a first and last stage that do not grow with the
network. All strides pad as TensorFlow's 'SAME', which is uneven.
"""

import functools
import math
from typing import NamedTuple

from rmbg_jax.models.layers import Convolution, Layers, T

EPSILON = 1e-3
_convolution = functools.partial(
  Convolution,
  same=True,
  use_bias=False,
  epsilon=EPSILON,
  activation='relu6',
)


class Stage(NamedTuple):
  """Blocks of the same number of channels.

  Attributes:
    blocks: Number of blocks; the first has the stride.
    filters: Channels of the output.
    expansion: Times as many channels as the input's are convolved.
    kernel: Side of the depthwise kernel.
    stride: Stride of the first block, in pixels.
  """

  blocks: int
  filters: int
  expansion: int
  kernel: int
  stride: int


# Stages of EfficientNet-Lite 0.
_STAGES = (
  Stage(1, 16, 1, 3, 1),
  Stage(2, 24, 6, 3, 2),
  Stage(2, 40, 6, 5, 2),
  Stage(3, 80, 6, 3, 2),
  Stage(3, 112, 6, 5, 1),
  Stage(4, 192, 6, 5, 2),
  Stage(1, 320, 6, 3, 1),
)
_STEM_FILTERS = 32
# Width and depth of the variants, as multiples of those.
VARIANTS = {
  'efficientnet_lite0': (1.0, 1.0),
  'efficientnet_lite1': (1.0, 1.1),
  'efficientnet_lite2': (1.1, 1.2),
}
# The last stage at each resolution, 1/2 to 1/32.
FEATURES = (1, 2, 3, 5, 7)


def make_stages(variant: str) -> tuple[Stage, ...]:
  """Returns the stages of a key of `VARIANTS`."""
  width, depth = VARIANTS[variant]
  last = len(_STAGES) - 1
  return tuple(
    stage._replace(
      filters=_round_filters(width * stage.filters),
      blocks=stage.blocks
      if index in (0, last)
      else math.ceil(depth * stage.blocks),
    )
    for index, stage in enumerate(_STAGES)
  )


def compute_features(layers: Layers[T], images: T, *, variant: str) -> list[T]:
  """Computes EfficientNet-Lite's features.

  Args:
    layers: Layers of the encoder.
    images: Preprocessed images (b, h, w, 3).
    variant: A key of `VARIANTS`.

  Returns:
    Features at 1/2 (`stage1`), 1/4, 1/8, 1/16 and 1/32 (`stage7`) of the
    resolution.
  """
  stem = _convolution(_STEM_FILTERS, kernel=3, stride=2)
  x = layers.conv(images, 'conv1', stem)
  features = []
  for number, stage in enumerate(make_stages(variant), start=1):
    for index in range(stage.blocks):
      x = layers.part(
        f'stage{number}_block{index + 1}',
        _compute_inverted_bottleneck,
        x,
        stage=stage,
        first=index == 0,
      )
    if number in FEATURES:
      features.append(x)
  return features


def _compute_inverted_bottleneck(
  layers: Layers[T], x: T, *, stage: Stage, first: bool
) -> T:
  """Expands by a 1x1, convolves each channel alone, projects by a 1x1.

  Args:
    layers: Layers of the block.
    x: Features.
    stage: The block's stage.
    first: Whether it is the first block, which alone changes the size or the
      number of channels.
  """
  shortcut = x
  channels = layers.find_shape(x)[-1] * stage.expansion
  # The first stage expands nothing: it works on the stem's channels.
  if stage.expansion > 1:
    x = layers.conv(x, 'conv0', _convolution(channels))
  depthwise = _convolution(
    channels,
    kernel=stage.kernel,
    stride=stage.stride if first else 1,
    depthwise=True,
  )
  x = layers.conv(x, 'conv1', depthwise)
  # The projection is linear, as in MobileNetV2.
  x = layers.conv(x, 'conv2', _convolution(stage.filters, activation=''))
  return x if first else layers.add(shortcut, x, 'add')


def _round_filters(filters: float) -> int:
  """Returns the nearest multiple of 8 that is not a tenth smaller."""
  rounded = max(8, int(filters + 4) // 8 * 8)
  # TensorFlow's rule: rounding may not take more than a tenth away.
  return rounded + 8 if rounded < 0.9 * filters else rounded
