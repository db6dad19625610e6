"""Reads photographs of any kind, with depth, colours and transparency.

The network sees 8-bit RGB. What is written later has the photo's own bits,
colours and profile, so these are kept beside it, and what cannot be kept is
said in words.
"""

import dataclasses
import importlib
import io
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageCms

from data_pipelines.io import errors, images, tiff
from rmbg_jax import choices

# A path, the content of an image file (here or elsewhere), a PIL image, or an
# array of uint8 in [0, 255]: grey (h, w), RGB (h, w, 3) or RGBA (h, w, 4).
ImageLike = images.Source | Image.Image | np.ndarray

# Meanings of a TIFF's fourth sample.
_PREMULTIPLIED, _STRAIGHT = (1,), (2,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Photo:
  """A photograph, upright.

  Attributes:
    rgb: The colours, 8 bits each.
    deep: The colours as uint16 (h, w, 3) where the file has 16 bits each.
    opacity: An 8-bit grey image where the file has transparency.
    icc_profile: ICC profile of the colours, None for sRGB.
    notes: Sentences about what is not kept of the file.
  """

  rgb: Image.Image
  deep: np.ndarray | None = None
  opacity: Image.Image | None = None
  icc_profile: bytes | None = None
  notes: tuple[str, ...] = ()

  @property
  def seen(self) -> Image.Image:
    """The photo as the network sees it: transparent parts are white.

    Editors leave any colours behind transparency, often black.
    """
    if self.opacity is None:
      return self.rgb
    white = Image.new('RGB', self.rgb.size, 'white')
    return Image.composite(self.rgb, white, self.opacity)

  @property
  def opacity_values(self) -> UInt8[np.ndarray, 'h w'] | None:
    """The opacity as an array, None where the file has no transparency."""
    return None if self.opacity is None else np.asarray(self.opacity)

  def convert_colours(self, icc_profile: bytes | None) -> Image.Image:
    """Returns the photo as it is seen, as values of another colour space.

    With a profile that cannot be used, the values stay as they are.

    Args:
      icc_profile: ICC profile of RGB values, None for sRGB.
    """
    seen = self.seen
    if self.icc_profile == icc_profile:
      return seen
    return _change_profile(seen, self.icc_profile, icc_profile) or seen

  def hide_transparent(
    self, alpha: Float[np.ndarray, 'h w']
  ) -> Float[np.ndarray, 'h w']:
    """Returns alpha times the photo's own opacity."""
    if self.opacity is None:
      return alpha
    return alpha * (np.asarray(self.opacity, np.float32) / 255)


def read_photo(
  source: ImageLike, *, max_pixels: int = choices.MAX_PIXELS
) -> Photo:
  """Reads a photo, upright as its EXIF tag says.

  Args:
    source: See `ImageLike`.
    max_pixels: Files with more are refused before they are decoded.

  Raises:
    MissingFileError: if there is no such file.
    UserError: if it is not a complete image, too large, or an array of another
      form.
  """
  if isinstance(source, np.ndarray):
    return _convert(_from_array(source))
  if isinstance(source, Image.Image):
    with images.named('The given image'):  # Pillow reads a file late.
      return _convert(source)
  height, width = images.read_size(source)
  if width * height > max_pixels:
    raise errors.TooManyPixelsError(
      f'{images.find_name(source)}: {width}x{height} are more pixels than the '
      f'limit of {max_pixels}. Reduce the photo, or raise max_pixels if there '
      'is memory for it.'
    )
  notes = []
  with images.opened(source) as image:
    # An MPO is a camera's JPEG with previews or a second view behind it.
    if image.format != 'MPO' and getattr(image, 'is_animated', False):
      notes.append(f'the first of {getattr(image, "n_frames", 1)} pictures')
    read = _read_16_bits(source, image) if _has_16_bits(image) else None
    if isinstance(read, str):
      notes.append(read)
    photo = read if isinstance(read, Photo) else _convert(image)
  return dataclasses.replace(photo, notes=(*notes, *photo.notes))


def convert_colour(
  colour: tuple[int, ...], icc_profile: bytes | None
) -> tuple[int, ...]:
  """Returns an sRGB colour as values of the profile's colour space."""
  pixel = Photo(rgb=Image.new('RGB', (1, 1), colour))
  return pixel.convert_colours(icc_profile).getpixel((0, 0))  # ty: ignore[invalid-explicit-return] RGB has three.


def _from_array(array: np.ndarray) -> Image.Image:
  shape_is_right = array.ndim == 2 or (
    array.ndim == 3 and array.shape[2] in (3, 4)
  )
  if array.dtype != np.uint8 or not shape_is_right or not array.size:
    raise errors.UserError(
      'Expected an array of uint8 in [0, 255], grey (h, w), RGB (h, w, 3) or '
      f'RGBA (h, w, 4); got {array.shape} of {array.dtype}.'
    )
  return Image.fromarray(array)


def _convert(image: Image.Image) -> Photo:
  """Turns an image upright and separates colours, profile and opacity."""
  profile = image.info.get('icc_profile')
  image, opacity = images.split_opacity(images.turn_upright(image))
  notes = ()
  if profile and not _is_rgb(profile):  # RGB cannot carry it on.
    converted = _change_profile(image, profile, None)
    if converted is None:
      notes = ('its ICC profile cannot be used and was left out',)
    image, profile = converted or image, None
  return Photo(
    rgb=images.to_rgb(image), opacity=opacity, icc_profile=profile, notes=notes
  )


def _change_profile(
  image: Image.Image, old: bytes | None, new: bytes | None
) -> Image.Image | None:
  """Converts to RGB of a profile; returns None if one cannot be used."""
  try:
    return ImageCms.profileToProfile(
      image, _open_profile(old), _open_profile(new), outputMode='RGB'
    )
  except (ImageCms.PyCMSError, OSError, ValueError):
    return None


def _open_profile(profile: bytes | None) -> ImageCms.ImageCmsProfile:
  if profile is None:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB'))
  return ImageCms.ImageCmsProfile(io.BytesIO(profile))


def _has_16_bits(image: Image.Image) -> bool:
  if image.mode.startswith('I;16'):
    return True
  if image.format == 'PNG':  # Pillow's decoder is told how the bits lie.
    return any(';16' in str(tile[3]) for tile in image.tile)  # ty: ignore[missing-attribute] An open file has it.
  if image.format == 'TIFF':
    return max(tiff.read_tags(image).get(tiff.BITS, (8,))) == 16
  return False


def _read_16_bits(source: images.Source, image: Image.Image) -> Photo | str:
  """Reads colours and transparency with OpenCV, which keeps 16 bits.

  Args:
    source: The file.
    image: The file as Pillow opened it, not decoded yet.

  Returns:
    The photo, or a note that says why Pillow has to read it, in 8 bits.
  """
  reduced = 'reduced from 16 to 8 bits'
  profile = image.info.get('icc_profile')
  if profile and not _is_rgb(profile):
    return f'{reduced} to convert its colours'
  if not _is_plain(image):
    return reduced
  try:
    # Not at the top: it takes a tenth of a second, which few files need.
    cv2 = importlib.import_module('cv2')
  except ImportError:
    return f'{reduced}; to keep them: {errors.install_command("deep")}'
  if isinstance(source, images.Encoded):
    source = source.read_bytes()
  content = source if isinstance(source, bytes) else Path(source).read_bytes()
  array = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
  if array is None or array.dtype != np.uint16:
    return reduced
  opacity = None
  is_grey = array.ndim == 2
  if is_grey:
    if tiff.is_white_zero(image):
      array = 65535 - array
    if 'transparency' in image.info:
      # Grey PNGs may name one value that is transparent.
      opaque = array != image.info['transparency']
      opacity = np.where(opaque, np.uint16(65535), np.uint16(0))
    array = np.repeat(array[..., None], 3, axis=2)
  elif array.shape[2] == 4:
    opacity = array[..., 3]
  array = array[..., 2::-1]  # From BGR or BGRA.
  if image.format == 'TIFF':  # OpenCV turns these upright itself.
    extra = tiff.read_tags(image).get(tiff.EXTRA_SAMPLES, ())
    if opacity is not None and extra == _PREMULTIPLIED:
      # Colours are stored times opacity: divide, and round.
      share = np.maximum(opacity, 1)[..., None] / np.float32(65535)
      array = np.minimum(array / share + np.float32(0.5), 65535)
      array = array.astype(np.uint16)
    elif extra != _STRAIGHT:
      opacity = None  # Unspecified samples are no opacity.
  else:
    turn = images.read_orientation(image)
    array = _turn(array, turn)
    opacity = None if opacity is None else _turn(opacity, turn)
  # OpenCV takes no views with reversed axes.
  array = np.ascontiguousarray(array)
  if opacity is not None:
    # 65535 / 255 = 257
    opacity = cv2.convertScaleAbs(np.ascontiguousarray(opacity), alpha=1 / 257)
    opacity = None if opacity.min() == 255 else Image.fromarray(opacity)
  # Grey of a wide type may hold 8 bits.
  wide = not is_grey or array.max() > 255
  return Photo(
    rgb=Image.fromarray(
      cv2.convertScaleAbs(array, alpha=1 / 257 if wide else 1)
    ),
    deep=array if wide else None,
    opacity=opacity,
    icc_profile=profile,
  )


def _is_plain(image: Image.Image) -> bool:
  """Returns whether OpenCV decodes a 16-bit file to the values meant."""
  if image.format != 'TIFF':
    return True
  tags = tiff.read_tags(image)
  samples = tags.get(tiff.SAMPLES, 1)
  # (How colours are meant, number of their samples): grey from white or from
  # black, or RGB.
  form = (
    tags.get(tiff.PHOTOMETRIC),
    samples - len(tags.get(tiff.EXTRA_SAMPLES, ())),
  )
  return (
    form in ((0, 1), (1, 1), (2, 3))
    and samples in (1, 3, 4)
    and set(tags.get(tiff.SAMPLE_FORMAT, (1,))) == {1}  # Unsigned integers.
    and (samples == 1 or tags.get(tiff.PLANES, 1) == 1)  # Not by planes.
  )


def _turn(array: np.ndarray, orientation: int) -> np.ndarray:
  """Returns pixels (h, w, ...) upright, by their EXIF orientation."""
  if orientation in (5, 6, 7, 8):
    array = array.swapaxes(0, 1)
  if orientation in (3, 4, 7, 8):
    array = array[::-1]
  return array[:, ::-1] if orientation in (2, 3, 6, 7) else array


def _is_rgb(profile: bytes) -> bool:
  # Bytes 16 to 19 of a profile name the colours that it is for.
  return profile[16:20] == b'RGB '
