"""The decoder: upsampling, skip connection and a residual block, repeated."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rmbg_jax.models import layers


class ResidualBlock(nn.Module):
  """Two 3x3 convolutions beside a 1x1 shortcut, ReLU after the sum.

  Attributes:
    filters: Channels of the output.
    conv: Makes a convolution.
    norm: Makes a batch normalisation.
  """

  filters: int
  conv: layers.LayerFactory
  norm: layers.LayerFactory

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w f']:
    """Returns features of the same resolution with `filters` channels."""
    shortcut = self.conv(self.filters, (1, 1), name='conv0')(x)
    shortcut = self.norm(name='bn0')(shortcut)
    x = self.conv(self.filters, (3, 3), name='conv1')(x)
    x = nn.relu(self.norm(name='bn1')(x))
    x = self.conv(self.filters, (3, 3), name='conv2')(x)
    x = self.norm(name='bn2')(x)
    return nn.relu(x + shortcut)


class DecoderBlock(nn.Module):
  """Doubles the resolution and merges the encoder's features of that size.

  Attributes:
    filters: Channels of the output.
    conv: Makes a convolution.
    norm: Makes a batch normalisation.
  """

  filters: int
  conv: layers.LayerFactory
  norm: layers.LayerFactory

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], skip: Float[Array, 'b h2 w2 s']
  ) -> Float[Array, 'b h2 w2 f']:
    """Returns features of the skip's resolution with `filters` channels."""
    x = layers.upsample_bilinear(x, factor=2)
    x = jnp.concatenate([x, skip.astype(x.dtype)], axis=-1)
    return ResidualBlock(
      self.filters, conv=self.conv, norm=self.norm, name='residual'
    )(x)


class Head(nn.Module):
  """Turns features into one logit per pixel of the input image.

  The original upsamples all channels and then convolves. Both maps are linear
  and the bilinear weights sum to one, so the order does not matter: convolving
  first gives the same numbers for a fraction of the work.

  Attributes:
    factor: Side of the image over that of the features.
  """

  factor: int

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c']
  ) -> Float[Array, 'b {self.factor}*h {self.factor}*w 1']:
    """Returns float32 logits at the image's resolution."""
    logits = layers.make_conv(dtype=jnp.float32)(1, (1, 1), name='conv')(
      x.astype(jnp.float32)
    )
    return layers.upsample_bilinear(logits, factor=self.factor)
