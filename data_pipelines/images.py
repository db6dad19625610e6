"""Reading photographs and masks: the border where PIL becomes arrays."""

import contextlib
import io
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

IMAGE_SUFFIXES = frozenset(
  {'.jpg', '.jpeg', '.png', '.webp', '.tif', '.tiff', '.bmp', '.gif'}
)

# Of the size that is wanted, what averaging blocks of pixels must leave: with
# this share it is as near to an ideal filter as a box filter is.
_KEPT = 0.95


class Encoded:
  """An image file's content that is kept elsewhere, read when it is needed.

  Attributes:
    name: what errors call it.
    stamp: changes when the content does.
    read_bytes: returns the content.
  """

  def __init__(self, name: str, *, stamp: str, read_bytes: Callable[[], bytes]):
    self.name = name
    self.stamp = stamp
    self.read_bytes = read_bytes

  def __str__(self) -> str:
    return self.name


Source = str | os.PathLike | bytes | Encoded


def is_image_file(path: Path) -> bool:
  """Whether the name ends like that of an image this project reads."""
  return path.suffix.lower() in IMAGE_SUFFIXES


def open_image(source: Source) -> Image.Image:
  """Opens and fully decodes an image, upright as its EXIF tag says.

  Args:
    source: a path, or the content of an image file.

  Returns:
    The image in the mode it is stored in, its EXIF orientation applied.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if the content is not a complete image, or has more pixels
      than twice Pillow's `MAX_IMAGE_PIXELS` (179 million).
  """
  with opened(source) as image:
    image.load()
    return ImageOps.exif_transpose(image)


def open_reduced(
  source: Source, *, size: tuple[int, int]
) -> tuple[Image.Image, tuple[int, int]]:
  """Opens an image that will be shrunk, upright, reduced where that is cheap.

  A JPEG is decoded at 1/2, 1/4 or 1/8 of its scale, which averages blocks of
  pixels, as long as 95 % of the size that is asked for are left.

  Args:
    source: as of `open_image`.
    size: (height, width) that it will be resized to.

  Returns:
    (the image, its own (height, width) before the reduction).

  Raises:
    FileNotFoundError, ValueError: as `open_image`.
  """
  with opened(source) as image:
    upright = _upright_size(image)
    needed = math.ceil(size[1] * _KEPT), math.ceil(size[0] * _KEPT)
    if upright != image.size[::-1]:
      needed = needed[::-1]
    image.draft(None, needed)
    image.load()
    return ImageOps.exif_transpose(image), upright


def read_size(source: Source) -> tuple[int, int]:
  """Returns (height, width) as shown upright, from the file's header alone.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if the header is not that of an image, or promises too much.
  """
  with opened(source) as image:
    return _upright_size(image)


def to_rgb(image: Image.Image) -> Image.Image:
  """Converts any mode to 8-bit RGB; transparency is dropped."""
  if image.mode.startswith('I;16') or image.mode in ('I', 'F'):
    image = Image.fromarray(_grey_to_8_bit(np.asarray(image)))
  return image.convert('RGB')


def to_mask(image: Image.Image) -> Image.Image:
  """Converts a stored mask to 8 bits, 0 for background, 255 for foreground.

  Masks stored as {0, 1} are recognised by their largest value and scaled. In
  a coloured palette one colour besides the first is the foreground. Where only
  the transparency varies, it is the mask.

  Raises:
    ValueError: if a coloured palette has several classes.
  """
  if image.mode == '1':
    return image.convert('L')
  if image.mode == 'P' and 'transparency' not in image.info:
    return _palette_to_mask(image)
  if image.mode in ('LA', 'RGBA'):
    visible = image.convert('L').getextrema()
    if visible[0] == visible[1]:
      return image.getchannel('A')
  if image.mode.startswith('I;16') or image.mode in ('I', 'F'):
    image = Image.fromarray(_grey_to_8_bit(np.asarray(image)))
  image = image.convert('L')
  if image.getextrema()[1] == 1:
    image = image.point(lambda value: value * 255)
  return image


@contextlib.contextmanager
def opened(source: Source) -> Iterator[Image.Image]:
  """Opens an image, not decoded yet; what goes wrong in the block is named.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if it may not be read, is not a complete image, or promises too
      much.
  """
  name = 'The given bytes' if type(source) is bytes else str(source)
  try:
    content = source.read_bytes() if isinstance(source, Encoded) else source
    with Image.open(
      io.BytesIO(content) if isinstance(content, bytes) else content
    ) as image:
      yield image
  except FileNotFoundError:
    raise
  except Image.DecompressionBombError as error:
    raise ValueError(f'{name}: {error} Reduce the image before use.') from error
  except PermissionError as error:
    raise ValueError(
      f'{name}: no permission to read it. Allow it (chmod u+r), or leave the '
      'file out.'
    ) from error
  except (OSError, SyntaxError, ValueError) as error:
    # Pillow raises SyntaxError for broken PNGs, and OSError for most others.
    reason = getattr(error, 'strerror', None) or error
    if isinstance(error, UnidentifiedImageError):
      reason = 'not in a known format'  # Pillow's text repeats the name.
    raise ValueError(
      f'{name}: cannot be read as an image ({reason}). Replace or remove it.'
    ) from error


def _upright_size(image: Image.Image) -> tuple[int, int]:
  width, height = image.size
  # The orientations that turn by a quarter.
  if image.getexif().get(0x0112, 1) in (5, 6, 7, 8):
    return width, height
  return height, width


def _palette_to_mask(image: Image.Image) -> Image.Image:
  used = sorted(index for _, index in image.getcolors())
  colours = np.asarray(image.convert('RGB'))
  if (colours == colours[..., :1]).all():
    return to_mask(image.convert('L'))
  if len(used) > 2 or (len(used) == 2 and used[0]):
    raise ValueError(
      f'it has the classes {used} in a coloured palette, not a background (0) '
      'and one foreground'
    )
  return image.point([0] + [255] * 255, 'L')


def _grey_to_8_bit(values: np.ndarray) -> np.ndarray:
  if values.max(initial=0) <= 255:  # A wide type that holds 8-bit values.
    return values.astype(np.uint8)
  return np.clip(values / 257, 0, 255).round().astype(np.uint8)


def reduce_image(image: Image.Image, *, size: tuple[int, int]) -> Image.Image:
  """Averages blocks of pixels, as far as `open_reduced` does for JPEGs.

  Args:
    image: any but a palette image.
    size: (height, width) that it will be resized to.
  """
  factor = min(
    int(image.width / (_KEPT * size[1])), int(image.height / (_KEPT * size[0]))
  )
  return image.reduce(factor) if factor > 1 else image


def resize_image(
  image: Image.Image,
  *,
  size: tuple[int, int],
  box: tuple[float, float, float, float] | None = None,
) -> Image.Image:
  """Stretches to (height, width), bilinear and without aliasing.

  Args:
    image: any but a palette image.
    size: (height, width) of the result.
    box: the part to take (left, top, right, bottom), in pixels; None for all.
  """
  height, width = size
  return image.resize((width, height), Image.Resampling.BILINEAR, box)
