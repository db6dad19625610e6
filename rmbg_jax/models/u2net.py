"""U2-Net: a U-Net whose every stage is a small U-Net, with a fused output.

Qin et al., "U2-Net: Going Deeper with Nested U-Structure for Salient Object
Detection", Pattern Recognition 2020, doi 10.1016/j.patcog.2020.107404. The
default widths are the paper's U2-Net; U2-Net-p has 16 inner and 64 outer
channels in every stage (`configs/u2netp.py`).
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rmbg_jax.models import convolution, layers

EPSILON = 1e-5  # PyTorch's, which the authors' weights were trained with.

# Stages fine to coarse: the number of scales in each one's inner U-Net. The
# two coarsest dilate their convolutions instead of shrinking the features.
HEIGHTS = (7, 6, 5, 4, 0, 0)
FLAT_DILATIONS = (1, 2, 4, 8)

# In the order in which the authors' code runs them.
HEADS = ('side1', 'side2', 'side3', 'side4', 'side5', 'side6', 'fuse')


class ConvBlock(nn.Module):
  """A 3x3 convolution, a batch normalisation and a ReLU.

  Attributes:
    filters: Channels of the output.
    conv: Makes a convolution.
    norm: Makes a batch normalisation.
    dilation: Dilation of the convolution, in pixels.
  """

  filters: int
  conv: layers.LayerFactory
  norm: layers.LayerFactory
  dilation: int = 1

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w f']:
    """Returns features of the same resolution with `filters` channels."""
    x = self.conv(
      self.filters, (3, 3), kernel_dilation=self.dilation, name='conv'
    )(x)
    return nn.relu(self.norm(name='bn')(x))


class RSU(nn.Module):
  """A residual U-block: a U-Net around which the input is added again.

  Attributes:
    mid: Channels inside.
    filters: Channels of the output.
    conv: Makes a convolution.
    norm: Makes a batch normalisation.
    height: Number of convolutions on the way down (RSU-7 to RSU-4), of which
      the last is dilated; 0 for RSU-4F, which keeps the resolution and dilates.
  """

  mid: int
  filters: int
  conv: layers.LayerFactory
  norm: layers.LayerFactory
  height: int

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w f']:
    """Returns features of the same resolution with `filters` channels."""

    def block(name, features, *, filters=self.mid, dilation=1, conv=self.conv):
      return ConvBlock(filters, conv, self.norm, dilation, name=name)(features)

    # In the authors' weights, large and nearly constant channels on the way up
    # cancel against large biases (1361 in U2-Net-p's `decoder4/conv1d`), so
    # that rounding shows in the mask.
    accurate_conv = functools.partial(
      self.conv, conv_general_dilated_cls=lambda: convolution.convolve_by_rows
    )
    dilations = rsu_dilations(self.height)
    entry = block('conv_in', x, filters=self.filters)
    x, skips = entry, []
    for index, dilation in enumerate(dilations):
      if 0 < index < self.height - 1:
        x = max_pool(x)
      x = block(f'conv{index + 1}', x, dilation=dilation)
      skips.append(x)
    skips.pop()
    for index in reversed(range(len(skips))):
      x = layers.resize_bilinear(x, size=layers.find_size(skips[index]))
      x = block(
        f'conv{index + 1}d',
        jnp.concatenate([x, skips[index]], axis=-1),
        filters=self.filters if index == 0 else self.mid,
        dilation=dilations[index],
        conv=accurate_conv,
      )
    return x + entry


class U2NetEncoder(nn.Module):
  """The six stages on the way down.

  Attributes:
    mid: Inner channels of each stage, fine to coarse.
    filters: Outer channels of each stage, fine to coarse.
    conv: Makes a convolution.
    make_norm: Gives what makes a stage's batch normalisations, from 1.
    make_block: `RSU`, or what behaves as it.
  """

  mid: tuple[int, ...]
  filters: tuple[int, ...]
  conv: layers.LayerFactory
  make_norm: Callable[[int], layers.LayerFactory]
  make_block: Callable[..., nn.Module]

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w 3'], *, frozen_stages: int = 0
  ) -> list[Float[Array, 'b _ _ _']]:
    """Returns the features of each stage, at 1/1 to 1/32 of the resolution."""
    features = []
    for stage, (height, mid, filters) in enumerate(
      zip(HEIGHTS, self.mid, self.filters, strict=True), start=1
    ):
      x = max_pool(x) if stage > 1 else x
      norm = self.make_norm(stage)
      x = self.make_block(
        mid, filters, self.conv, norm, height, name=f'stage{stage}'
      )(x)
      x = layers.stop_gradient_if(stage <= frozen_stages, x)
      features.append(x)
    return features


class U2Net(nn.Module):
  """U2-Net, by default at the paper's full width.

  Attributes:
    encoder_mid: Inner channels of the encoder's stages, fine to coarse.
    encoder_filters: Outer channels of the same.
    decoder_mid: Inner channels of the decoder's stages, coarse to fine.
    decoder_filters: Outer channels of the same.
    freeze_norm: Whether the batch normalisations use and keep their running
      statistics in training too. Weights whose normalisations are folded into
      the convolutions need it.
    bn_momentum: Momentum of the running batch statistics.
    dtype: Type of the computation, 'float32' or 'bfloat16'. Parameters, batch
      statistics, heads and logits are float32 either way.
    remat: Whether a block's inner features are computed again for the gradient
      instead of kept: less memory for about a third more time.
  """

  encoder_mid: tuple[int, ...] = (32, 32, 64, 128, 256, 256)
  encoder_filters: tuple[int, ...] = (64, 128, 256, 512, 512, 512)
  decoder_mid: tuple[int, ...] = (256, 128, 64, 32, 16)
  decoder_filters: tuple[int, ...] = (512, 256, 128, 64, 64)
  freeze_norm: bool = False
  bn_momentum: float = 0.9
  dtype: layers.Dtype = 'float32'
  remat: bool = False

  @nn.compact
  def __call__(
    self,
    images: Float[Array, 'b h w 3'],
    *,
    train: bool = False,
    frozen_stages: int = 0,
  ) -> tuple[Float[Array, 'b h w 1'], ...]:
    """Computes a logit map per decoder stage and the fused one.

    Args:
      images: Preprocessed images of any height and width.
      train: Whether batch statistics are computed (and updated, if
        `batch_stats` is mutable) or the running ones used.
      frozen_stages: Number of the encoder's stages that use and keep their
        running statistics in training too, and pass no gradient.

    Returns:
      Float32 logit maps, coarse to fine (the paper's S6 to S1), then the fused
      one, which is the prediction.
    """
    conv = layers.make_conv(dtype=self.dtype)

    def make_norm(train):
      return layers.make_norm(
        dtype=self.dtype,
        train=train and not self.freeze_norm,
        momentum=self.bn_momentum,
        epsilon=EPSILON,
      )

    make_block = nn.remat(RSU) if self.remat else RSU
    features = U2NetEncoder(
      self.encoder_mid,
      self.encoder_filters,
      conv,
      lambda stage: make_norm(train and stage > frozen_stages),
      make_block,
      name='encoder',
    )(images, frozen_stages=frozen_stages)
    norm = make_norm(train)
    *skips, x = features
    outputs = [x]
    for index, (height, mid, filters) in enumerate(
      zip(HEIGHTS[-2::-1], self.decoder_mid, self.decoder_filters, strict=True)
    ):
      skip = skips.pop()
      x = layers.resize_bilinear(x, size=layers.find_size(skip))
      block = make_block(
        mid, filters, conv, norm, height, name=f'decoder{index + 1}'
      )
      x = block(jnp.concatenate([x, skip], axis=-1))
      outputs.append(x)
    size = layers.find_size(images)
    head = layers.make_conv(dtype=jnp.float32)
    sides = [
      layers.resize_bilinear(
        head(1, (3, 3), name=f'side{6 - index}')(x.astype(jnp.float32)),
        size=size,
      )
      for index, x in enumerate(outputs)
    ]
    # The authors concatenate fine to coarse.
    fused = head(1, (1, 1), name='fuse')(jnp.concatenate(sides[::-1], axis=-1))
    return (*sides, fused)

  def find_stage(self, child: str) -> int:
    """Returns the stage that a child of the encoder is, from 1."""
    return int(child.removeprefix('stage'))


def max_pool(x: Float[Array, 'b h w c']) -> Float[Array, 'b h2 w2 c']:
  """Halves the resolution, rounding up: an odd last row is its own maximum."""
  return nn.max_pool(x, (2, 2), strides=(2, 2), padding='SAME')


def rsu_dilations(height: int) -> tuple[int, ...]:
  """Returns the dilations of a block's convolutions on the way down."""
  return (1,) * (height - 1) + (2,) if height else FLAT_DILATIONS


def block_dilations() -> dict[str, int]:
  """Returns each `ConvBlock`'s dilation by its path, in the order they run."""
  stages = {f'encoder/stage{i + 1}': h for i, h in enumerate(HEIGHTS)}
  stages |= {f'decoder{i + 1}': h for i, h in enumerate(HEIGHTS[-2::-1])}
  dilations = {}
  for stage, height in stages.items():
    inner = rsu_dilations(height)
    dilations[f'{stage}/conv_in'] = 1
    for index, dilation in enumerate(inner):
      dilations[f'{stage}/conv{index + 1}'] = dilation
    for index in reversed(range(len(inner) - 1)):
      dilations[f'{stage}/conv{index + 1}d'] = inner[index]
  return dilations
