"""Turns a photo into the network's input; stored in every checkpoint."""

import dataclasses
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8

from data_pipelines.io import checks, errors
from data_pipelines.io.types import JsonObject


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
  """The input size and the normalisation that a network was trained with.

  Attributes:
    size: (height, width) in pixels that photos are stretched to.
    channels: 'rgb' or 'bgr', the order the network expects.
    scale: Pixel values in [0, 255] are divided by it first; 'maximum' for the
      largest value of each image ...
    mean: ... then this is subtracted, one value per channel in that order ...
    std: ... and then divided by this.
  """

  size: tuple[int, int]
  channels: str
  scale: float | Literal['maximum']
  mean: tuple[float, float, float]
  std: tuple[float, float, float]

  def normalize(
    self,
    images: UInt8[Any, '... h w 3']  # Any: arrays of NumPy or of JAX.
    | Float[Any, '... h w 3'],
  ) -> Float[Any, '... h w 3']:
    """Returns the network's float32 input for RGB images in [0, 255]."""
    # NumPy for prediction, JAX inside of a training step: one code for both.
    xp = images.__array_namespace__()
    if self.channels == 'bgr':
      images = images[..., ::-1]
    shape = (1,) * (images.ndim - 1) + (3,)
    # Made by NumPy, they are constants in a traced program.
    mean = np.asarray(self.mean, np.float32).reshape(shape)
    std = np.asarray(self.std, np.float32).reshape(shape)
    images = images.astype(np.float32)
    scale = self.scale
    if scale == 'maximum':  # At least 1: a black image stays black.
      brightest = xp.max(images, axis=(-3, -2, -1), keepdims=True)
      scale = xp.maximum(brightest, np.float32(1))
    # A single multiplication and addition per pixel.
    return images * (1 / (scale * std)) - mean / std

  @property
  def normalization(self) -> str:
    """The name of all but the size, '' if it has none."""
    own = (self.channels, self.scale, self.mean, self.std)
    return next((n for n, facts in _NORMALIZATIONS.items() if facts == own), '')

  def to_dict(self) -> dict[str, Any]:
    """Returns a JSON-compatible description; `from_dict` reads it."""
    return {
      key: list(value) if isinstance(value, tuple) else value
      for key, value in dataclasses.asdict(self).items()
    }

  @classmethod
  def from_dict(
    cls, description: JsonObject, place: str = 'preprocessing'
  ) -> 'Preprocessing':
    """Rebuilds the preprocessing from `to_dict`'s description.

    Raises:
      UserError: naming the place, and the key that is missing, unknown or
        impossible.
    """
    checks.check_object(description, CHECKS, place, required=CHECKS)
    values: dict[str, Any] = {
      key: tuple(value) if isinstance(value, list) else value
      for key, value in description.items()
    }
    return cls(**values)


_LONGEST_SIDE = 4096  # Pixels of the input.


def _are_three(value: object) -> bool:
  return (
    isinstance(value, list | tuple)
    and len(value) == 3
    and all(map(checks.is_number, value))
  )


def _is_size(value: object) -> bool:
  return (
    isinstance(value, list | tuple)
    and len(value) == 2
    and all(type(side) is int and 16 <= side <= _LONGEST_SIDE for side in value)
  )


# Of a description in a file. Any: a value of JSON.
CHECKS: checks.Checks = {
  'size': (_is_size, f'[height, width], each 16 to {_LONGEST_SIDE}'),
  'channels': (lambda v: v in ('rgb', 'bgr'), '"rgb" or "bgr"'),
  'scale': (
    lambda v: v == 'maximum' or checks.is_positive(v),
    'a number above 0, or "maximum"',
  ),
  'mean': (_are_three, 'three numbers'),
  'std': (lambda v: _are_three(v) and all(v), 'three numbers other than 0'),
}

# By name: the ones of published ImageNet weights (named as the encoder or its
# dialect), of U2-Net's authors, and of the Keras project, which feeds BGR / 255
# to an encoder trained on other input. Order of channels, scale, mean and std.
_NORMALIZATIONS: dict[str, tuple[Any, ...]] = {
  'keras': ('bgr', 1.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),
  'torchvision': ('rgb', 255.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
  'efficientnet': ('rgb', 1.0, (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
  'u2net': ('rgb', 'maximum', (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
  'original': ('bgr', 255.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


def make_preprocessing(
  normalization: str, *, size: tuple[int, int]
) -> Preprocessing:
  """Returns the preprocessing of that name for an input size in pixels.

  Args:
    normalization: 'keras', 'torchvision', 'efficientnet', 'u2net' or
      'original'.
    size: (height, width), each a multiple of 16.

  Raises:
    UserError: for an unknown name or a size the network cannot take.
  """
  if normalization not in _NORMALIZATIONS:
    raise errors.UserError(
      f'Unknown config.data.normalization {normalization!r}; choose one of '
      f'{sorted(_NORMALIZATIONS)}.'
    )
  if len(size) != 2 or any(side < 16 or side % 16 for side in size):
    raise errors.UserError(
      f'config.data.size must be (height, width), multiples of 16; got {size}.'
    )
  channels, scale, mean, std = _NORMALIZATIONS[normalization]
  return Preprocessing(
    size=tuple(size), channels=channels, scale=scale, mean=mean, std=std
  )
