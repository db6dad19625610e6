"""Turns the pictures of clips into photos: their colours, and which way up."""

import dataclasses
import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from rmbg_jax.inference import photos

if TYPE_CHECKING:
  import av

# FFmpeg's numbers of matrices. A clip without one (unknown) has that of HD or
# SD, by its height.
_UNKNOWN, _HD, _SD = 2, 1, 6
_HD_HEIGHT = 720
_RGB = 0
_LIMITED, _FULL = 1, 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Colour:
  """The colour encoding of a clip, by FFmpeg's numbers."""

  matrix: int = _HD
  full_range: bool = False
  primaries: int = _HD
  transfer: int = _HD


class Turn(NamedTuple):
  """Turns that make frames upright: transposed first, then mirrored."""

  transposed: bool = False
  left_right: bool = False
  up_down: bool = False

  def apply(self, pixels: np.ndarray) -> np.ndarray:
    """Returns an upright picture (h, w, ...)."""
    if self.transposed:
      pixels = pixels.swapaxes(0, 1)
    rows, columns = (
      -1 if one else 1 for one in (self.up_down, self.left_right)
    )
    return pixels[::rows, ::columns]


def find_turn(matrix: bytes) -> Turn:
  """Returns what a display matrix says, of right angles alone.

  Args:
    matrix: 3x3 numbers of 32 bits; empty where a frame has none.
  """
  if not matrix:
    return Turn()
  # A column x and a row y are shown at (a x + c y, b x + d y).
  a, b, _, c, d = struct.unpack('=5i', matrix[:20])
  transposed = abs(a) + abs(d) < abs(b) + abs(c)
  across, down = (c, b) if transposed else (a, d)
  return Turn(transposed, across < 0, down < 0)


def find_colour(context: 'av.VideoCodecContext') -> Colour:
  """Returns what a clip says of its colours; guessed where it says nothing."""
  form = context.format
  if form is None or form.is_rgb or form.name.startswith(('pal', 'gray')):
    return Colour()
  matrix = context.colorspace
  # A clip that is not RGB cannot have RGB's matrix.
  if matrix in (_UNKNOWN, _RGB):
    matrix = _HD if context.height >= _HD_HEIGHT else _SD
  return Colour(
    matrix=int(matrix),
    full_range=context.color_range == _FULL or form.name.startswith('yuvj'),
    primaries=int(context.color_primaries),
    transfer=int(context.color_trc),
  )


def names_matrix(context: 'av.VideoCodecContext') -> bool:
  """Returns whether a clip names its colours' matrix, or needs none."""
  form = context.format
  return context.colorspace != _UNKNOWN or form is None or form.is_rgb


def find_scaler(matrix: int) -> int:
  """Returns what FFmpeg's scaler calls a matrix (SWS_CS_...)."""
  return {1: 1, 4: 4, 7: 7, 9: 9, 10: 9}.get(matrix, 5)  # 5 is SD's.


def to_photo(
  frame: 'av.VideoFrame', colour: Colour, has_alpha: bool, turn: Turn
) -> photos.Photo:
  """Returns a frame as a photo, made upright, in 8 bits."""
  options = {}
  if not frame.format.is_rgb and not frame.format.name.startswith('pal'):
    options = {
      'src_colorspace': find_scaler(colour.matrix),
      'src_color_range': _FULL if colour.full_range else _LIMITED,
    }
    # Grey pictures use all values.
    if frame.format.name.startswith('gray'):
      options['src_color_range'] = _FULL
  form = 'rgba' if has_alpha or frame.format.name.startswith('pal') else 'rgb24'
  pixels = frame.reformat(format=form, **options).to_ndarray()
  pixels = turn.apply(pixels)
  opacity = None
  if form == 'rgba' and pixels[..., 3].min() < 255:
    opacity = Image.fromarray(np.ascontiguousarray(pixels[..., 3]))
  rgb = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
  return photos.Photo(rgb=rgb, opacity=opacity)
