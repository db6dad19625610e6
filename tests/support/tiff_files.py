"""Writes uncompressed TIFFs of 16 bits in forms that no library here writes."""

import struct

import numpy as np


def encode(
  pixels: np.ndarray,
  *,
  orientation: int = 1,
  planar: bool = False,
  white_zero: bool = False,
  extra: int | None = None,
  big_endian: bool = False,
) -> bytes:
  """Returns the file.

  Args:
    pixels: (h, w) or (h, w, c) uint16, as they are stored.
    orientation: EXIF orientation.
    planar: Store one plane per channel.
    white_zero: Say that 0 is white.
    extra: What the last channel is: 1 for premultiplied, 2 for straight alpha.
    big_endian: Store the high byte first.
  """
  order = '>' if big_endian else '<'
  if pixels.ndim == 2:
    pixels = pixels[..., None]
  height, width, channels = pixels.shape
  if planar:
    pixels = np.moveaxis(pixels, -1, 0)
  data = np.ascontiguousarray(pixels).astype(f'{order}u2').tobytes()
  parts = channels if planar else 1
  colours = 1 if channels < 3 else 2
  tags = {
    256: [width],
    257: [height],
    258: [16] * channels,
    259: [1],
    262: [0 if white_zero else colours],
    273: [8 + len(data) // parts * part for part in range(parts)],
    274: [orientation],
    277: [channels],
    278: [height],
    279: [len(data) // parts] * parts,
    284: [2 if planar else 1],
  }
  if extra is not None:
    tags[338] = [extra]
  longs = (273, 279)
  entries, behind = b'', b''
  start = 8 + len(data) + 2 + 12 * len(tags) + 4
  for tag, values in sorted(tags.items()):
    kind, letter = (4, 'I') if tag in longs else (3, 'H')
    body = struct.pack(f'{order}{len(values)}{letter}', *values)
    if len(body) > 4:
      behind, body = (
        behind + body,
        struct.pack(f'{order}I', start + len(behind)),
      )
    entries += struct.pack(f'{order}HHI', tag, kind, len(values))
    entries += body.ljust(4, b'\0')
  return (
    (b'MM' if big_endian else b'II')
    + struct.pack(f'{order}HI', 42, 8 + len(data))
    + data
    + struct.pack(f'{order}H', len(tags))
    + entries
    + bytes(4)
    + behind
  )
