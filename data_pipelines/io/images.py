"""Reads photographs and masks: the border where PIL becomes arrays."""

import contextlib
import importlib
import io
import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from numbers import Real
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import (
  Image,
  ImageChops,
  PngImagePlugin,
  UnidentifiedImageError,
)

from data_pipelines.io.errors import (
  MissingFileError,
  UserError,
  install_command,
)

JPEG_SUFFIXES = frozenset({'.jpg', '.jpeg', '.jpe', '.jfif'})
IMAGE_SUFFIXES = JPEG_SUFFIXES | {
  *('.png', '.webp', '.tif', '.tiff', '.bmp', '.gif', '.jp2', '.avif')
}

# The only formats opened, by Pillow's names. Some of its others start programs
# (EPS: Ghostscript).
_FORMATS = (
  *('JPEG', 'PNG', 'WEBP', 'TIFF', 'BMP', 'GIF', 'JPEG2000', 'AVIF', 'HEIF'),
)
with contextlib.suppress(ImportError):  # An extra.
  importlib.import_module('pillow_heif').register_heif_opener()
for _plugin in ('Bmp', 'Gif', 'Jpeg', 'Jpeg2K', 'Mpo', 'Tiff', 'WebP', 'Avif'):
  with contextlib.suppress(ImportError):  # Pillow reads AVIF since 11.3.
    importlib.import_module(f'PIL.{_plugin}ImagePlugin')

# EXIF's orientation tag, and the turns that make pixels upright.
_ORIENTATION = 0x0112
_TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
_QUARTER_TURNS = (5, 6, 7, 8)

# Tags of TIFFs.
_BITS, _COMPRESSION, _PHOTOMETRIC, _PLANES = 258, 259, 262, 284

# Share of the wanted size that averaging blocks must leave: as near to an ideal
# filter as a box filter.
_KEPT = 0.95

# Brands of HEIC, at byte 8 of a file. The last two are those of AVIF as well.
_HEIC_BRANDS = (b'hei', b'hev', b'mif1', b'msf1')

_PNG_START = b'\x89PNG\r\n\x1a\n'
_MOST_PROFILE = 32 * 2**20  # Bytes of a colour profile.

# Differences, of 255, that lossy files and rounding make between channels of
# grey and between pixels of one colour.
_GREY_TOLERANCE = 8
_COLOUR_TOLERANCE = 16


class Encoded:
  """An image file's content that is kept elsewhere, read when it is needed.

  Attributes:
    name: Name in errors.
    stamp: Changes when the content does.
    read_bytes: Returns the content.
  """

  def __init__(self, name: str, *, stamp: str, read_bytes: Callable[[], bytes]):
    self.name = name
    self.stamp = stamp
    self.read_bytes = read_bytes

  def __str__(self) -> str:
    return self.name


Source = str | os.PathLike | bytes | Encoded


# Kinds of values whose full foreground may differ from file to file.
SCALED = ('integers', 'wide integers', 'floats')


class Plane(NamedTuple):
  """The values of the one channel that a mask has, as they are stored.

  Attributes:
    values: (h, w), uint8, or another type of integers or floats.
    stored: Kind of storage: one of `SCALED`, or 'one colour' or 'transparency',
      which are in [0, 255].
  """

  values: np.ndarray
  stored: str


def is_image_file(path: Path) -> bool:
  """Returns whether a name ends like an image that this project reads.

  macOS puts a file of attributes, `._a.jpg`, beside `a.jpg` in archives.
  """
  return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(
    '._'
  )


def open_image(source: Source) -> Image.Image:
  """Opens and fully decodes an image, upright as its EXIF tag says.

  Args:
    source: A path, or the content of an image file.

  Returns:
    The image in the mode it is stored in, its EXIF orientation applied.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if the content is not a complete image, or has more pixels
      than twice Pillow's `MAX_IMAGE_PIXELS` (179 million).
  """
  with opened(source) as image:
    return turn_upright(image)


def open_reduced(
  source: Source, *, size: tuple[int, int]
) -> tuple[Image.Image, tuple[int, int]]:
  """Opens an image that will be shrunk, upright, reduced where that is cheap.

  A JPEG is decoded at 1/2, 1/4 or 1/8 of its scale, which averages blocks of
  pixels, as long as 95 % of the size that is asked for are left.

  Args:
    source: Image as `open_image` takes it.
    size: (height, width) that it will be resized to.

  Returns:
    (the image, its own (height, width) before the reduction).

  Raises:
    FileNotFoundError, ValueError: as `open_image`.
  """
  with opened(source) as image:
    upright = _upright_size(image)
    height, width = find_kept(size)
    turned = read_orientation(image) in _QUARTER_TURNS
    image.draft(None, (height, width) if turned else (width, height))
    return turn_upright(image), upright


def find_kept(size: tuple[int, int]) -> tuple[int, int]:
  """Returns the least (height, width) that a JPEG may be decoded at."""
  return math.ceil(size[0] * _KEPT), math.ceil(size[1] * _KEPT)


def read_size(source: Source) -> tuple[int, int]:
  """Returns (height, width) as shown upright, from the file's header alone.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if the header is not that of an image, or promises too much.
  """
  with opened(source) as image:
    return _upright_size(image)


def read_orientation(image: Image.Image) -> int:
  """Returns the EXIF orientation of a file's pixels, 1 where it says nothing.

  A TIFF turns itself while it is decoded; afterwards it is 1.
  """
  try:
    value = image.getexif().get(_ORIENTATION)
  except Exception:  # Pixels are good even with a broken EXIF.
    return 1
  return int(value) if isinstance(value, Real) and value in _TURNS else 1


def turn_upright(image: Image.Image) -> Image.Image:
  """Returns an image, decoded, as its EXIF orientation says; only pixels turn.

  The EXIF data of an image that was turned are not kept: they would turn it
  again. Grey of 16 bits in which 0 is white is inverted, as Pillow does with 8.
  """
  image.load()
  if image.mode.startswith('I;16') and is_white_zero(image):
    image = image.point(lambda value: value * -1 + 65535)
  turn = _TURNS.get(read_orientation(image))
  if turn is None:
    return image
  turned = image.transpose(turn)
  for key in ('exif', 'Raw profile type exif', 'xmp', 'XML:com.adobe.xmp'):
    turned.info.pop(key, None)
  return turned


def is_white_zero(image: Image.Image) -> bool:
  """Returns whether an opened file is a TIFF in which 0 is white."""
  return image.format == 'TIFF' and image.tag_v2.get(_PHOTOMETRIC) == 0  # ty: ignore[missing-attribute] A TIFF has them.


def to_rgb(image: Image.Image) -> Image.Image:
  """Converts any mode to 8-bit RGB; transparency is dropped.

  Grey of more than 8 bits is scaled; floats may reach from 0 to 1, 255 or
  65535.

  Raises:
    UserError: if the values of such grey are not those of a picture.
  """
  if _is_wide(image):
    values = np.asarray(image)
    low, high = find_extremes(values)
    if values.dtype.kind == 'f':
      scale = find_scale(low, high, floats=True)
    elif low < 0 or high > 65535:
      raise UserError(
        f'its grey values are from {low:g} to {high:g}; store them from 0 to '
        '65535'
      )
    else:
      scale = 65535 if high > 255 else 255  # A wide type may hold 8 bits.
    image = Image.fromarray(_to_8_bit(values, scale))
  return image if image.mode == 'RGB' else image.convert('RGB')


def split_opacity(
  image: Image.Image,
) -> tuple[Image.Image, Image.Image | None]:
  """Returns an image's colours, and its opacity (8-bit grey) if it has any."""
  if not image.has_transparency_data:
    return image, None
  if _is_wide(image):
    # One grey value is transparent; Pillow's conversion would cut off at 255.
    opaque = np.asarray(image) != image.info['transparency']
    opacity = Image.fromarray(opaque.astype(np.uint8) * 255)
  else:
    image = image.convert('RGBA')
    opacity = image.getchannel('A')
  return image, None if opacity.getextrema() == (255, 255) else opacity


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
  low, high = find_extremes(plane.values)
  scale = find_scale(low, high, floats=plane.stored == 'floats')
  return _to_8_bit(plane.values, scale)


def find_extremes(values: np.ndarray) -> tuple[float, float]:
  """Returns (smallest, largest) of an image's values, and of 0.

  Raises:
    UserError: if there are infinite values, or such that are no numbers.
  """
  low, high = values.min(initial=0), values.max(initial=0)
  if not (np.isfinite(low) and np.isfinite(high)):
    raise UserError('it has values that are infinite or not numbers')
  return float(low), float(high)


def find_scale(low: float, high: float, *, floats: bool) -> int:
  """Returns the value of full foreground among values from `low` to `high`.

  Of one image or, better, of many.

  Returns:
    1, 255 or 65535.

  Raises:
    UserError: if it is unclear.
  """
  if floats:
    # Interpolation overshoots.
    for scale in (1, 255, 65535):
      least = 0 if scale == 1 else scale / 2
      if -0.1 * scale <= low and least <= high <= 1.1 * scale:
        return scale
    remedy = 'store floats from 0 to 1'
  else:
    if low >= 0 and high <= 255:
      return 1 if high <= 1 else 255
    if low >= 0 and 32768 <= high <= 65535:
      return 65535
    remedy = 'store 8 bits, or all of 16 bits'
  raise UserError(
    f'its values are from {low:g} to {high:g}, an unclear range; {remedy}'
  )


def read_plane(image: Image.Image) -> Plane:
  """Returns the values of a mask in whatever mode it is stored.

  Raises:
    UserError: if it is not clear which values are meant.
  """
  if _is_wide(image):
    values = np.asarray(image)
    is_float = values.dtype.kind == 'f'
    return Plane(values, 'floats' if is_float else 'wide integers')
  if image.mode == 'L':
    return Plane(np.asarray(image), 'integers')
  if image.mode == '1':
    return Plane(np.asarray(image.convert('L')), 'one colour')
  image, opacity = split_opacity(image)
  if opacity is not None:
    _check_transparency(np.asarray(image.convert('RGB')), np.asarray(opacity))
    return Plane(np.asarray(opacity), 'transparency')
  if image.mode == 'P' and not _is_grey(image.getpalette('RGB') or []):
    return _read_classes(image)
  return _read_colours(image.convert('RGB'))


@contextlib.contextmanager
def opened(source: Source) -> Iterator[Image.Image]:
  """Opens an image, not decoded yet; what goes wrong in the block is named.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if it may not be read, is not a complete image, or promises too
      much.
  """
  with named(source):
    content = source.read_bytes() if isinstance(source, Encoded) else source
    content, profile = _shorten_png(content)
    with Image.open(
      io.BytesIO(content) if isinstance(content, bytes) else content,
      formats=[name for name in _FORMATS if name in Image.OPEN],
    ) as image:
      if profile:
        image.info['icc_profile'] = profile
      if not isinstance(image.info.get('xmp', b''), bytes | str):
        del image.info['xmp']  # A TIFF turns itself, and would fail at it.
      if image.format == 'TIFF':
        _check_tiff(image)
      yield image


def find_name(source: Source) -> str:
  """Returns what to call an image in a message."""
  return 'The given bytes' if isinstance(source, bytes) else str(source)


@contextlib.contextmanager
def named(source: Source) -> Iterator[None]:
  """Names the image in whatever goes wrong with its content in the block.

  Decoders raise exceptions of any class on broken files, so nothing but the
  handling of this one image belongs into the block.

  Raises:
    MissingFileError: if there is no such file.
    UserError: if its content cannot be used.
  """
  name = find_name(source)
  try:
    yield
  except UserError as error:
    if name in str(error):
      raise
    raise UserError(f'{name}: {error}.') from error
  except FileNotFoundError as error:
    is_path = not isinstance(source, bytes | Encoded)
    if is_path and Path(source).is_symlink():
      raise MissingFileError(f'{name}: a link to a missing file.') from error
    raise MissingFileError(f'{name}: no such file.') from error
  except Image.DecompressionBombError as error:
    raise UserError(f'{name}: {error} Reduce the image before use.') from error
  except PermissionError as error:
    raise UserError(
      f'{name}: no permission to read it. Allow it (chmod u+r), or leave the '
      'file out.'
    ) from error
  except Exception as error:
    reason = getattr(error, 'strerror', None) or error
    if isinstance(error, UnidentifiedImageError):
      if 'HEIF' not in Image.OPEN and _is_heic(source):
        raise UserError(
          f'{name}: HEIC photos need pillow-heif: {install_command("heic")}.'
        ) from error
      reason = 'not in a known format'  # Pillow's text repeats the name.
    elif isinstance(error, MemoryError):
      reason = 'there is not enough memory for it'
    elif not isinstance(error, OSError | SyntaxError | ValueError):
      reason = f'{type(error).__name__}: {error}'
    raise UserError(
      f'{name}: cannot be read as an image ({reason}). Replace or remove it.'
    ) from error


def _is_heic(source: Source) -> bool:
  """Returns whether a file's first bytes are those of HEIC."""
  if isinstance(source, Encoded):
    source = source.read_bytes()
  if not isinstance(source, bytes):
    with Path(source).open('rb') as file:
      source = file.read(64)
  head = source[:64]
  return (
    head[4:8] == b'ftyp'
    and head[8:].startswith(_HEIC_BRANDS)
    and b'avi' not in head
  )


def _check_tiff(image: Image.Image) -> None:
  """Refuses the forms that Pillow decodes to other values, without a word."""
  tags = image.tag_v2  # ty: ignore[unresolved-attribute] A TIFF has them.
  bits = tags.get(_BITS, (1,))
  if (
    len(bits) > 1
    and max(bits) > 8
    and tags.get(_PLANES) == 2
    and tags.get(_COMPRESSION, 1) == 1
  ):
    raise UserError(
      f'its {max(bits)} bits are stored uncompressed, one plane per channel, '
      'which cannot be read; store the channels interleaved, or as PNG'
    )
  if image.mode == 'F' and is_white_zero(image):
    raise UserError('it has floats in which 0 is white; store 0 as black')


def _upright_size(image: Image.Image) -> tuple[int, int]:
  width, height = image.size
  if image.format == 'TIFF':
    # Pillow turns the size of some, by its version, but not the tag.
    width, height = (image.tag_v2[tag] for tag in (256, 257))  # ty: ignore[missing-attribute] A TIFF has them.
  if read_orientation(image) in _QUARTER_TURNS:
    return width, height
  return height, width


def _is_wide(image: Image.Image) -> bool:
  """Returns whether an image is grey with more than 8 bits."""
  return image.mode.startswith('I') or image.mode == 'F'


def _is_grey(palette: list[int]) -> bool:
  colours = np.asarray(palette).reshape(-1, 3)
  return bool((colours == colours[:, :1]).all())


def _to_8_bit(values: np.ndarray, scale: int) -> np.ndarray:
  if scale == 255 and values.dtype.kind != 'f':
    return values.astype(np.uint8, copy=False)
  scaled = values.astype(np.float32) * np.float32(255 / scale)
  return np.clip(scaled.round(), 0, 255).astype(np.uint8)


def _read_classes(image: Image.Image) -> Plane:
  """Reads a coloured palette: black, and one class besides."""
  palette = np.asarray(image.getpalette('RGB')).reshape(-1, 3)
  used = np.unique(np.asarray(image)).tolist()
  classes = [index for index in used if palette[index].any()]
  if len(classes) > 1:
    raise UserError(
      f'it has the classes {used} in a coloured palette, not a black '
      'background and one foreground'
    )
  values = np.isin(np.asarray(image), classes).astype(np.uint8) * 255
  return Plane(values, 'one colour')


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
  strength = values.max(axis=-1).astype(np.int32)
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
  return Plane((strength * 255 // high).astype(np.uint8), 'one colour')


def _check_transparency(colours: np.ndarray, opacity: np.ndarray) -> None:
  """Checks that the mask is in the transparency, not in the colours.

  Raises:
    UserError: if colours show a mask, or transparency shows nothing.
  """
  is_same = opacity.min() == opacity.max()
  shown = colours if is_same else colours[opacity > 0]
  shown = shown.reshape(-1, 3).astype(np.int16)
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


def _shorten_png(
  content: str | os.PathLike | bytes,
) -> tuple[str | os.PathLike | bytes, bytes | None]:
  """Leaves out what Pillow would refuse a good PNG file for: long texts.

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
  """Decompresses at most `limit` bytes; nothing of what is damaged."""
  try:
    return zlib.decompressobj().decompress(packed, limit)
  except zlib.error:
    return b''


Extent = tuple[float | int, float | int]


def find_blocks(extent: Extent, *, size: tuple[int, int]) -> tuple[int, int]:
  """Returns (width, height) of blocks to average before resizing; 1: none.

  As in JPEG decoding, a power of two in both directions; then, in each, a whole
  number. 95 % of the size that is asked for are left.

  Args:
    extent: (width, height) of the image.
    size: (height, width) that it will be resized to.
  """
  factors = extent[0] / (_KEPT * size[1]), extent[1] / (_KEPT * size[0])
  both = 2 ** int(math.log2(max(1, min(factors))))
  return tuple(both * max(1, int(factor / both)) for factor in factors)


def find_softness(step: float) -> float:
  """Returns how much of each neighbour a pixel takes before it is resized.

  A blur (softness, 1 - 2 softness, softness) followed by linear interpolation
  is as wide as the triangle of an antialiased bilinear filter; at a half and at
  the full size it is that filter. In 32nds, it is 0 where it would be little.

  Args:
    step: Distance between two pixels of the result in pixels of the image, up
      to about 2.
  """
  return round(max(0.0, step**2 - 1) / 12 * 32) / 32


def resize_image(image: Image.Image, *, size: tuple[int, int]) -> Image.Image:
  """Stretches to (height, width), bilinear and without aliasing.

  Args:
    image: Any but a palette image.
    size: (height, width) of the result.
  """
  height, width = size
  return image.resize((width, height), Image.Resampling.BILINEAR)


def resize_input(image: Image.Image, *, size: tuple[int, int]) -> Image.Image:
  """Stretches to the size of a network's input, without aliasing.

  What training computes with OpenCV (`effects.apply_view`) has the same pixels,
  of which prediction has no need.

  Args:
    image: 8-bit grey or RGB.
    size: (height, width) of the result.
  """
  blocks = find_blocks(image.size, size=size)
  pixels = np.asarray(image.reduce(blocks) if max(blocks) > 1 else image)
  for axis, count in enumerate(size):
    step = image.size[1 - axis] / blocks[1 - axis] / count
    pixels = _interpolate(pixels, axis, step, count)
  return Image.fromarray((pixels + np.float32(0.5)).astype(np.uint8))


def _interpolate(
  pixels: np.ndarray, axis: int, step: float, count: int
) -> np.ndarray:
  """Returns softened pixels, `step` apart, as float32."""
  soft = find_softness(step)
  places = (np.arange(count) + 0.5) * step - 0.5
  first = np.floor(places).astype(int)
  shape = [1] * pixels.ndim
  shape[axis] = count
  part = (places - first).astype(np.float32).reshape(shape)
  total = np.zeros((), np.float32)
  for offset, weight in (
    (-1, soft * (1 - part)),
    (0, (1 - 2 * soft) * (1 - part) + soft * part),
    (1, soft * (1 - part) + (1 - 2 * soft) * part),
    (2, soft * part),
  ):
    if weight.any():
      chosen = np.clip(first + offset, 0, pixels.shape[axis] - 1)
      total = total + weight * np.take(pixels, chosen, axis)
  return total
