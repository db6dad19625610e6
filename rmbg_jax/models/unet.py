"""The network: encoder, bridge, decoder and four supervised outputs."""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from rmbg_jax.models import bridge, decoder, layers, resnet

# Keras' defaults, which the original uses outside of its ResNet50.
DECODER_EPSILON = 1e-3


class UNet(nn.Module):
  """A U-Net with a ResNet encoder, a dilated bridge and a residual decoder.

  Attributes:
    encoder_dialect: 'keras' or 'torchvision' (see `resnet.py`).
    encoder_stage_sizes: blocks in the encoder's stages.
    encoder_width: channels of the encoder's stem.
    bridge_filters: channels of the bridge.
    bridge_rates: dilation of each branch of the bridge.
    decoder_filters: channels of each decoder block, coarse to fine.
    bn_momentum: of the running batch statistics.
    dtype: of the computation, 'float32' or 'bfloat16'. Parameters, batch
      statistics, heads and logits are float32 either way.
    remat: whether a block's inner features are computed again for the gradient
      instead of kept: less memory for about a third more time.
  """

  encoder_dialect: str = 'keras'
  encoder_stage_sizes: tuple[int, ...] = (3, 4, 6)
  encoder_width: int = 64
  bridge_filters: int = 1024
  bridge_rates: tuple[int, ...] = (3, 6, 9)
  decoder_filters: tuple[int, ...] = (512, 256, 128, 64)
  bn_momentum: float = 0.99
  dtype: Any = 'float32'
  remat: bool = False

  @nn.compact
  def __call__(
    self,
    images: Float[Array, 'b h w 3'],
    *,
    train: bool = False,
    freeze_encoder: bool = False,
  ) -> tuple[Float[Array, 'b h w 1'], ...]:
    """Computes one logit map per decoder block.

    Args:
      images: preprocessed images, height and width multiples of 16.
      train: whether batch statistics are computed (and updated, if
        `batch_stats` is mutable) or the running ones used.
      freeze_encoder: whether the encoder uses and keeps its running statistics
        in training too.

    Returns:
      Float32 logit maps d1 to d4, coarse to fine. The last is the prediction.

    Raises:
      ValueError: if height or width is not a multiple of 16.
    """
    height, width = images.shape[1:3]
    if height % 16 or width % 16:
      raise ValueError(
        'Height and width must be multiples of 16, got '
        f'{height}x{width}. Resize or pad the images.'
      )
    features = resnet.ResNetEncoder(
      stage_sizes=self.encoder_stage_sizes,
      width=self.encoder_width,
      dialect=self.encoder_dialect,
      momentum=self.bn_momentum,
      dtype=self.dtype,
      remat=self.remat,
      name='encoder',
    )(images, train=train and not freeze_encoder)
    conv = layers.make_conv(dtype=self.dtype)
    norm = layers.make_norm(
      dtype=self.dtype,
      train=train,
      momentum=self.bn_momentum,
      epsilon=DECODER_EPSILON,
    )
    make_bridge, make_block = (
      nn.remat(part) if self.remat else part
      for part in (bridge.DilatedBridge, decoder.DecoderBlock)
    )
    x = make_bridge(
      self.bridge_filters, self.bridge_rates, conv, norm, name='bridge'
    )(features['conv4'])
    skips = (
      features['conv3'],
      features['conv2'],
      features['conv1'],
      images,
    )
    outputs = []
    for index, (filters, skip) in enumerate(
      zip(self.decoder_filters, skips, strict=True)
    ):
      x = make_block(filters, conv, norm, name=f'decoder{index + 1}')(x, skip)
      head = decoder.Head(factor=8 // 2**index, name=f'head{index + 1}')
      outputs.append(head(x))
    return tuple(outputs)
