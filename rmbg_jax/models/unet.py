"""The network: encoder, bridge, decoder and four supervised outputs."""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from data_pipelines.io.errors import UserError
from rmbg_jax.models import bridge, decoder, efficientnet, layers, resnet

# Keras' defaults, which the Keras project uses outside of ResNet50.
DECODER_EPSILON = 1e-3
ENCODERS = ('resnet50', *efficientnet.VARIANTS)


class UNet(nn.Module):
  """A U-Net with an encoder, a dilated bridge and a residual decoder.

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
    dtype: Type of the computation, 'float32' or 'bfloat16'. Parameters, batch
      statistics, heads and logits are float32 either way.
    remat: Whether a block's inner features are computed again for the gradient
      instead of kept: less memory for about a third more time.
  """

  encoder_name: str = 'resnet50'
  encoder_dialect: str = 'keras'
  encoder_stage_sizes: tuple[int, ...] = (3, 4, 6)
  encoder_width: int = 64
  bridge_filters: int = 1024
  bridge_rates: tuple[int, ...] = (3, 6, 9)
  decoder_filters: tuple[int, ...] = (512, 256, 128, 64)
  bn_momentum: float = 0.99
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
    """Computes one logit map per decoder block.

    Args:
      images: Preprocessed images, height and width multiples of 16 for
        ResNet50, of 32 for EfficientNet.
      train: Whether batch statistics are computed (and updated, if
        `batch_stats` is mutable) or the running ones used.
      frozen_stages: Number of the encoder's stages that use and keep their
        running statistics in training too, and pass no gradient.

    Returns:
      Float32 logit maps, one per decoder block, coarse to fine. The last is
      the prediction.

    Raises:
      UserError: if height or width is not such a multiple, or there are more
        decoder blocks than skip connections, or no such encoder.
    """
    features = self._make_encoder()(
      images, train=train, frozen_stages=frozen_stages
    )
    *skips, x = features.values()
    skips = [images, *skips]
    multiple = 2 ** len(skips)
    height, width = images.shape[1:3]
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
    conv = layers.make_conv(dtype=self.dtype)
    norm = layers.make_norm(
      dtype=self.dtype,
      train=train,
      momentum=self.bn_momentum,
      epsilon=DECODER_EPSILON,
    )
    make_bridge: layers.LayerFactory = bridge.DilatedBridge
    make_block: layers.LayerFactory = decoder.DecoderBlock
    if self.remat:
      make_bridge, make_block = nn.remat(make_bridge), nn.remat(make_block)
    x = make_bridge(
      self.bridge_filters, self.bridge_rates, conv, norm, name='bridge'
    )(x)
    outputs = []
    for index, filters in enumerate(self.decoder_filters):
      block = make_block(filters, conv, norm, name=f'decoder{index + 1}')
      x = block(x, skips.pop())
      factor = 2 ** len(skips)
      outputs.append(decoder.Head(factor=factor, name=f'head{index + 1}')(x))
    return tuple(outputs)

  def find_stage(self, child: str) -> int:
    """Returns the stage that a child of the encoder belongs to, from 1."""
    if self.encoder_name == 'resnet50':
      return resnet.find_stage(child)
    return efficientnet.find_stage(child)

  def _make_encoder(self) -> nn.Module:
    options: dict[str, Any] = {
      'momentum': self.bn_momentum,
      'dtype': self.dtype,
      'remat': self.remat,
      'name': 'encoder',
    }
    if self.encoder_name == 'resnet50':
      return resnet.ResNetEncoder(
        stage_sizes=self.encoder_stage_sizes,
        width=self.encoder_width,
        dialect=self.encoder_dialect,
        **options,
      )
    if self.encoder_name not in efficientnet.VARIANTS:
      raise UserError(
        f'Unknown encoder.name {self.encoder_name!r}; choose one of '
        f'{", ".join(ENCODERS)}.'
      )
    return efficientnet.EfficientNetEncoder(self.encoder_name, **options)
