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
from collections.abc import Callable

from data_pipelines.io.errors import UserError
from rmbg_jax.models.layers import Convolution, Layers, T

EPSILON = {'keras': 1.001e-5, 'torchvision': 1e-5}


def compute_features(
  layers: Layers[T],
  images: T,
  *,
  stage_sizes: tuple[int, ...],
  width: int,
  dialect: str,
) -> list[T]:
  """Computes ResNet's features without its last stage and classifier.

  Args:
    layers: Layers of the encoder.
    images: Preprocessed images (b, h, w, 3).
    stage_sizes: Blocks in stages conv2, conv3, conv4; (3, 4, 6) is ResNet50.
    width: Channels of the stem; stage k works at width x 2^k and returns four
      times that. 64 is ResNet50.
    dialect: 'keras' or 'torchvision', see the module's docstring.

  Returns:
    Features at 1/2 (`conv1`) to 1/16 (`conv4`) of the resolution.

  Raises:
    UserError: for an unknown dialect.
  """
  if dialect not in EPSILON:
    raise UserError(
      f'Unknown ResNet dialect {dialect!r}; choose one of {sorted(EPSILON)}.'
    )
  first = _make_convolution(dialect)(width, kernel=7, stride=2)
  x = layers.conv(images, 'conv1', first)
  # The finest feature is from before the pool, at 1/2.
  features = [x]
  x = layers.pool(x, 'pool1', kernel=3)
  for stage, size in enumerate(stage_sizes, start=2):
    for index in range(size):
      x = layers.part(
        f'conv{stage}_block{index + 1}',
        _compute_bottleneck,
        x,
        filters=width * 2 ** (stage - 2),
        # conv2's stride is that of the pool before it.
        stride=2 if stage > 2 and index == 0 else 1,
        project=index == 0,
        dialect=dialect,
      )
    features.append(x)
  return features


def _compute_bottleneck(
  layers: Layers[T],
  x: T,
  *,
  filters: int,
  stride: int,
  project: bool,
  dialect: str,
) -> T:
  """Computes 1x1, 3x3 and 1x1 convolutions beside a shortcut.

  Args:
    layers: Layers of the block.
    x: Features.
    filters: Channels of the first two convolutions; the result has four times
      as many.
    stride: Stride of the block.
    project: Whether the shortcut is a 1x1 convolution (first block of a
      stage) or the identity.
    dialect: See the module's docstring.
  """
  make = _make_convolution(dialect)
  on_1x1, on_3x3 = (stride, 1) if dialect == 'keras' else (1, stride)
  shortcut = x
  if project:
    wide = make(4 * filters, stride=stride, activation='')
    shortcut = layers.conv(x, 'conv0', wide)
  x = layers.conv(x, 'conv1', make(filters, stride=on_1x1))
  x = layers.conv(x, 'conv2', make(filters, kernel=3, stride=on_3x3))
  x = layers.conv(x, 'conv3', make(4 * filters, activation=''))
  return layers.relu(layers.add(shortcut, x, 'add'), 'out')


def _make_convolution(dialect: str) -> Callable[..., Convolution]:
  """Returns `Convolution` with what all of a dialect's have in common."""
  return functools.partial(
    Convolution,
    use_bias=dialect == 'keras',
    epsilon=EPSILON[dialect],
    activation='relu',
  )
