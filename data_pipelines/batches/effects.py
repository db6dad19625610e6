"""Changes single pictures by given numbers, without chance.

Arrays are uint8 in [0, 255]: `image` (h, w, 3) RGB, `alpha` (h, w, 1).
"""

import dataclasses
import io
import math
import types

import cv2
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from data_pipelines.io import images

Photo = UInt8[np.ndarray, 'h w 3']
Alpha = UInt8[np.ndarray, 'h w 1']
Number = float | Float[Array, '']  # Or a number on a device.

_LUMA = np.array([0.299, 0.587, 0.114])
_RGB_TO_YIQ = np.array(
  [_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
  """A crop of a picture, rotated and mirrored.

  Attributes:
    flip: Whether to mirror the result horizontally.
    scale: The part's sides as a share of the picture's, in (0, 1]; lowered
      where a turned part would not fit, so that nothing must be made up.
    angle: Angle by which the content is turned counter-clockwise, in degrees.
    offset: The part's place (down, right) in its range, each in [0, 1].
  """

  flip: bool = False
  scale: float = 1.0
  angle: float = 0.0
  offset: tuple[float, float] = (0.5, 0.5)


def apply_view(
  picture: UInt8[np.ndarray, 'h w ...'],
  view: View,
  *,
  size: tuple[int, int],
  extent: images.Extent | None = None,
) -> UInt8[np.ndarray, 'h2 w2 ...']:
  """Returns the part that a view shows, stretched to (height, width).

  Its own pixels are used, however many there are: a part is cut out before it
  is resized. All of it, level, has the pixels of `images.resize_input`.

  Args:
    picture: Grey or RGB.
    view: The part.
    size: (height, width) of the result.
    extent: (width, height) of the picture, where its last pixels are parts of
      one; None for all of them.
  """
  height, width = size
  cos, sin = np.cos(np.deg2rad(view.angle)), np.sin(np.deg2rad(view.angle))
  # A level rectangle around the turned part, in pixels of the result.
  reach_x = width * abs(cos) + height * abs(sin)
  reach_y = height * abs(cos) + width * abs(sin)
  scale = min(view.scale, width / reach_x, height / reach_y)
  extent = extent or picture.shape[1::-1]
  needed = math.ceil(height / scale), math.ceil(width / scale)
  across, down = images.find_blocks(extent, size=needed)
  # Picture pixels per pixel of the result, if all of it is seen.
  step_x, step_y = extent[0] / across / width, extent[1] / down / height
  pixels = _reduce(picture, across, down)
  pixels = _soften(pixels, scale * step_x, scale * step_y)
  if scale == 1:
    # By factors: by its size, OpenCV would take the last part of a pixel for a
    # whole one.
    seen = cv2.resize(pixels, None, fx=1 / step_x, fy=1 / step_y)
    seen = seen[:height, :width]  # The part of a pixel may have made another.
    return cv2.flip(seen, 1) if view.flip else seen
  # From pixels of the result to pixels of the picture, as OpenCV wants it.
  turn = scale * np.array([[cos, -sin], [sin, cos]])
  if view.flip:
    turn[:, 0] *= -1
  offset = np.array(view.offset[::-1]) - 0.5
  middle = np.array([width, height]) / 2
  centre = middle + offset * (2 * middle - scale * np.array([reach_x, reach_y]))
  # Positions are those of pixels' centres.
  shift = centre + turn @ (0.5 - middle)
  matrix = np.column_stack([turn, shift]) * [[step_x], [step_y]]
  matrix[:, 2] -= 0.5
  return cv2.warpAffine(
    pixels,
    matrix,
    (width, height),
    flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    borderMode=cv2.BORDER_REPLICATE,
  )


def _reduce(
  pixels: UInt8[np.ndarray, 'h w ...'], across: int, down: int
) -> UInt8[np.ndarray, 'h2 w2 ...']:
  """Averages blocks of pixels; those at the edges may be smaller."""
  height, width = pixels.shape[:2]
  if across == down == 1:
    return pixels
  if width % across or height % down:
    return np.asarray(Image.fromarray(pixels).reduce((across, down)))
  return cv2.resize(
    pixels, (width // across, height // down), interpolation=cv2.INTER_AREA
  )


def _soften(
  pixels: UInt8[np.ndarray, 'h w ...'], step_x: float, step_y: float
) -> UInt8[np.ndarray, 'h w ...']:
  """Blurs by the pixels that sampling in steps would skip."""
  right, down = images.find_softness(step_x), images.find_softness(step_y)
  if not (right or down):
    return pixels
  return cv2.sepFilter2D(
    pixels,
    -1,
    np.array([right, 1 - 2 * right, right]),
    np.array([down, 1 - 2 * down, down]),
    borderType=cv2.BORDER_REPLICATE,
  )


def change_color(
  image: Photo,
  *,
  brightness: float,
  contrast: float,
  saturation: float,
  hue: float,
) -> Photo:
  """Changes the light of a photo, as `make_color_matrix` says."""
  matrix = make_color_matrix(brightness, contrast, saturation, hue)
  return cv2.transform(image, np.asarray(matrix))


def make_color_matrix(
  brightness: Number,
  contrast: Number,
  saturation: Number,
  hue: Number,
  *,
  arrays: types.ModuleType = np,
) -> Float[np.ndarray | Array, '3 4']:
  """Returns a change of light as one matrix (3, 4) for (red, green, blue, 1).

  Args:
    brightness: Factor.
    contrast: Factor of the distance to middle grey.
    saturation: Factor of the distance to the pixel's grey.
    hue: Shift of the hue, in turns of the colour circle.
    arrays: `numpy` or `jax.numpy`, for the numbers and the matrix.
  """
  turn = 2 * np.pi * hue
  cos, sin = arrays.cos(turn), arrays.sin(turn)
  rotation = arrays.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
  # In YIQ, hue is an angle and brightness is apart.
  matrix = np.linalg.inv(_RGB_TO_YIQ) @ rotation @ _RGB_TO_YIQ
  to_grey = np.tile(_LUMA, (3, 1))
  matrix = (saturation * np.eye(3) + (1 - saturation) * to_grey) @ matrix
  matrix = matrix * brightness * contrast
  bias = arrays.full((3, 1), 127.5 * (1 - contrast))
  return arrays.concatenate([matrix, bias], axis=1)


def blur(image: Photo, *, radius: float) -> Photo:
  """Blurs with a Gaussian of that standard deviation in pixels."""
  return cv2.GaussianBlur(
    image, (0, 0), radius, borderType=cv2.BORDER_REPLICATE
  )


def add_noise(image: Photo, *, deviation: float, seed: int) -> Photo:
  """Adds Gaussian noise of a standard deviation in grey levels."""
  rng = np.random.default_rng(seed)
  noise = rng.standard_normal(image.shape, np.float32) * np.float32(deviation)
  return np.clip(image + noise + 0.5, 0, 255).astype(np.uint8)


def compress(image: Photo, *, quality: int) -> Photo:
  """Returns a photo after JPEG's compression."""
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


def make_plain_background(
  size: tuple[int, int],
  *,
  colors: Float[np.ndarray, '2 3'],
  angle: float,
) -> Photo:
  """Returns a colour that changes evenly into another, as a studio's wall.

  Args:
    size: (height, width) in pixels.
    colors: Colours at both ends of the photo, RGB in [0, 255].
    angle: Direction from the first to the second, in radians.
  """
  height, width = size
  down, right = np.mgrid[:height, :width] / [[[height]], [[width]]] - 0.5
  # The corners are the farthest that any direction reaches.
  way = 0.5 + (np.cos(angle) * right + np.sin(angle) * down) / math.sqrt(2)
  first, second = colors
  plain = first + way[..., np.newaxis] * (second - first)
  return np.clip(plain + 0.5, 0, 255).astype(np.uint8)


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
  # Pad to even sizes; the doubled edge has weight 0.
  pad = ((0, height % 2), (0, width % 2), (0, 0))
  weight = np.pad(known, pad)
  total = _sum_blocks(np.pad(image, pad) * weight)
  weight = _sum_blocks(weight)
  # One known pixel of four makes the coarser one known.
  coarse = _fill(total / np.maximum(weight, 1e-6), np.minimum(weight, 1))
  enlarged = cv2.resize(coarse, (2 * coarse.shape[1], 2 * coarse.shape[0]))
  enlarged = enlarged[:height, :width]
  return known * image + (1 - known) * enlarged


def _sum_blocks(
  values: Float[np.ndarray, 'h w c'],
) -> Float[np.ndarray, 'h2 w2 c']:
  height, width, channels = values.shape
  blocks = values.reshape(height // 2, 2, width // 2, 2, channels)
  return blocks.sum(axis=(1, 3))
