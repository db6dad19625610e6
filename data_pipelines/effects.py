"""Changes of single pictures, as functions of given numbers: no chance here.

Arrays are uint8 in [0, 255]: `image` (h, w, 3) RGB, `alpha` (h, w, 1).
"""

import io

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageFilter

from data_pipelines import images

Photo = UInt8[np.ndarray, 'h w 3']
Alpha = UInt8[np.ndarray, 'h w 1']

_LUMA = np.array([0.299, 0.587, 0.114])
_RGB_TO_YIQ = np.array(
  [_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]
)


def move_pair(
  image: Photo,
  alpha: Alpha,
  *,
  flip: bool,
  scale: float,
  angle: float,
  offset: tuple[float, float],
) -> tuple[Photo, Alpha]:
  """Cuts the same region out of both and enlarges it to their size.

  Args:
    image: the photo.
    alpha: its mask.
    flip: whether to mirror the result horizontally.
    scale: the region's sides as a share of the image's, in (0, 1]; lowered
      where a turned region would not fit, so that nothing must be made up.
    angle: by which the content is turned counter-clockwise, in degrees.
    offset: the region's place (down, right) in its range, each in [0, 1].
  """
  height, width = image.shape[:2]
  if angle:
    moved = _cut_turned(
      np.concatenate([image, alpha], axis=-1),
      scale=scale,
      angle=angle,
      offset=offset,
    )
    image, alpha = moved[..., :3], moved[..., 3:]
  else:
    crop = max(1, round(height * scale)), max(1, round(width * scale))
    top = round(offset[0] * (height - crop[0]))
    left = round(offset[1] * (width - crop[1]))
    region = (slice(top, top + crop[0]), slice(left, left + crop[1]))
    image = _enlarge(image[region], (height, width))
    alpha = _enlarge(alpha[region], (height, width))
  if flip:
    image, alpha = image[:, ::-1], alpha[:, ::-1]
  return np.ascontiguousarray(image), np.ascontiguousarray(alpha)


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


def _enlarge(
  array: UInt8[np.ndarray, 'h w c'], size: tuple[int, int]
) -> UInt8[np.ndarray, 'h2 w2 c']:
  if array.shape[:2] == size:
    return array
  squeezed = array[..., 0] if array.shape[-1] == 1 else array
  picture = Image.fromarray(np.ascontiguousarray(squeezed))
  return images.resize_image(picture, size=size).reshape(*size, -1)


def _cut_turned(
  array: UInt8[np.ndarray, 'h w 4'],
  *,
  scale: float,
  angle: float,
  offset: tuple[float, float],
) -> UInt8[np.ndarray, 'h w 4']:
  height, width = array.shape[:2]
  # Four bands in one pass. As CMYK: Pillow would multiply RGB by an A.
  picture = Image.frombuffer(
    'CMYK', (width, height), array, 'raw', 'CMYK', 0, 1
  )
  cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
  reach_x = width * abs(cos) + height * abs(sin)  # Of the turned whole.
  reach_y = height * abs(cos) + width * abs(sin)
  # A hair smaller: rounding must not reach beyond the edge.
  scale = min(scale, (1 - 1e-6) * min(width / reach_x, height / reach_y))
  centre_x = width / 2 + (offset[1] - 0.5) * (width - scale * reach_x)
  centre_y = height / 2 + (offset[0] - 0.5) * (height - scale * reach_y)
  a, b, d, e = scale * cos, -scale * sin, scale * sin, scale * cos
  c = centre_x - a * width / 2 - b * height / 2
  f = centre_y - d * width / 2 - e * height / 2
  turned = picture.transform(
    picture.size,
    Image.Transform.AFFINE,
    (a, b, c, d, e, f),
    Image.Resampling.BILINEAR,
  )
  return np.asarray(turned)


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
  )[:height, :width]
  return known * image + (1 - known) * enlarged


def _sum_blocks(
  values: Float[np.ndarray, 'h w c'],
) -> Float[np.ndarray, 'h2 w2 c']:
  height, width, channels = values.shape
  blocks = values.reshape(height // 2, 2, width // 2, 2, channels)
  return blocks.sum(axis=(1, 3))
