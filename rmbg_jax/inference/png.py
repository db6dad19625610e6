"""Writes PNG files several times as fast as Pillow, at about the same size."""

import struct
import zlib

import numpy as np
from isal import isal_zlib
from jaxtyping import UInt8, UInt16

_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}  # By the number of channels.
_LEFT, _ABOVE = 1, 2  # Numbers of filters: the difference to that pixel.
_LEVEL = 2  # From 0 to 3.
_CHUNK_BYTES = 1 << 20
_SAMPLED_ROWS = 64


def encode(
  pixels: UInt8[np.ndarray, 'h w *c'] | UInt16[np.ndarray, 'h w *c'],
  *,
  icc_profile: bytes | None = None,
) -> bytes:
  """Returns the content of a PNG file (W3C's Portable Network Graphics).

  All rows have the filter, of two that NumPy computes at once, that leaves the
  smaller differences.

  Args:
    pixels: Grey (h, w), RGB (h, w, 3) or RGBA (h, w, 4), of 8 or 16 bits.
    icc_profile: Profile of the colours.
  """
  height, width = pixels.shape[:2]
  channels = pixels.shape[2] if pixels.ndim == 3 else 1
  depth = 8 * pixels.itemsize
  # The last three: deflate, filters by row, no interlacing.
  header = struct.pack(
    '>2I5B', width, height, depth, _COLOUR_TYPES[channels], 0, 0, 0
  )
  # PNG has the high byte first.
  if depth == 16:
    pixels = pixels.astype('>u2')
  rows = np.ascontiguousarray(pixels).reshape(height, -1).view(np.uint8)
  content = [b'\x89PNG\r\n\x1a\n', _make_chunk(b'IHDR', header)]
  if icc_profile:
    # A name and its end, then the number of the compression: deflate.
    data = b'ICC Profile\0\0' + zlib.compress(icc_profile)
    content.append(_make_chunk(b'iCCP', data))
  compressed = isal_zlib.compress(
    _filter(rows, step=channels * pixels.itemsize), _LEVEL
  )
  content += [
    _make_chunk(b'IDAT', compressed[start : start + _CHUNK_BYTES])
    for start in range(0, len(compressed), _CHUNK_BYTES)
  ]
  return b''.join([*content, _make_chunk(b'IEND', b'')])


def _filter(
  rows: UInt8[np.ndarray, 'h n'], *, step: int
) -> UInt8[np.ndarray, 'h n1']:
  """Returns the rows as differences, each behind its filter's number."""
  height, count = rows.shape
  # Whole rows, so that both filters are judged by the same pixels.
  some = rows[:: max(1, height // _SAMPLED_ROWS)]
  below = rows[1 :: max(1, height // _SAMPLED_ROWS)][: len(some)]
  left = _measure(some[:, step:], some[:, :-step])
  above = _measure(below, some[: len(below)])
  result = np.empty((height, count + 1), np.uint8)
  body = result[:, 1:]
  if above < left:
    result[:, 0] = _ABOVE
    # The row above the first one counts as zeros, as does what is on the left.
    body[0] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=body[1:])
  else:
    result[:, 0] = _LEFT
    body[:, :step] = rows[:, :step]
    np.subtract(rows[:, step:], rows[:, :-step], out=body[:, step:])
  return result


def _measure(
  values: UInt8[np.ndarray, 'h n'], before: UInt8[np.ndarray, 'h n']
) -> float:
  """Returns the mean size of the differences, which wrap around."""
  if not values.size:
    return np.inf  # The other filter is taken.
  # int16, since 128, the size of -128, is none of int8.
  return float(np.abs((values - before).view(np.int8).astype(np.int16)).mean())


def _make_chunk(name: bytes, data: bytes) -> bytes:
  checksum = isal_zlib.crc32(data, isal_zlib.crc32(name))
  return b''.join(
    (len(data).to_bytes(4, 'big'), name, data, checksum.to_bytes(4, 'big'))
  )
