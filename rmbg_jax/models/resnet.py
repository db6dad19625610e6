"""The encoder: ResNet50 up to its fourth stage, in two dialects.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016,
arXiv:1512.03385. Two published sets of ImageNet weights exist for it, and
they belong to two slightly different networks:

* `keras` (`keras.applications.ResNet50`): a stage's stride is on its first
  1x1 convolution, convolutions have biases, BatchNorm epsilon 1.001e-5.
* `torchvision` (v1.5): the stride is on the 3x3 convolution, no biases,
  epsilon 1e-5.
"""

import functools
import re

import flax.linen as nn
from jaxtyping import Array, Float

from data_pipelines.io.errors import UserError
from rmbg_jax.models import layers

EPSILON = {'keras': 1.001e-5, 'torchvision': 1e-5}


class Bottleneck(nn.Module):
  """A bottleneck block: 1x1, 3x3 and 1x1 convolutions beside a shortcut.

  Attributes:
    filters: Channels of the first two convolutions; the output has four times
      as many.
    stride: The stride of the block.
    project: Whether the shortcut is a 1x1 convolution (first block of a
      stage) or the identity.
    stride_on_3x3: Whether the 3x3 has the stride (see the module's docstring).
    conv: Makes a convolution.
    norm: Makes a batch normalisation.
  """

  filters: int
  stride: int
  project: bool
  stride_on_3x3: bool
  conv: layers.LayerFactory
  norm: layers.LayerFactory

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h2 w2 c4']:
    """Returns features at 1/stride of the resolution, 4 x filters channels."""
    stride_1x1, stride_3x3 = self.stride, 1
    if self.stride_on_3x3:
      stride_1x1, stride_3x3 = 1, self.stride
    shortcut = x
    if self.project:
      shortcut = self.conv(
        4 * self.filters,
        (1, 1),
        strides=self.stride,
        padding='VALID',
        name='conv0',
      )(x)
      shortcut = self.norm(name='bn0')(shortcut)
    x = self.conv(
      self.filters, (1, 1), strides=stride_1x1, padding='VALID', name='conv1'
    )(x)
    x = nn.relu(self.norm(name='bn1')(x))
    x = self.conv(
      self.filters,
      (3, 3),
      strides=stride_3x3,
      padding=((1, 1), (1, 1)),
      name='conv2',
    )(x)
    x = nn.relu(self.norm(name='bn2')(x))
    x = self.conv(4 * self.filters, (1, 1), name='conv3')(x)
    x = self.norm(name='bn3')(x)
    return nn.relu(x + shortcut)


class ResNetEncoder(nn.Module):
  """ResNet without its last stage and classifier, as a feature extractor.

  Attributes:
    stage_sizes: Blocks in stages conv2, conv3, conv4; (3, 4, 6) is ResNet50.
    width: Channels of the stem; stage k works at width x 2^k and returns four
      times that. 64 is ResNet50.
    dialect: 'keras' or 'torchvision', see the module's docstring.
    momentum: Momentum of the running batch statistics.
    dtype: Type of the computation.
    remat: Whether a block's inner features are computed again for the gradient.
  """

  stage_sizes: tuple[int, ...] = (3, 4, 6)
  width: int = 64
  dialect: str = 'keras'
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
        all the same, and pass no gradient. `conv1` is the first.

    Returns:
      `conv1` (1/2) to `conv4` (1/16).
    """
    if self.dialect not in EPSILON:
      raise UserError(
        f'Unknown ResNet dialect {self.dialect!r}; choose one of '
        f'{sorted(EPSILON)}.'
      )
    conv = layers.make_conv(dtype=self.dtype, use_bias=self.dialect == 'keras')

    def make_norm(stage):
      return layers.make_norm(
        dtype=self.dtype,
        train=train and stage > frozen_stages,
        momentum=self.momentum,
        epsilon=EPSILON[self.dialect],
      )

    block = functools.partial(
      nn.remat(Bottleneck) if self.remat else Bottleneck,
      stride_on_3x3=self.dialect == 'torchvision',
      conv=conv,
    )
    features = {}
    x = conv(
      self.width,
      (7, 7),
      strides=2,
      padding=((3, 3), (3, 3)),
      name='conv1',
    )(images)
    x = nn.relu(make_norm(1)(name='bn1')(x))
    x = layers.stop_gradient_if(frozen_stages >= 1, x)
    features['conv1'] = x
    x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
    for stage, size in enumerate(self.stage_sizes, start=2):
      for index in range(size):
        x = block(
          filters=self.width * 2 ** (stage - 2),
          stride=2 if stage > 2 and index == 0 else 1,
          project=index == 0,
          norm=make_norm(stage),
          name=f'conv{stage}_block{index + 1}',
        )(x)
      x = layers.stop_gradient_if(stage <= frozen_stages, x)
      features[f'conv{stage}'] = x
    return features


def find_stage(child: str) -> int:
  """Returns the stage that a child of the encoder belongs to, from 1."""
  return int(re.sub(r'^\D*(\d+).*', r'\1', child))


def block_names(stage_sizes: tuple[int, ...]) -> list[str]:
  """Returns the names of the encoder's blocks in the order they run in."""
  return [
    f'conv{stage + 2}_block{index + 1}'
    for stage, size in enumerate(stage_sizes)
    for index in range(size)
  ]
