"""Reads masks, however they are stored."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops

from data_pipelines.io import images, ranges
from data_pipelines.io.errors import UserError

# Kinds of values whose full foreground may differ from file to file.
SCALED = ('integers', 'wide integers', 'floats')

# Differences, of 255, that lossy files and rounding make between channels of
# grey and between pixels of one colour.
_GREY_TOLERANCE = 8
_COLOUR_TOLERANCE = 16


class Plane(NamedTuple):
  """The values of the one channel that a mask has, as they are stored.

  Attributes:
    values: (h, w), uint8, or another type of integers or floats.
    stored: Kind of storage: one of `SCALED`, or 'one colour' or 'transparency',
      which are in [0, 255].
  """

  values: np.ndarray
  stored: str


def to_mask(image: Image.Image) -> Image.Image:
  """Converts a stored mask to 8 bits, 0 for background, 255 for foreground.

  The one reading of a mask, for training, checking and scoring. Integers are of
  8 bits, or of 16 where they reach the upper half of those; masks of {0, 1} are
  recognised by their largest value. Floats reach from 0 to 1, 255 or 65535. One
  colour on black is the foreground, whatever it is, as is one class of a
  coloured palette. Where transparency varies, it is the mask.

  Raises:
    UserError: if it is not clear what is meant.
  """
  return Image.fromarray(to_8_bit_mask(read_plane(image)))


def to_8_bit_mask(plane: Plane) -> np.ndarray:
  """Scales a mask's values by their own range to uint8 (h, w).

  Raises:
    UserError: if the range is unclear.
  """
  if plane.stored not in SCALED:
    return plane.values
  low, high = ranges.find_extremes(plane.values)
  scale = ranges.find_scale(low, high, floats=plane.stored == 'floats')
  return ranges.to_8_bit(plane.values, scale)


def read_plane(image: Image.Image) -> Plane:
  """Returns the values of a mask in any mode.

  Raises:
    UserError: if it is not clear which values are meant.
  """
  if ranges.is_wide(image):
    values = np.asarray(image)
    is_float = values.dtype.kind == 'f'
    return Plane(values, 'floats' if is_float else 'wide integers')
  if image.mode == 'L':
    return Plane(np.asarray(image), 'integers')
  if image.mode == '1':
    # 0 and 255: no other range is possible.
    return Plane(np.asarray(image.convert('L')), 'one colour')
  image, opacity = images.split_opacity(image)
  if opacity is not None:
    _check_transparency(np.asarray(image.convert('RGB')), np.asarray(opacity))
    return Plane(np.asarray(opacity), 'transparency')
  if image.mode == 'P':
    palette = np.reshape(image.getpalette('RGB') or [], (-1, 3))
    if (palette != palette[:, :1]).any():  # Else it is grey.
      return _read_classes(np.asarray(image), palette)
  return _read_colours(image.convert('RGB'))


def _read_classes(values: np.ndarray, palette: np.ndarray) -> Plane:
  """Reads a coloured palette: black, and one class besides."""
  used = np.unique(values).tolist()
  classes = [index for index in used if palette[index].any()]
  if len(classes) > 1:
    raise UserError(
      f'it has the classes {used} in a coloured palette, not a black '
      'background and one foreground'
    )
  return Plane(np.isin(values, classes).astype(np.uint8) * 255, 'one colour')


def _read_colours(image: Image.Image) -> Plane:
  """Reads RGB: grey, or one colour on black with shades between the two."""
  channels = image.split()
  spread = max(
    np.asarray(ImageChops.difference(first, second)).max()
    for first, second in zip(channels, channels[1:] + channels[:1], strict=True)
  )
  high = max(np.asarray(channel).max() for channel in channels)
  if not spread or (spread <= _GREY_TOLERANCE and high >= 128):
    return Plane(np.asarray(image.convert('L')), 'integers')
  values = np.asarray(image)
  if spread <= _GREY_TOLERANCE:  # Dark throughout: the noise of a lossy file.
    return Plane(values.max(axis=-1), 'integers')
  strength = values.max(axis=-1).astype(np.int32)  # Or products would overflow.
  colour = values.reshape(-1, 3)[strength.argmax()]
  different = max(
    int(np.abs(strength * int(part) // high - values[..., k]).max())
    for k, part in enumerate(colour.astype(np.int32))
  )
  # Two or three shades are classes; the edge of a drawing has more.
  shades = len(np.unique(strength[strength > 0]))
  if different > _COLOUR_TOLERANCE or shades in (2, 3):
    raise UserError(
      'it has several colours, not one foreground on black (a photo, or '
      'several classes?)'
    )
  # The colour's brightest shade is all foreground.
  return Plane((strength * 255 // high).astype(np.uint8), 'one colour')


def _check_transparency(colours: np.ndarray, opacity: np.ndarray) -> None:
  """Checks that the mask is in the transparency, not in the colours.

  Raises:
    UserError: if colours show a mask, or transparency shows nothing.
  """
  is_same = opacity.min() == opacity.max()
  shown = colours if is_same else colours[opacity > 0]
  shown = shown.reshape(-1, 3).astype(np.int16)  # Signed, for differences.
  varies = np.ptp(shown, axis=0).max() > _GREY_TOLERANCE
  if is_same and varies:
    raise UserError(
      f'all of it has the opacity {opacity.flat[0]} of 255, while its colours '
      'vary; store it without transparency'
    )
  if is_same or not varies or np.ptp(shown, axis=1).max() > _GREY_TOLERANCE:
    return  # A drawing on nothing, or the cut-out of a photo.
  grey = shown[:, 0]
  if np.abs(grey - opacity[opacity > 0]).max() <= _GREY_TOLERANCE:
    return
  dark, light = (grey < 16).mean(), (grey > 239).mean()
  if dark + light > 0.95 and min(dark, light) > 0.001:
    raise UserError(
      'its colours are black and white like a mask, but its transparency says '
      'something else; store it without transparency'
    )
