"""The U-Net: encoder, dilated bridge, residual decoder, supervised outputs."""

import dataclasses
import functools
import re
from typing import ClassVar

from data_pipelines.io.errors import UserError
from rmbg_jax.models import efficientnet, resnet
from rmbg_jax.models.layers import Convolution, Layers, T

# Keras' default, which the Keras project uses outside of ResNet50.
DECODER_EPSILON = 1e-3
_convolution = functools.partial(
  Convolution, epsilon=DECODER_EPSILON, activation='relu'
)
ENCODERS = ('resnet50', *efficientnet.VARIANTS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNet:
  """Describes a U-Net.

  Attributes:
    encoder_name: 'resnet50', or a variant of `efficientnet.py`.
    encoder_dialect: Dialect of ResNet50, 'keras' or 'torchvision' (see
      `resnet.py`).
    encoder_stage_sizes: Numbers of blocks in ResNet50's stages.
    encoder_width: Number of channels of ResNet50's stem.
    bridge_filters: Channels of the bridge.
    bridge_rates: Dilation of each branch of the bridge.
    decoder_filters: Channels of each decoder block, coarse to fine. A block
      doubles the resolution; its skip connection is the encoder's next finer
      feature, and after the last of them the image.
    bn_momentum: Momentum of the running batch statistics.
  """

  channels: ClassVar[int] = 3
  encoder_name: str = 'resnet50'
  encoder_dialect: str = 'keras'
  encoder_stage_sizes: tuple[int, ...] = (3, 4, 6)
  encoder_width: int = 64
  bridge_filters: int = 1024
  bridge_rates: tuple[int, ...] = (3, 6, 9)
  decoder_filters: tuple[int, ...] = (512, 256, 128, 64)
  bn_momentum: float = 0.99

  def compute(self, layers: Layers[T], images: T) -> tuple[T, ...]:
    """Computes one logit map per decoder block.

    Args:
      layers: What it is computed with.
      images: Preprocessed images (b, h, w, 3), height and width multiples of 16
        for ResNet50, of 32 for EfficientNet.

    Returns:
      Logit maps (b, h, w, 1), one per decoder block, coarse to fine. The last
      is the prediction.

    Raises:
      UserError: if height or width is not such a multiple, or there are more
        decoder blocks than skip connections, or no such encoder.
    """
    features = self._compute_features(layers, images)
    # The deepest features are where the decoder begins; the image is a skip.
    *skips, x = [images, *features]
    # Each feature has half the size of the one before.
    multiple = 2 ** len(skips)
    height, width, _ = layers.find_shape(images)
    if height % multiple or width % multiple:
      raise UserError(
        f'Height and width must be multiples of {multiple}, got '
        f'{height}x{width}. Resize or pad the images.'
      )
    if len(self.decoder_filters) > len(skips):
      raise UserError(
        f'decoder.filters has {len(self.decoder_filters)} values, but '
        f'{self.encoder_name} has features for {len(skips)} decoder blocks.'
      )
    x = layers.part(
      'bridge',
      _compute_bridge,
      x,
      filters=self.bridge_filters,
      rates=self.bridge_rates,
    )
    outputs = []
    for number, filters in enumerate(self.decoder_filters, start=1):
      x = layers.part(
        f'decoder{number}', _compute_decoder, x, skips.pop(), filters=filters
      )
      outputs.append(layers.part(f'head{number}', _compute_head, x, images))
    return tuple(outputs)

  def find_stage(self, child: str) -> int:
    """Returns the stage that a child of the encoder belongs to, from 1."""
    # The first number of `conv1`, `bn1`, `conv3_block2` or `stage4_block1`.
    number = int(re.sub(r'^\D*(\d+).*', r'\1', child))
    if self.encoder_name == 'resnet50':
      return number
    # Several of EfficientNet's stages may lead to one feature.
    return 1 + sum(number > last for last in efficientnet.FEATURES)

  def _compute_features(self, layers: Layers[T], images: T) -> list[T]:
    if self.encoder_name == 'resnet50':
      return layers.part(
        'encoder',
        resnet.compute_features,
        images,
        stage_sizes=self.encoder_stage_sizes,
        width=self.encoder_width,
        dialect=self.encoder_dialect,
      )
    if self.encoder_name not in efficientnet.VARIANTS:
      raise UserError(
        f'Unknown encoder.name {self.encoder_name!r}; choose one of '
        f'{", ".join(ENCODERS)}.'
      )
    return layers.part(
      'encoder',
      efficientnet.compute_features,
      images,
      variant=self.encoder_name,
    )


def _compute_bridge(
  layers: Layers[T], x: T, *, filters: int, rates: tuple[int, ...]
) -> T:
  """Looks at the coarsest features at several scales at once.

  One 3x3 convolution per dilation rate, concatenated and mixed by a 1x1
  convolution (the idea of ASPP, Chen et al., arXiv:1606.00915).
  """
  branches = []
  for rate in rates:
    wide = _convolution(filters, kernel=3, dilation=rate)
    branches.append(layers.conv(x, f'conv_rate{rate}', wide))
  x = layers.concat(branches, 'concat')
  return layers.conv(x, 'conv_out', _convolution(filters))


def _compute_decoder(layers: Layers[T], x: T, skip: T, *, filters: int) -> T:
  """Doubles the resolution and merges the encoder's features of that size."""
  x = layers.resize(x, 'resize', like=skip)
  # [up, skip] as in the Keras project: kernels' channels are in that order.
  x = layers.concat([x, skip], 'concat')
  return layers.part('residual', _compute_residual, x, filters=filters)


def _compute_residual(layers: Layers[T], x: T, *, filters: int) -> T:
  """Two 3x3 convolutions beside a 1x1 shortcut, ReLU after the sum."""
  shortcut = layers.conv(x, 'conv0', _convolution(filters, activation=''))
  convolution = _convolution(filters, kernel=3)
  x = layers.conv(x, 'conv1', convolution)
  x = layers.conv(x, 'conv2', convolution._replace(activation=''))
  return layers.relu(layers.add(shortcut, x, 'add'), 'out')


def _compute_head(layers: Layers[T], x: T, images: T) -> T:
  """Turns features into one logit per pixel of the input image.

  The Keras project enlarges all channels and then convolves. Both maps are
  linear and the bilinear weights sum to one, so the order does not matter:
  convolving first gives the same numbers for a fraction of the work.
  """
  return layers.resize(
    layers.conv(x, 'conv', Convolution(1)), 'out', like=images
  )
