"""Reads photographs and masks: the border where PIL becomes arrays."""

import contextlib
import dataclasses
import importlib
import io
import math
import os
from collections.abc import Callable, Iterator
from numbers import Real
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from data_pipelines.io import ranges, suffixes, tiff
from data_pipelines.io.errors import (
  MissingFileError,
  TooManyPixelsError,
  UserError,
  install_command,
)

# The only formats opened, by Pillow's names. Some of its others start programs
# (EPS: Ghostscript).
_FORMATS = (
  *('JPEG', 'PNG', 'WEBP', 'TIFF', 'BMP', 'GIF', 'JPEG2000', 'AVIF', 'HEIF'),
)
with contextlib.suppress(ImportError):  # An extra.
  importlib.import_module('pillow_heif').register_heif_opener()
# Where formats are named, Pillow loads its commonest plugins alone.
for _plugin in ('Bmp', 'Gif', 'Jpeg', 'Jpeg2K', 'Mpo', 'Tiff', 'WebP', 'Avif'):
  with contextlib.suppress(ImportError):  # Pillow reads AVIF since 11.3.
    importlib.import_module(f'PIL.{_plugin}ImagePlugin')

# Pillow refuses a PNG with a longer text or colour profile than 1 MiB, which
# some editors write. Of all texts together, 64 MiB stay the limit.
PngImagePlugin.MAX_TEXT_CHUNK = 32 * 2**20  # ty: ignore[invalid-assignment]

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

# Share of the wanted size that averaging blocks must leave: as near to an ideal
# filter as a box filter.
_KEPT = 0.95

# Brands of HEIC, at byte 8 of a file. The last two are those of AVIF as well.
_HEIC_BRANDS = (b'hei', b'hev', b'mif1', b'msf1')


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
  """An image file's content that is kept elsewhere, read when it is needed.

  Attributes:
    name: Name in errors.
    stamp: Changes when the content does.
    read_bytes: Returns the content.
  """

  name: str
  _: dataclasses.KW_ONLY
  stamp: str
  read_bytes: Callable[[], bytes]

  def __str__(self) -> str:
    return self.name


Source = str | os.PathLike | bytes | Encoded


def is_image_file(path: Path) -> bool:
  """Returns whether a name ends like an image that this project reads.

  macOS puts a file of attributes, `._a.jpg`, beside `a.jpg` in archives.
  """
  return path.suffix.lower() in suffixes.IMAGE and not path.name.startswith(
    '._'
  )


def open_image(source: Source) -> Image.Image:
  """Returns an image in its stored mode, decoded, upright as EXIF says.

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
  """Opens an image to shrink, upright; decodes it smaller where that is cheap.

  A JPEG is decoded at 1/2, 1/4 or 1/8 of its scale, which averages blocks of
  pixels, as long as 95 % of the (height, width) that it will be resized to are
  left.

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
  if image.mode.startswith('I;16') and tiff.is_white_zero(image):
    # With 16 bits, Pillow takes a product and a sum, and no other function.
    image = image.point(lambda value: value * -1 + 65535)
  turn = _TURNS.get(read_orientation(image))
  if turn is None:
    return image
  turned = image.transpose(turn)
  for key in ('exif', 'Raw profile type exif', 'xmp', 'XML:com.adobe.xmp'):
    turned.info.pop(key, None)
  return turned


def to_rgb(image: Image.Image) -> Image.Image:
  """Converts any mode to 8-bit RGB; transparency is dropped.

  Grey of more than 8 bits is scaled; floats may reach from 0 to 1, 255 or
  65535.

  Raises:
    UserError: if the values of such grey are not those of a picture.
  """
  if ranges.is_wide(image):
    values = np.asarray(image)
    low, high = ranges.find_extremes(values)
    if values.dtype.kind == 'f':
      scale = ranges.find_scale(low, high, floats=True)
    elif low < 0 or high > 65535:
      raise UserError(
        f'its grey values are from {low:g} to {high:g}; store them from 0 to '
        '65535'
      )
    else:
      scale = 65535 if high > 255 else 255  # A wide type may hold 8 bits.
    image = Image.fromarray(ranges.to_8_bit(values, scale))
  return image if image.mode == 'RGB' else image.convert('RGB')


def split_opacity(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
  """Returns an image's colours, and its opacity (8-bit grey) if it has any."""
  if not image.has_transparency_data:
    return image, None
  if ranges.is_wide(image):
    # One grey value is transparent; Pillow's conversion would cut off at 255.
    opaque = np.asarray(image) != image.info['transparency']
    opacity = Image.fromarray(opaque.astype(np.uint8) * 255)
  else:
    image = image.convert('RGBA')
    opacity = image.getchannel('A')
  return image, None if opacity.getextrema() == (255, 255) else opacity


@contextlib.contextmanager
def opened(source: Source) -> Iterator[Image.Image]:
  """Opens an image without decoding it; errors in the block name it.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if it may not be read, is not a complete image, or promises too
      much.
  """
  with named(source):
    content = source.read_bytes() if isinstance(source, Encoded) else source
    if isinstance(content, bytes):
      content = io.BytesIO(content)
    elif Path(content).is_fifo() or Path(content).is_char_device():
      raise UserError('it is a pipe or a device; save what it gives to a file')
    formats = [name for name in _FORMATS if name in Image.OPEN]
    with Image.open(content, formats=formats) as image:
      if not isinstance(image.info.get('xmp', b''), bytes | str):
        del image.info['xmp']  # A TIFF turns itself, and would fail at it.
      if image.format == 'TIFF':
        tiff.check(image)
      yield image


def find_name(source: Source) -> str:
  """Returns an image's name for a message."""
  return 'The given bytes' if isinstance(source, bytes) else str(source)


@contextlib.contextmanager
def named(source: Source) -> Iterator[None]:
  """Names the image in errors of its content in the block.

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
    # It is named already.
    if name in str(error):
      raise
    raise UserError(f'{name}: {error}.') from error
  except FileNotFoundError as error:
    is_path = not isinstance(source, bytes | Encoded)
    if is_path and Path(source).is_symlink():
      raise MissingFileError(f'{name}: a link to a missing file.') from error
    raise MissingFileError(f'{name}: no such file.') from error
  except Image.DecompressionBombError as error:
    text = f'{name}: {error} Reduce the image before use.'
    raise TooManyPixelsError(text) from error
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


def _upright_size(image: Image.Image) -> tuple[int, int]:
  width, height = image.size
  if image.format == 'TIFF':
    # Pillow turns the size of some, by its version, but not the tags of width
    # and height.
    width, height = (tiff.read_tags(image)[tag] for tag in (256, 257))
  if read_orientation(image) in _QUARTER_TURNS:
    return width, height
  return height, width


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
  """Returns the weight of each neighbour in the blur before resizing.

  A blur (softness, 1 - 2 softness, softness) followed by linear interpolation
  is as wide as the triangle of an antialiased bilinear filter; at a half and at
  the full size it is that filter. In 32nds, it is 0 where it would be little.

  Args:
    step: Distance between two pixels of the result in pixels of the image, up
      to about 2.
  """
  # Variances add up: 1 / 6 of the interpolation and 2 softness of the blur are
  # the triangle's step^2 / 6.
  return round(max(0.0, step**2 - 1) / 12 * 32) / 32


def resize_image(image: Image.Image, *, size: tuple[int, int]) -> Image.Image:
  """Stretches any but a palette image to (height, width), without aliasing."""
  height, width = size
  return image.resize((width, height), Image.Resampling.BILINEAR)


def resize_input(image: Image.Image, *, size: tuple[int, int]) -> Image.Image:
  """Stretches 8-bit grey or RGB to a network's (height, width).

  What training computes with OpenCV, which prediction does not need, has the
  same pixels (`effects.apply_view`).
  """
  blocks = find_blocks(image.size, size=size)
  pixels = np.asarray(image.reduce(blocks) if max(blocks) > 1 else image)
  for axis, count in enumerate(size):
    step = image.size[1 - axis] / blocks[1 - axis] / count
    pixels = _interpolate(pixels, axis, step, count)
  # Half more, since the cast rounds down.
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
  # Blur and interpolation at once: each result has four pixels of the image.
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
