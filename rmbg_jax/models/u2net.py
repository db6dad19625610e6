"""U2-Net: a U-Net whose every stage is a small U-Net, with a fused output.

Qin et al., "U2-Net: Going Deeper with Nested U-Structure for Salient Object
Detection", Pattern Recognition 2020, doi 10.1016/j.patcog.2020.107404. The
default widths are the paper's U2-Net; U2-Net-p has 16 inner and 64 outer
channels in every stage (`configs/u2netp.py`).
"""

import dataclasses
from typing import ClassVar

from rmbg_jax.models.layers import Convolution, Layers, T

EPSILON = 1e-5  # PyTorch's, which the authors' weights were trained with.

# Stages fine to coarse: the number of scales in each one's inner U-Net. The
# two coarsest dilate their convolutions instead of shrinking the features.
HEIGHTS = (7, 6, 5, 4, 0, 0)
FLAT_DILATIONS = (1, 2, 4, 8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class U2Net:
  """Describes a U2-Net, by default of the paper's full width.

  Attributes:
    encoder_mid: Inner channels of the encoder's stages, fine to coarse.
    encoder_filters: Outer channels of the same.
    decoder_mid: Inner channels of the decoder's stages, coarse to fine.
    decoder_filters: Outer channels of the same.
    freeze_norm: Whether the batch normalisations use and keep their running
      statistics in training too. Weights whose normalisations are folded into
      the convolutions need it.
    bn_momentum: Momentum of the running batch statistics.
  """

  channels: ClassVar[int] = 3
  encoder_mid: tuple[int, ...] = (32, 32, 64, 128, 256, 256)
  encoder_filters: tuple[int, ...] = (64, 128, 256, 512, 512, 512)
  decoder_mid: tuple[int, ...] = (256, 128, 64, 32, 16)
  decoder_filters: tuple[int, ...] = (512, 256, 128, 64, 64)
  freeze_norm: bool = False
  bn_momentum: float = 0.9

  def compute(self, layers: Layers[T], images: T) -> tuple[T, ...]:
    """Computes a logit map per decoder stage and the fused one.

    Args:
      layers: What it is computed with.
      images: Preprocessed images (b, h, w, 3) of any height and width.

    Returns:
      Logit maps (b, h, w, 1), coarse to fine (the paper's S6 to S1), then the
      fused one, which is the prediction.
    """
    *skips, x = layers.part(
      'encoder',
      _compute_encoder,
      images,
      mid=self.encoder_mid,
      filters=self.encoder_filters,
    )
    outputs = [x]
    # The coarsest stage has no decoder: it is where the decoder begins.
    for number, (height, mid, filters) in enumerate(
      zip(HEIGHTS[-2::-1], self.decoder_mid, self.decoder_filters, strict=True),
      start=1,
    ):
      skip = skips.pop()
      x = layers.resize(x, f'decoder{number}/resize', like=skip)
      x = layers.concat([x, skip], f'decoder{number}/concat')
      x = layers.part(
        f'decoder{number}',
        _compute_rsu,
        x,
        mid=mid,
        filters=filters,
        height=height,
      )
      outputs.append(x)
    sides = []
    # Fine to coarse, as the authors run and concatenate them.
    for number, x in enumerate(reversed(outputs), start=1):
      name = f'side{number}'
      x = layers.conv(x, name, Convolution(1, kernel=3))
      sides.append(layers.resize(x, f'{name}/out', like=images))
    fused = layers.concat(sides, 'fuse/concat')
    return (*sides[::-1], layers.conv(fused, 'fuse', Convolution(1)))

  def find_stage(self, child: str) -> int:
    """Returns the stage that a child of the encoder is, from 1."""
    return int(child.removeprefix('stage'))


def _compute_encoder(
  layers: Layers[T], x: T, *, mid: tuple[int, ...], filters: tuple[int, ...]
) -> list[T]:
  """Returns the features of the six stages on the way down."""
  features = []
  for stage, (height, inner, outer) in enumerate(
    zip(HEIGHTS, mid, filters, strict=True), start=1
  ):
    if stage > 1:
      x = layers.pool(x, f'stage{stage}/pool', kernel=2)
    x = layers.part(
      f'stage{stage}', _compute_rsu, x, mid=inner, filters=outer, height=height
    )
    features.append(x)
  return features


def _compute_rsu(
  layers: Layers[T], x: T, *, mid: int, filters: int, height: int
) -> T:
  """Computes a residual U-block: a U-Net around which its input is added.

  Args:
    layers: Layers of the block.
    x: Features.
    mid: Channels inside.
    filters: Channels of the result.
    height: Number of convolutions on the way down (RSU-7 to RSU-4), of which
      the last is dilated; 0 for RSU-4F, which keeps the resolution and dilates.
  """
  # The deepest convolution of one that shrinks dilates in place of it.
  dilations = (1,) * (height - 1) + (2,) if height else FLAT_DILATIONS
  entry = x = layers.part('conv_in', _compute_block, x, filters=filters)
  skips = []
  for index, dilation in enumerate(dilations):
    if 0 < index < height - 1:
      x = layers.pool(x, f'pool{index}', kernel=2)
    name = f'conv{index + 1}'
    x = layers.part(name, _compute_block, x, filters=mid, dilation=dilation)
    skips.append(x)
  # The deepest features are `x` already.
  skips.pop()
  for index in reversed(range(len(skips))):
    name = f'conv{index + 1}d'
    x = layers.resize(x, f'{name}/resize', like=skips[index])
    x = layers.concat([x, skips[index]], f'{name}/concat')
    # In the authors' weights, large and nearly constant channels on the way up
    # cancel against large biases (1361 in U2-Net-p's `decoder4/conv1d`), so
    # that rounding shows in the mask.
    x = layers.part(
      name,
      _compute_block,
      x,
      filters=mid if index else filters,
      dilation=dilations[index],
      accurate=True,
    )
  return layers.add(x, entry, 'out')


def _compute_block(
  layers: Layers[T],
  x: T,
  *,
  filters: int,
  dilation: int = 1,
  accurate: bool = False,
) -> T:
  """A 3x3 convolution, a batch normalisation and a ReLU."""
  convolution = Convolution(
    filters,
    kernel=3,
    dilation=dilation,
    epsilon=EPSILON,
    activation='relu',
    accurate=accurate,
  )
  return layers.conv(x, 'conv', convolution)
