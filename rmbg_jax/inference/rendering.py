"""Makes the pictures that are saved from a photo and its alpha."""

import dataclasses
import functools
import io
import os
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Shaped, UInt8, UInt16
from PIL import Image, ImageColor, ImageOps

from data_pipelines.io import errors
from rmbg_jax import choices
from rmbg_jax.inference import foreground, photos, png

_SUFFIXES = {'png': '.png', 'webp': '.webp', 'jpeg': '.jpg'}
# The longest side in pixels, where there is a limit: WebP has 14 bits for it,
# libjpeg a constant.
_LONGEST_SIDES = {'webp': 16_383, 'jpeg': 65_500}
# Kinds whose values count: no format may change them.
_LABELS = ('mask', 'trimap')
# These have the foreground's own colours.
_ESTIMATED = {'cutout', 'composite', 'foreground'}
# Trimaps: alpha from which, and up to which, a pixel is decided.
_SURE, _GONE = 0.95, 0.05
# Overlays: colour and share of the background's tint.
_TINT, _TINT_SHARE = (255, 0, 80), 0.6
_WIDEST_TRIMAP = 1000
_SPREAD_SIDE = 256  # Pixels: foregrounds are continued at this size.
# Blended at once, so that few of their numbers are in memory.
_ROWS = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class Style:
  """The look of results.

  Attributes:
    format: Format of the files; masks and trimaps are lossless, so with 'jpeg'
      they are PNG.
    quality: Quality of WebP and JPEG, 1 to 100.
    background: Background of composites: '#rrggbb' or a colour's name, the path
      of a picture, or 'blur' for the photo's own, blurred.
    estimate_foreground: Replace the colours of half-transparent pixels by the
      foreground's own.
    trim: Cut cut-outs and composites to the foreground.
    trimap_width: Pixels by which a trimap's unknown band reaches to either side
      beyond what alpha leaves undecided.
  """

  format: str = 'png'
  quality: int = 95
  background: str = ''
  estimate_foreground: bool = True
  trim: bool = False
  trimap_width: int = 10

  def __post_init__(self):
    if self.format not in choices.FORMATS:
      raise errors.UserError(
        f'--format={self.format}: choose one of {", ".join(choices.FORMATS)}.'
      )
    if not 1 <= self.quality <= 100:
      raise errors.UserError(f'--quality={self.quality}: choose 1 to 100.')
    if not 0 <= self.trimap_width <= _WIDEST_TRIMAP:
      raise errors.UserError(
        f'--trimap_width={self.trimap_width}: choose 0 to {_WIDEST_TRIMAP} '
        'pixels.'
      )
    if self.background not in ('', 'blur'):
      _load_background(self.background)

  def suffix(self, kind: str) -> str:
    """Returns the file name's ending of a kind of result."""
    return _SUFFIXES['png' if self._lossless(kind) else self.format]

  def check_kinds(self, kinds: tuple[str, ...]) -> None:
    """Checks that these kinds can be made in this style.

    Raises:
      UserError: naming the flag to change.
    """
    unknown = [kind for kind in kinds if kind not in choices.KINDS]
    if unknown or not kinds:
      raise errors.UserError(
        f'--save={",".join(kinds)}: choose from {", ".join(choices.KINDS)}.'
      )
    if 'foreground' in kinds and not self.estimate_foreground:
      raise errors.UserError(
        '--save=foreground is what --noestimate_foreground leaves out. Pass '
        'one of them.'
      )
    if self.background:
      jpeg_cutout = 'cutout' in kinds and self.format == 'jpeg'
      if 'composite' not in kinds and not jpeg_cutout:
        raise errors.UserError(
          f'--background={self.background} changes nothing in '
          f'--save={",".join(kinds)}. Add composite (--save=composite), or '
          'leave out --background.'
        )
      return
    if 'composite' in kinds:
      raise errors.UserError(
        '--save=composite needs --background: a colour (#rrggbb), the path of '
        'a picture, or blur.'
      )
    if 'cutout' in kinds and self.format == 'jpeg':
      raise errors.UserError(
        'JPEG has no transparency, so cut-outs need a --background (such as '
        '#ffffff) with --format=jpeg. Or choose png or webp.'
      )

  def render(
    self,
    photo: photos.Photo,
    alpha: Float[np.ndarray, 'h w'],
    kinds: tuple[str, ...],
  ) -> dict[str, bytes]:
    """Returns the encoded files of those kinds of results.

    Raises:
      UserError: if one is too large for its format.
    """
    colours = self.find_colours(photo, alpha, kinds)
    return {kind: self.encode(kind, photo, alpha, colours) for kind in kinds}

  def find_colours(
    self,
    photo: photos.Photo,
    alpha: Float[np.ndarray, 'h w'],
    kinds: tuple[str, ...],
  ) -> Shaped[np.ndarray, 'h w 3']:
    """Returns the colours that results of those kinds are made from."""
    # Of the formats, PNG alone has 16 bits.
    deep = photo.deep is not None and self.format == 'png'
    pixels = photo.deep if deep else np.asarray(photo.rgb)
    if self.estimate_foreground and _ESTIMATED & set(kinds):
      return foreground.estimate_foreground(pixels, alpha, photo.opacity_values)
    return pixels

  def encode(
    self,
    kind: str,
    photo: photos.Photo,
    alpha: Float[np.ndarray, 'h w'],
    colours: Shaped[np.ndarray, 'h w 3'],
  ) -> bytes:
    """Returns the encoded file of one kind.

    Args:
      kind: Kind to encode.
      photo: The photo.
      alpha: Its foreground's share.
      colours: Colours that `find_colours` returned.

    Raises:
      UserError: if it is too large for its format.
    """
    # Values of labels are no colours: a profile would have them converted.
    profile = None if kind in _LABELS else photo.icc_profile
    pixels = self.draw(kind, photo, alpha, colours)
    if self._lossless(kind):
      return png.encode(pixels, icc_profile=profile)
    return self._to_file(Image.fromarray(pixels), kind, profile)

  def draw(
    self,
    kind: str,
    photo: photos.Photo,
    alpha: Float[np.ndarray, 'h w'],
    colours: Shaped[np.ndarray, 'h w 3'],
  ) -> np.ndarray:
    """Returns the pixels of one kind: grey, RGB or RGBA; see `encode`."""
    if kind == 'mask':
      return to_mask(alpha)
    if kind == 'side_by_side':
      return side_by_side(photo.rgb, alpha)
    if kind == 'trimap':
      return to_trimap(alpha, width=self.trimap_width)
    if kind == 'overlay':
      return overlay(photo.rgb, alpha)
    if kind == 'foreground':
      return _spread(colours, alpha)
    box = _find_box(alpha) if self.trim else (slice(None), slice(None))
    if kind == 'composite' or self.format == 'jpeg':
      return self._compose(photo, alpha, colours)[box]
    return add_opacity(colours[box], alpha[box])

  def _compose(self, photo, alpha, colours) -> np.ndarray:
    """Returns the foreground before the new background."""
    # Backgrounds have 8 bits; their 255 is the colours' largest value.
    scale = np.float32(np.iinfo(colours.dtype).max / 255)
    if self.background == 'blur':
      behind = _blur_background(photo.seen, alpha)
    else:
      backdrop = _convert_background(self.background, photo.icc_profile)
      # Cut to the photo's shape, not stretched.
      behind = ImageOps.fit(backdrop, photo.rgb.size)
    behind = np.asarray(behind)
    mixed = np.empty_like(colours)
    for rows in _cut_rows(colours):
      weight = alpha[rows, :, None]
      mixed[rows] = np.round(
        colours[rows] * weight + behind[rows] * scale * (1 - weight)
      )
    return mixed

  def _lossless(self, kind: str) -> bool:
    return self.format == 'png' or (self.format == 'jpeg' and kind in _LABELS)

  def _to_file(self, image, kind: str, profile: bytes | None) -> bytes:
    form = self.format
    check_size(image.size, form)
    file = io.BytesIO()
    options = {'icc_profile': profile} if profile else {}
    if form == 'webp':  # Exact keeps the colours behind full transparency.
      options = {**options, 'exact': True, 'lossless': kind in _LABELS}
    # Of a lossless file, it is the effort.
    quality = 20 if kind in _LABELS else self.quality
    image.save(file, form, quality=quality, **options)
    return file.getvalue()


def check_size(size: tuple[int, int], form: str) -> None:
  """Raises a `UserError` if (width, height) are too large for WebP or JPEG."""
  longest = _LONGEST_SIDES[form]
  if max(size) > longest:
    raise errors.UserError(
      f'{size[0]}x{size[1]} pixels are more than the {longest:,} a side that '
      f'{form} allows. Choose png (--format=png), or reduce the photo.'
    )


def add_opacity(
  colours: UInt8[np.ndarray, 'h w 3'] | UInt16[np.ndarray, 'h w 3'],
  alpha: Float[np.ndarray, 'h w'],
) -> np.ndarray:
  """Returns RGBA (h, w, 4) in the colours' type and range."""
  scale = np.float32(np.iinfo(colours.dtype).max)
  rgba = np.empty((*alpha.shape, 4), colours.dtype)
  rgba[..., :3] = colours
  for rows in _cut_rows(rgba):
    rgba[rows, :, 3] = np.round(alpha[rows] * scale)
  return rgba


def to_mask(alpha: Float[np.ndarray, 'h w']) -> UInt8[np.ndarray, 'h w']:
  """Returns alpha in 8 bits."""
  mask = np.empty(alpha.shape, np.uint8)
  for rows in _cut_rows(mask):
    mask[rows] = np.round(alpha[rows] * 255)
  return mask


def side_by_side(
  photo: Image.Image, alpha: Float[np.ndarray, 'h w']
) -> UInt8[np.ndarray, 'h w2 3']:
  """Returns the Keras project's picture: photo | line | photo x mask."""
  pixels = np.asarray(photo)
  picture = np.full((photo.height, 2 * photo.width + 10, 3), 128, np.uint8)
  picture[:, : photo.width] = pixels
  for rows in _cut_rows(pixels):
    picture[rows, photo.width + 10 :] = np.round(
      pixels[rows] * alpha[rows, :, None]
    )
  return picture


def to_trimap(
  alpha: Float[np.ndarray, 'h w'], *, width: int
) -> UInt8[np.ndarray, 'h w']:
  """Returns a trimap: 255 foreground, 0 background, 128 unknown.

  Args:
    alpha: The foreground's share.
    width: Pixels (of a square) by which the unknown band grows to either side.
  """
  from scipy import ndimage

  trimap = np.full(alpha.shape, 128, np.uint8)
  for value, sure in ((255, alpha >= _SURE), (0, alpha <= _GONE)):
    if width:
      sure = ndimage.minimum_filter(
        sure.view(np.uint8), 2 * width + 1, mode='nearest'
      ).view(bool)
    trimap[sure] = value
  return trimap


def overlay(
  photo: Image.Image, alpha: Float[np.ndarray, 'h w']
) -> UInt8[np.ndarray, 'h w 3']:
  """Returns the photo with its background tinted, to judge alpha by eye."""
  pixels = np.asarray(photo)
  picture = np.empty_like(pixels)
  for rows in _cut_rows(pixels):
    share = _TINT_SHARE * (1 - alpha[rows, :, None])
    tint = np.asarray(_TINT, np.float32)
    picture[rows] = np.round(pixels[rows] * (1 - share) + tint * share)
  return picture


def _spread(
  colours: Shaped[np.ndarray, 'h w 3'], alpha: Float[np.ndarray, 'h w']
) -> Shaped[np.ndarray, 'h w 3']:
  """Continues the foreground's colours over transparent pixels.

  So no old background appears when another program resizes or blurs them, or
  uses another alpha.
  """
  from scipy import ndimage

  hidden = alpha < 0.5 / 255  # Not seen in 8 bits.
  if not hidden.any() or hidden.all():
    return colours
  top = np.iinfo(colours.dtype).max // 255  # 1, or 257 for 16 bits.
  rgba = np.empty((*alpha.shape, 4), np.uint8)
  for rows in _cut_rows(rgba):
    rgba[rows, :, :3] = colours[rows] // top
    # Rounded up: what is barely seen has colours too.
    rgba[rows, :, 3] = np.ceil(alpha[rows] * 255)
    rgba[rows, :, 3][hidden[rows]] = 0
  height, width = alpha.shape
  scale = min(1, _SPREAD_SIDE / max(height, width))
  size = max(1, round(width * scale)), max(1, round(height * scale))
  # Pillow weighs colours by their opacity.
  small = np.asarray(Image.fromarray(rgba).resize(size, Image.Resampling.BOX))
  del rgba
  places = small[..., 3] == 0
  if places.all():  # Foreground too small to be seen at that size.
    places = small[..., 3] < small[..., 3].max(initial=1)
    small = np.broadcast_to(
      np.append(colours[~hidden].mean(axis=0) // top, 255), small.shape
    ).astype(np.uint8)
  # Each unknown place takes the nearest known colour; channels stay apart.
  nearest = ndimage.distance_transform_edt(
    places, return_distances=False, return_indices=True
  )
  filled = ndimage.gaussian_filter(
    small[..., :3][tuple(nearest)], (2, 2, 0), mode='nearest'
  )
  behind = np.asarray(
    Image.fromarray(filled).resize((width, height), Image.Resampling.BILINEAR)
  )
  result = colours.copy()
  for rows in _cut_rows(result):
    result[rows][hidden[rows]] = (
      behind[rows][hidden[rows]].astype(colours.dtype) * top
    )
  return result


def _cut_rows(array: np.ndarray) -> Iterator[slice]:
  """Yields parts of the rows, one after the other."""
  for start in range(0, len(array), _ROWS):
    yield slice(start, start + _ROWS)


# `Style` loads it to check it; then each photo uses it.
@functools.lru_cache(maxsize=1)
def _load_background(background: str) -> photos.Photo:
  """Returns one pixel of a colour, or the picture at a path.

  Raises:
    UserError: if it is neither, or the colour is transparent.
  """
  try:
    colour = ImageColor.getrgb(background)
  except ValueError:
    pass
  else:
    if colour[3:] not in ((), (255,)):
      raise errors.UserError(
        f'--background={background}: composites have no transparency. Pass a '
        'colour without it, such as #ff0000; cut-outs (--save=cutout) are '
        'transparent.'
      )
    return photos.Photo(rgb=Image.new('RGB', (1, 1), colour[:3]))
  if not os.path.exists(background):  # noqa: PTH110 (a str from a flag)
    raise errors.UserError(
      f'--background={background}: neither a colour such as #ffffff, nor a '
      'file, nor blur.'
    )
  return photos.read_photo(background)


# Most photos of a run have one profile.
@functools.lru_cache(maxsize=1)
def _convert_background(
  background: str, icc_profile: bytes | None
) -> Image.Image:
  """Returns a background as it is seen, in a photo's colour space."""
  return _load_background(background).convert_colours(icc_profile)


def _blur_background(
  photo: Image.Image, alpha: Float[np.ndarray, 'h w']
) -> Image.Image:
  """Blurs the background; the foreground does not bleed into it.

  The background alone is averaged: colours times its share, blurred, over the
  share, blurred. At a quarter of the size, since the result is smooth.
  """
  from scipy import ndimage  # A third of a second, for this style alone.

  size = max(1, photo.width // 4), max(1, photo.height // 4)
  sigma = max(size) * 0.015
  small = np.asarray(photo.resize(size, Image.Resampling.BOX), np.float32)
  share = Image.fromarray(1 - alpha).resize(size, Image.Resampling.BOX)
  # Never 0: deep inside of the foreground, the share is divided by, too.
  share = np.clip(np.asarray(share), 1e-3, 1)
  blurred_share = ndimage.gaussian_filter(share, sigma)
  planes = [
    ndimage.gaussian_filter(small[..., channel] * share, sigma) / blurred_share
    for channel in range(3)
  ]
  pixels = np.clip(np.dstack(planes), 0, 255).astype(np.uint8)
  return Image.fromarray(pixels).resize(photo.size, Image.Resampling.BILINEAR)


def _find_box(alpha: Float[np.ndarray, 'h w']) -> tuple[slice, slice]:
  """Rows and columns with anything to see in 8 bits; all if there is none."""
  visible = alpha >= 0.5 / 255
  rows, columns = (np.flatnonzero(visible.any(axis=axis)) for axis in (1, 0))
  if not rows.size:
    return slice(None), slice(None)
  return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
