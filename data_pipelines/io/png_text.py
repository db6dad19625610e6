"""Removes long texts from PNGs: Pillow refuses the whole file for them."""

import io
import os
import struct
import zlib
from pathlib import Path

from PIL import PngImagePlugin

from data_pipelines.io.errors import UserError

_PNG_START = b'\x89PNG\r\n\x1a\n'
_MOST_PROFILE = 32 * 2**20  # Bytes of a colour profile.


def shorten(
  content: str | os.PathLike | bytes,
) -> tuple[str | os.PathLike | bytes, bytes | None]:
  """Removes the long texts of a PNG, for which Pillow refuses it.

  Returns:
    (what to open; a colour profile that is too long for Pillow, or None).
  """
  if not isinstance(content, bytes) and (
    Path(content).is_fifo() or Path(content).is_char_device()
  ):
    raise UserError('it is a pipe or a device; save what it gives to a file')
  with (
    io.BytesIO(content)
    if isinstance(content, bytes)
    else Path(content).open('rb')
  ) as file:
    if file.read(8) != _PNG_START:
      return content, None
    left_out, profile = _find_long_chunks(file)
    if not left_out:
      return content, None
    parts, position = [], 0
    for start, end in left_out:
      file.seek(position)
      parts.append(file.read(start - position))
      position = end
    file.seek(position)
    return b''.join([*parts, file.read()]), profile


def _find_long_chunks(
  file: io.BufferedIOBase,
) -> tuple[list[tuple[int, int]], bytes | None]:
  """Returns (start, end) of a PNG's long texts, and its profile if long."""
  left_out, profile, total = [], None, 0
  most = PngImagePlugin.MAX_TEXT_CHUNK
  while len(head := file.read(8)) == 8:
    length, kind = struct.unpack('>I4s', head)
    start = file.tell() - 8
    end = start + length + 12
    if kind in (b'tEXt', b'zTXt', b'iTXt', b'iCCP'):
      body = file.read(length)
      packed = _find_packed(kind, body)
      is_profile = kind == b'iCCP'
      limit = _MOST_PROFILE if is_profile else most
      text = body if packed is None else _unpack(packed, limit)
      total += 0 if is_profile else len(text)
      if is_profile and most <= len(text) < limit:
        profile = text
        left_out.append((start, end))
      elif not is_profile and (
        (packed is not None and len(text) >= most)
        or total > PngImagePlugin.MAX_TEXT_MEMORY
      ):
        left_out.append((start, end))
    file.seek(end)
  return left_out, profile


def _find_packed(kind: bytes, body: bytes) -> bytes | None:
  """Returns the compressed part of a PNG's text or profile, None if none."""
  _, _, rest = body.partition(b'\0')
  if kind in (b'zTXt', b'iCCP'):
    return rest[1:]
  if kind == b'iTXt' and rest[:1] == b'\1':
    return rest[2:].split(b'\0', 2)[-1]
  return None


def _unpack(packed: bytes, limit: int) -> bytes:
  """Decompresses at most `limit` bytes; b'' of damaged ones."""
  try:
    return zlib.decompressobj().decompress(packed, limit)
  except zlib.error:
    return b''
