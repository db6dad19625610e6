"""The bridge between encoder and decoder: parallel dilated convolutions."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from rmbg_jax.models import layers


class DilatedBridge(nn.Module):
  """Looks at the coarsest features at several scales at once.

  One 3x3 convolution per dilation rate, concatenated and mixed by a 1x1
  convolution (the idea of ASPP, Chen et al., arXiv:1606.00915).

  Attributes:
    filters: Channels of every branch and of the output.
    rates: The dilation of each branch, in pixels of the input features.
    conv: Makes a convolution.
    norm: Makes a batch normalisation.
  """

  filters: int
  rates: tuple[int, ...]
  conv: layers.LayerFactory
  norm: layers.LayerFactory

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w f']:
    """Returns features of the same resolution with `filters` channels."""
    branches = []
    for rate in self.rates:
      branch = self.conv(
        self.filters, (3, 3), kernel_dilation=rate, name=f'conv_rate{rate}'
      )(x)
      branches.append(nn.relu(self.norm(name=f'bn_rate{rate}')(branch)))
    x = self.conv(self.filters, (1, 1), name='conv_out')(
      jnp.concatenate(branches, axis=-1)
    )
    return nn.relu(self.norm(name='bn_out')(x))
