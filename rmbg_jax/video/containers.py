"""Tells whether a clip's file ends where it should.

FFmpeg plays what is there of a file, and says nothing of the rest. These read
the sizes that its parts give, and not the parts.
"""

import os
import struct
from pathlib import Path
from typing import IO

_PNG = b'\x89PNG\r\n\x1a\n'
_GIF = (b'GIF87a', b'GIF89a')
_MP4 = (b'ftyp', b'moov', b'moof', b'mdat', b'styp', b'wide', b'free', b'skip')
_EBML = b'\x1a\x45\xdf\xa3'
# Elements of Matroska that may not say how long they are: what is in them is
# looked at one by one.
_OPEN = (0x18538067, 0x1F43B675)


def is_cut_off(path: Path) -> bool:
  """Returns whether the file ends before its end; False for unknown formats.

  Raises:
    OSError: if it cannot be read.
  """
  with path.open('rb') as file:
    start = file.read(12)
    file.seek(0)
    size = os.fstat(file.fileno()).st_size
    if start.startswith(_PNG):
      return _is_png_cut(file)
    if start.startswith(_GIF):
      return _is_gif_cut(file)
    if start.startswith(_EBML):
      return _is_matroska_cut(file, size)
    if start[4:8] in _MP4:
      return _is_mp4_cut(file, size)
  return False


def _is_mp4_cut(file: IO[bytes], size: int) -> bool:
  place, last = 0, b''
  while place < size:
    file.seek(place)
    head = file.read(16)
    if len(head) < 8:  # Nothing that means anything.
      break
    length, kind = struct.unpack('>I4s', head[:8])
    if length == 1 and len(head) == 16:  # 64 bits, behind.
      length = struct.unpack('>Q', head[8:])[0]
    if length == 0:  # To the end, as long as it may be.
      return False
    if length < 8:
      return False  # Not what it seems: the decoder will say so.
    place, last = place + length, kind
  # The description of a fragment is followed by its content.
  return place > size or last == b'moof'


def _is_matroska_cut(file: IO[bytes], size: int) -> bool:
  place = 0
  while place < size:
    file.seek(place)
    kind = _read_number(file, keep_mark=True)
    length = _read_number(file, keep_mark=False)
    if kind is None or length is None:
      file.seek(place)
      rest = file.read(16)
      # No element begins here: a header is cut off, or zeros fill the rest.
      return len(rest) < 16 and rest.strip(b'\0') != b''
    place = file.tell()
    if kind not in _OPEN:
      if length < 0:
        return False
      place += length
    elif length >= 0 and place + length > size:
      return True
  return place > size


def _read_number(file: IO[bytes], *, keep_mark: bool) -> int | None:
  """Returns a number of EBML, -1 for an unknown size, None for no number."""
  first = file.read(1)
  if not first or not first[0]:
    return None
  # As many bytes as the first has leading zeros, and itself.
  count = 9 - first[0].bit_length()
  rest = file.read(count - 1)
  if len(rest) < count - 1:
    return None
  number = int.from_bytes(first + rest, 'big')
  if keep_mark:
    return number
  number &= (1 << 7 * count) - 1
  # All bits set: of unknown length.
  return -1 if number == (1 << 7 * count) - 1 else number


def _is_gif_cut(file: IO[bytes]) -> bool:
  # Signature, size of the picture, flags, background, shape of a pixel.
  head = file.read(13)
  if len(head) < 13:
    return True
  _skip_colours(file, head[10])
  while True:
    mark = file.read(1)
    if mark == b';':
      return False
    if mark == b',':
      place = file.read(9)  # Place and size, then flags.
      if len(place) < 9:
        return True
      _skip_colours(file, place[8])
      file.read(1)  # How it is compressed.
    elif mark == b'!':
      file.read(1)  # Its kind.
    else:
      return not mark  # With a mark, it is not what it seems.
    # Blocks of at most 255 bytes, each behind its length; 0 ends them.
    while length := file.read(1):
      if length == b'\0':
        break
      file.seek(length[0], os.SEEK_CUR)


def _skip_colours(file: IO[bytes], flags: int) -> None:
  # The first bit says that there is a table, the last three how large it is.
  if flags & 0x80:
    file.seek(3 * 2 ** ((flags & 7) + 1), os.SEEK_CUR)


def _is_png_cut(file: IO[bytes]) -> bool:
  file.seek(len(_PNG))
  while len(head := file.read(8)) == 8:
    length, kind = struct.unpack('>I4s', head)
    if kind == b'IEND':
      return False
    file.seek(length + 4, os.SEEK_CUR)  # Content and checksum.
  return True
