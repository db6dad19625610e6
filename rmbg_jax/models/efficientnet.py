"""The light encoder: EfficientNet-Lite 0, 1 or 2, without its classifier.

Tan and Le, "EfficientNet", ICML 2019, arXiv:1905.11946; the Lite variants
(TensorFlow's `efficientnet/lite`, 2020) have no squeeze-and-excitation, ReLU6
for swish, and a stem and a first and last stage that do not grow with the
network. All strides pad as TensorFlow's 'SAME', which is uneven.
"""

import functools
import math
from typing import NamedTuple

import flax.linen as nn
from jaxtyping import Array, Float

from rmbg_jax.models import depthwise, layers

EPSILON = 1e-3


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


class InvertedBottleneck(nn.Module):
  """Expands by a 1x1, convolves each channel alone, projects by a 1x1.

  Attributes:
    filters: Channels of the output.
    expansion: See `Stage`.
    kernel: See `Stage`.
    stride: Stride of the depthwise convolution, in pixels.
    conv: Makes a convolution.
    norm: Makes a batch normalisation.
  """

  filters: int
  expansion: int
  kernel: int
  stride: int
  conv: layers.LayerFactory
  norm: layers.LayerFactory

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h2 w2 f']:
    """Returns features at 1/stride of the resolution."""
    shortcut, channels = x, x.shape[-1]
    if self.expansion > 1:
      channels *= self.expansion
      x = self.conv(channels, (1, 1), name='conv0')(x)
      x = nn.relu6(self.norm(name='bn0')(x))
    x = self.conv(
      channels,
      (self.kernel, self.kernel),
      strides=self.stride,
      feature_group_count=channels,
      conv_general_dilated_cls=lambda: depthwise.convolve,
      name='conv1',
    )(x)
    x = nn.relu6(self.norm(name='bn1')(x))
    x = self.conv(self.filters, (1, 1), name='conv2')(x)
    x = self.norm(name='bn2')(x)
    return x + shortcut if x.shape == shortcut.shape else x


class EfficientNetEncoder(nn.Module):
  """EfficientNet-Lite as a feature extractor.

  Attributes:
    variant: A key of `VARIANTS`.
    momentum: Momentum of the running batch statistics.
    dtype: Type of the computation.
    remat: Whether a block's inner features are computed again for the gradient.
  """

  variant: str = 'efficientnet_lite0'
  momentum: float = 0.99
  dtype: layers.Dtype = 'float32'
  remat: bool = False

  @nn.compact
  def __call__(
    self,
    images: Float[Array, 'b h w 3'],
    *,
    train: bool,
    frozen_stages: int = 0,
  ) -> dict[str, Float[Array, 'b _ _ _']]:
    """Computes features by name.

    Args:
      images: Preprocessed.
      train: Whether batch statistics are computed or the running ones used.
      frozen_stages: Number of stages that use and keep the running statistics
        all the same, and pass no gradient. Each ends with a feature
        (`find_stage`).

    Returns:
      `stage1` (1/2), `stage2`, `stage3`, `stage5`, `stage7` (1/32).
    """
    conv = layers.make_conv(dtype=self.dtype, use_bias=False)

    def make_norm(child):
      return layers.make_norm(
        dtype=self.dtype,
        train=train and find_stage(child) > frozen_stages,
        momentum=self.momentum,
        epsilon=EPSILON,
      )

    block = functools.partial(
      nn.remat(InvertedBottleneck) if self.remat else InvertedBottleneck,
      conv=conv,
    )
    x = conv(_STEM_FILTERS, (3, 3), strides=2, name='conv1')(images)
    x = nn.relu6(make_norm('bn1')(name='bn1')(x))
    features = {}
    for number, stage in enumerate(make_stages(self.variant), start=1):
      for index in range(stage.blocks):
        x = block(
          filters=stage.filters,
          expansion=stage.expansion,
          kernel=stage.kernel,
          stride=1 if index else stage.stride,
          norm=make_norm(f'stage{number}'),
          name=f'stage{number}_block{index + 1}',
        )(x)
      if number in FEATURES:
        frozen = find_stage(f'stage{number}') <= frozen_stages
        x = layers.stop_gradient_if(frozen, x)
        features[f'stage{number}'] = x
    return features


def find_stage(child: str) -> int:
  """Returns the number, from 1, of the feature that a child contributes to.

  Args:
    child: Child of the encoder: `conv1` and `bn1`, the stem, or
      `stage4_block1`.
  """
  number = int(child[5]) if child.startswith('stage') else 1
  return 1 + sum(number > last for last in FEATURES)


def _round_filters(filters: float) -> int:
  """Returns the nearest multiple of 8 that is not a tenth smaller."""
  rounded = max(8, int(filters + 4) // 8 * 8)
  return rounded + 8 if rounded < 0.9 * filters else rounded
