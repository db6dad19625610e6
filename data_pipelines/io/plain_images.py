"""Decodes plain pairs with OpenCV: the pixels of `decoding.read_pair`, faster.

Plain are an 8-bit baseline or progressive JPEG in colour, upright and complete,
and an 8-bit grey PNG, as most data sets have them. Of anything else, and of
anything that is not in order, nothing is returned: `decoding.read_pair` reads
it, or says what is wrong.
"""

import math
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from data_pipelines.io import images

_PNG_START = b'\x89PNG\r\n\x1a\n'
# Chunks that change no pixel, and are none of those that Pillow refuses.
_PNG_CHUNKS = frozenset({b'IHDR', b'IDAT', b'IEND', b'pHYs', b'tIME', b'sRGB'})

_START_OF_FRAME = frozenset({0xC0, 0xC1, 0xC2})  # 8-bit, Huffman-coded.
_OTHER_FRAMES = frozenset(range(0xC3, 0xD0)) - {0xC4, 0xCC}
_START_OF_SCAN = 0xDA
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


def _is_small(size: tuple[int, int]) -> bool:
  # Pillow's own limit: what it would refuse, or warn of, is left to it.
  limit = Image.MAX_IMAGE_PIXELS
  return 0 < size[0] * size[1] <= (math.inf if limit is None else limit)


def _find_jpeg_size(content: bytes) -> tuple[int, int] | None:
  """Returns (height, width) of a plain JPEG, None of anything else."""
  # A complete file: decoding cannot run out of data.
  if content[:2] != b'\xff\xd8' or content[-2:] != b'\xff\xd9':
    return None
  size, position = None, 2
  while True:
    head = content[position : position + 4]
    if len(head) < 4 or head[0] != 0xFF:
      return None
    kind, (length,) = head[1], struct.unpack('>H', head[2:])
    if kind == _START_OF_SCAN:
      return size
    body = content[position + 4 : position + 2 + length]
    if kind in _OTHER_FRAMES or not _is_harmless(kind, body):
      return None
    if kind in _START_OF_FRAME:
      # Bits of a value at 0, number of channels at 5.
      if size or len(body) < 6 or body[0] != 8 or body[5] != 3:
        return None
      size = struct.unpack('>HH', body[1:5])
      if not _is_small(size):
        return None
    position += 2 + length


def _is_harmless(kind: int, body: bytes) -> bool:
  """Returns whether a JPEG's segment leaves one upright picture."""
  if kind == 0xE2:  # APP2: what follows has several pictures.
    return not body.startswith(b'MPF')
  if kind != 0xE1:  # APP1: EXIF or XMP.
    return True
  if not body.startswith(b'Exif\0\0'):
    return b'Orientation' not in body  # XMP may say so too.
  exif = Image.Exif()
  try:
    exif.load(body)
    return exif.get(0x0112, 1) == 1
  except Exception:  # Leave a broken EXIF to Pillow.
    return False


def _find_png_size(content: bytes) -> tuple[int, int] | None:
  """Returns (height, width) of a plain and undamaged PNG, None of others."""
  if content[:8] != _PNG_START or content[12:16] != b'IHDR':
    return None
  width, height, *form = struct.unpack('>IIBBBBB', content[16:29].ljust(13))
  # 8 bits, grey, nothing unusual, not interlaced.
  if form != [8, 0, 0, 0, 0] or not _is_small((height, width)):
    return None
  position, kind = 8, b''
  while kind != b'IEND':
    head = content[position : position + 8]
    if len(head) < 8:
      return None
    length, kind = struct.unpack('>I4s', head)
    body = content[position + 4 : position + 8 + length]
    check = content[position + 8 + length : position + 12 + length]
    if kind not in _PNG_CHUNKS or (kind == b'IHDR') != (position == 8):
      return None
    # The checksum is of the kind and the content.
    if len(check) < 4 or zlib.crc32(body) != int.from_bytes(check):
      return None
    position += 12 + length
  return (height, width) if position == len(content) else None
