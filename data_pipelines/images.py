"""Reading photographs and masks: the border where PIL becomes arrays."""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

IMAGE_SUFFIXES = frozenset(
  {'.jpg', '.jpeg', '.png', '.webp', '.tif', '.tiff', '.bmp', '.gif'}
)


def is_image_file(path: Path) -> bool:
  """Whether the name ends like that of an image this project reads."""
  return path.suffix.lower() in IMAGE_SUFFIXES


def open_image(source: str | os.PathLike | bytes) -> Image.Image:
  """Opens and fully decodes an image, upright as its EXIF tag says.

  Args:
    source: a path, or the content of an image file.

  Returns:
    The image in the mode it is stored in, its EXIF orientation applied.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if the content is not a complete image.
  """
  with opened(source) as image:
    image.load()
    return ImageOps.exif_transpose(image)


def read_size(source: str | os.PathLike | bytes) -> tuple[int, int]:
  """Returns (height, width) as shown upright, from the file's header alone.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if the header is not that of an image.
  """
  with opened(source) as image:
    width, height = image.size
    orientation = image.getexif().get(0x0112, 1)
  if orientation in (5, 6, 7, 8):  # The ones that turn by a quarter.
    return width, height
  return height, width


def to_rgb(image: Image.Image) -> Image.Image:
  """Converts any mode to 8-bit RGB; transparency is dropped."""
  if image.mode.startswith('I;16') or image.mode in ('I', 'F'):
    image = Image.fromarray(_grey_to_8_bit(np.asarray(image)))
  return image.convert('RGB')


def to_mask(image: Image.Image) -> Image.Image:
  """Converts a stored mask to 8 bits, 0 for background, 255 for foreground.

  Masks stored as {0, 1} are recognised by their largest value and scaled.
  """
  if image.mode == '1':
    return image.convert('L')
  if image.mode.startswith('I;16') or image.mode in ('I', 'F'):
    image = Image.fromarray(_grey_to_8_bit(np.asarray(image)))
  image = image.convert('L')
  if image.getextrema()[1] == 1:
    image = image.point(lambda value: value * 255)
  return image


@contextlib.contextmanager
def opened(source: str | os.PathLike | bytes) -> Iterator[Image.Image]:
  """Opens an image, not decoded yet; what goes wrong in the block is named.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if the content is not a complete image.
  """
  name = 'The given bytes' if isinstance(source, bytes) else str(source)
  try:
    with Image.open(
      io.BytesIO(source) if isinstance(source, bytes) else source
    ) as image:
      yield image
  except FileNotFoundError:
    raise
  except Image.DecompressionBombError as error:
    raise ValueError(f'{name}: {error} Reduce the image before use.') from error
  except (OSError, SyntaxError, ValueError) as error:
    # Pillow raises SyntaxError for broken PNGs, and OSError for most others.
    raise ValueError(
      f'{name}: cannot be read as an image ({error}). Replace or remove it.'
    ) from error


def _grey_to_8_bit(values: np.ndarray) -> np.ndarray:
  if values.max(initial=0) <= 255:  # A wide type that holds 8-bit values.
    return values.astype(np.uint8)
  return np.clip(values / 257, 0, 255).round().astype(np.uint8)


def resize_image(
  image: Image.Image, *, size: tuple[int, int]
) -> UInt8[np.ndarray, 'h w ...']:
  """Stretches to (height, width), bilinear and without aliasing."""
  height, width = size
  if image.size != (width, height):
    image = image.resize((width, height), Image.Resampling.BILINEAR)
  return np.asarray(image)
