"""Decodes plain pairs with OpenCV: the pixels of `decoding.read_pair`, faster.

Plain are an 8-bit baseline or progressive JPEG in colour, upright and complete,
and an 8-bit grey PNG, as most data sets have them. Of anything else, and of
anything that is not in order, nothing is returned: `decoding.read_pair` reads
it, or says what is wrong.
"""

import io
import math
import struct
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, PngImagePlugin

from data_pipelines.io import errors, images

_PNG_START = b'\x89PNG\r\n\x1a\n'
# Chunks that change no pixel, and are none of those that Pillow refuses.
_PNG_CHUNKS = frozenset({b'IHDR', b'IDAT', b'pHYs', b'tIME', b'sRGB'})
_PNG_END = b'\xaeB`\x82'  # Checksum of the last chunk, which is empty.

# OpenCV has no names for reduced RGB: bits of reduced colour, without bit 0,
# which asks for BGR.
_AT_SCALE = {
  1: cv2.IMREAD_COLOR_RGB,
  2: cv2.IMREAD_REDUCED_GRAYSCALE_2 | cv2.IMREAD_COLOR_RGB,
  4: cv2.IMREAD_REDUCED_GRAYSCALE_4 | cv2.IMREAD_COLOR_RGB,
  8: cv2.IMREAD_REDUCED_GRAYSCALE_8 | cv2.IMREAD_COLOR_RGB,
}


def read_pair(
  image: images.Source, mask: images.Source, *, reduce_to: tuple[int, int]
) -> tuple[UInt8[np.ndarray, 'h w 3'], UInt8[np.ndarray, 'h2 w2']] | None:
  """Returns photo and mask, None where they are not plain.

  Args:
    image: File of the photo.
    mask: File of the mask.
    reduce_to: The (height, width) that the photo will be resized to; it may
      come reduced, as of `decoding.read_pair`.
  """
  photo_file, mask_file = _read_file(image), _read_file(mask)
  size = _find_jpeg_size(photo_file)
  if size is None or size != _find_png_size(mask_file):
    return None
  values = _decode(mask_file, cv2.IMREAD_UNCHANGED)
  # Below half of 255, the range is unclear: `decoding.convert_mask` decides.
  if values is None or values.shape != size or values.max() < 128:
    return None
  kept = images.find_kept(reduce_to)
  room = min(size[0] // kept[0], size[1] // kept[1])
  scale = max(scale for scale in _AT_SCALE if scale <= max(1, room))
  photo = _decode(photo_file, _AT_SCALE[scale])
  # libjpeg rounds up.
  expected = *(math.ceil(side / scale) for side in size), 3
  return None if photo is None or photo.shape != expected else (photo, values)


def _read_file(source: images.Source) -> bytes:
  """Returns a file's content, nothing where it cannot be read."""
  if isinstance(source, images.Encoded):
    return source.read_bytes()
  if isinstance(source, bytes):
    return source
  try:
    # Reading a pipe would empty it.
    return Path(source).read_bytes() if Path(source).is_file() else b''
  except OSError:
    return b''


def _decode(content: bytes, flags: int) -> np.ndarray | None:
  try:
    return cv2.imdecode(
      np.frombuffer(content, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION
    )
  except cv2.error:
    return None


def _find_jpeg_size(content: bytes) -> tuple[int, int] | None:
  """Returns (height, width) of a plain JPEG, None of anything else."""
  # A complete file: decoding cannot run out of data.
  if content[:2] != b'\xff\xd8' or content[-2:] != b'\xff\xd9':
    return None
  try:
    with images.opened(content) as image:
      Image.Exif().load(image.info.get('exif', b''))  # Raises if it is broken.
      # Several pictures in one are of another format, 'MPO'.
      is_plain = image.format == 'JPEG' and image.mode == 'RGB'
      is_upright = images.read_orientation(image) == 1
      return (image.height, image.width) if is_plain and is_upright else None
  except errors.UserError:
    return None


def _find_png_size(content: bytes) -> tuple[int, int] | None:
  """Returns (height, width) of a plain and undamaged PNG, None of others."""
  if content[:8] != _PNG_START or content[12:16] != b'IHDR':
    return None
  width, height, *form = struct.unpack('>IIBBBBB', content[16:29].ljust(13))
  file = io.BytesIO(content[8:])
  try:
    kinds = PngImagePlugin.ChunkStream(file).verify()  # Up to the last one.
  except (OSError, SyntaxError):
    return None
  is_plain = (
    form == [8, 0, 0, 0, 0]  # 8 bits, grey, nothing unusual, not interlaced.
    and _PNG_CHUNKS.issuperset(kinds)
    and kinds.count(b'IHDR') == 1
    and file.read() == _PNG_END
  )
  return (height, width) if is_plain else None
