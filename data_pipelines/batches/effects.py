"""Changes of single pictures, as functions of given numbers: no chance here.

Arrays are uint8 in [0, 255]: `image` (h, w, 3) RGB, `alpha` (h, w, 1).
"""

import dataclasses
import io
import math

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageFilter

from data_pipelines.io import images

Photo = UInt8[np.ndarray, 'h w 3']
Alpha = UInt8[np.ndarray, 'h w 1']

_LUMA = np.array([0.299, 0.587, 0.114])
_RGB_TO_YIQ = np.array(
  [_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
  """A crop of a picture, rotated and mirrored.

  Attributes:
    flip: whether to mirror the result horizontally.
    scale: the part's sides as a share of the picture's, in (0, 1]; lowered
      where a turned part would not fit, so that nothing must be made up.
    angle: by which the content is turned counter-clockwise, in degrees.
    offset: the part's place (down, right) in its range, each in [0, 1].
  """

  flip: bool = False
  scale: float = 1.0
  angle: float = 0.0
  offset: tuple[float, float] = (0.5, 0.5)


def look(
  picture: Image.Image, view: View, *, size: tuple[int, int]
) -> UInt8[np.ndarray, 'h w ...']:
  """Returns what is seen of a picture that is stretched to (height, width).

  Its own pixels are used, however many there are: a part is cut out before it
  is resized.
  """
  height, width = size
  cos, sin = np.cos(np.deg2rad(view.angle)), np.sin(np.deg2rad(view.angle))
  # A level rectangle around the turned part, in pixels of the result.
  reach_x = width * abs(cos) + height * abs(sin)
  reach_y = height * abs(cos) + width * abs(sin)
  scale = min(view.scale, width / reach_x, height / reach_y)
  # Rounded, they can be a hair above 1: beyond the picture's edge.
  share_x = min(1.0, scale * reach_x / width)
  share_y = min(1.0, scale * reach_y / height)
  left = view.offset[1] * (1 - share_x) * picture.width
  top = view.offset[0] * (1 - share_y) * picture.height
  box = (
    left,
    top,
    min(left + share_x * picture.width, picture.width),
    min(top + share_y * picture.height, picture.height),
  )
  around = math.ceil(reach_y), math.ceil(reach_x)
  seen = images.resize_image(picture, size=around, box=box)
  if view.angle:
    stretch_x, stretch_y = around[1] / reach_x, around[0] / reach_y
    a, b = stretch_x * cos, -stretch_x * sin
    d, e = stretch_y * sin, stretch_y * cos
    # A hair smaller: rounding must not reach beyond the edge.
    a, b, d, e = ((1 - 1e-6) * number for number in (a, b, d, e))
    c = (around[1] - a * width - b * height) / 2
    f = (around[0] - d * width - e * height) / 2
    seen = seen.transform(
      (width, height),
      Image.Transform.AFFINE,
      (a, b, c, d, e, f),
      Image.Resampling.BILINEAR,
    )
  if view.flip:
    seen = seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
  return np.asarray(seen)


def change_color(
  image: Photo,
  *,
  brightness: float,
  contrast: float,
  saturation: float,
  hue: float,
) -> Photo:
  """Changes the light of a photo; one matrix does it all.

  Args:
    image: the photo.
    brightness: factor.
    contrast: factor of the distance to middle grey.
    saturation: factor of the distance to the pixel's grey.
    hue: in turns of the colour circle.
  """
  turn = 2 * np.pi * hue
  cos, sin = np.cos(turn), np.sin(turn)
  rotation = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
  matrix = np.linalg.inv(_RGB_TO_YIQ) @ rotation @ _RGB_TO_YIQ
  to_grey = np.tile(_LUMA, (3, 1))
  matrix = (saturation * np.eye(3) + (1 - saturation) * to_grey) @ matrix
  matrix = matrix * brightness * contrast
  bias = np.full((3, 1), 127.5 * (1 - contrast))
  rows = np.concatenate([matrix, bias], axis=1)
  changed = Image.fromarray(image).convert('RGB', tuple(rows.ravel().tolist()))
  return np.asarray(changed)


def blur(image: Photo, *, radius: float) -> Photo:
  """Blurs with a Gaussian of that standard deviation in pixels."""
  blurred = Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius))
  return np.asarray(blurred)


def add_noise(image: Photo, *, deviation: float, seed: int) -> Photo:
  """Adds Gaussian noise of a standard deviation in grey levels."""
  rng = np.random.default_rng(seed)
  noise = rng.standard_normal(image.shape, np.float32) * np.float32(deviation)
  return np.clip(image + noise + 0.5, 0, 255).astype(np.uint8)


def compress(image: Photo, *, quality: int) -> Photo:
  """Returns what is left of a photo after JPEG's compression."""
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, 'jpeg', quality=quality)
  return np.asarray(images.open_image(buffer.getvalue()))


def replace_background(image: Photo, alpha: Alpha, background: Photo) -> Photo:
  """Puts a photo's foreground before another background of its size.

  A pixel is image = alpha foreground + (1 - alpha) old background; so adding
  (1 - alpha) (new - old background) needs no estimate of the foreground, and
  leaves no rim of the old background's colour in hair.
  """
  share = 1 - alpha.astype(np.float32) / 255
  old = fill_foreground(image, alpha).astype(np.float32)
  changed = image + share * (background - old)
  return np.clip(changed + 0.5, 0, 255).astype(np.uint8)


def fill_foreground(image: Photo, alpha: Alpha) -> Photo:
  """Returns the background, continued smoothly under the foreground."""
  # Mixed pixels say little about the background's own colour.
  known = np.maximum(1 - alpha.astype(np.float32) / 16, 0)
  filled = _fill(image.astype(np.float32), known)
  return np.clip(filled + 0.5, 0, 255).astype(np.uint8)


def _fill(
  image: Float[np.ndarray, 'h w 3'], known: Float[np.ndarray, 'h w 1']
) -> Float[np.ndarray, 'h w 3']:
  """Fills what is not known from a picture of half the size, recursively."""
  height, width = image.shape[:2]
  if known.min() == 1 or height == width == 1:
    return image
  # To even sizes; the doubled edge has no weight of its own.
  pad = ((0, height % 2), (0, width % 2), (0, 0))
  weight = np.pad(known, pad)
  total = _sum_blocks(np.pad(image, pad) * weight)
  weight = _sum_blocks(weight)
  coarse = _fill(total / np.maximum(weight, 1e-6), np.minimum(weight, 1))
  enlarged = images.resize_image(
    Image.fromarray(coarse.astype(np.uint8)),
    size=(2 * coarse.shape[0], 2 * coarse.shape[1]),
  )
  enlarged = np.asarray(enlarged)[:height, :width]
  return known * image + (1 - known) * enlarged


def _sum_blocks(
  values: Float[np.ndarray, 'h w c'],
) -> Float[np.ndarray, 'h2 w2 c']:
  height, width, channels = values.shape
  blocks = values.reshape(height // 2, 2, width // 2, 2, channels)
  return blocks.sum(axis=(1, 3))
