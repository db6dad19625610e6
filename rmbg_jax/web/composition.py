"""Puts a cut-out together as remove.bg does: its size, place and background."""

import dataclasses
import io
import zipfile
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from rmbg_jax.inference import photos, png, rendering

# (left, top, right, bottom) of a region, (left, top, width, height) of a
# subject; pixels.
Box = tuple[int, int, int, int]

_QUALITY = 95
_SEEN = 0.05  # From this alpha on, a pixel counts as seen.
# Pixels, and share of the subject: the widest margins.
_WIDEST_MARGIN, _WIDEST_SHARE = 500, 0.5


def encode(
  cutout: Image.Image,
  behind: Image.Image | None,
  form: str,
  channels: str,
  profile: bytes | None,
) -> bytes:
  """Returns the file: of alpha, of the cut-out, or before a background."""
  alpha = cutout.getchannel('A')
  if form == 'zip':
    file = io.BytesIO()
    # Pictures do not get smaller.
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_STORED) as archive:
      for name, image in (('color', cutout), ('background', behind)):
        if image:
          content = _save(image.convert('RGB'), 'jpg', profile)
          archive.writestr(f'{name}.jpg', content)
      archive.writestr('alpha.png', _save(alpha, 'png', None))
    return file.getvalue()
  if channels == 'alpha':
    return _save(alpha, form, None)
  if behind:
    cutout = Image.alpha_composite(behind, cutout)
  if form == 'jpg':  # Without a background, on white.
    white = Image.new('RGBA', cutout.size, 'white')
    cutout = Image.alpha_composite(white, cutout).convert('RGB')
  return _save(cutout, form, profile)


def _save(image: Image.Image, form: str, profile: bytes | None) -> bytes:
  if form == 'png':
    return png.encode(np.asarray(image), icc_profile=profile)
  form = form.replace('jpg', 'jpeg')
  rendering.check_size(image.size, form)
  file = io.BytesIO()
  image.save(file, form, quality=_QUALITY, icc_profile=profile)
  return file.getvalue()


def shrink(
  photo: photos.Photo, roi: Box, most: int | None
) -> tuple[photos.Photo, Box]:
  """Returns photo and region with at most so many pixels."""
  width, height = photo.rgb.size
  if most is None or width * height <= most:
    return photo, roi
  scale = (most / (width * height)) ** 0.5
  size = max(1, int(width * scale)), max(1, int(height * scale))  # Never more.
  resample = Image.Resampling.BOX if scale < 0.5 else Image.Resampling.BILINEAR
  small = dataclasses.replace(
    photo,
    rgb=photo.rgb.resize(size, resample),
    opacity=photo.opacity and photo.opacity.resize(size, resample),
    deep=None,
  )
  left, top = (int(roi[k] * size[k] / photo.rgb.size[k]) for k in (0, 1))
  right, bottom = (
    # One pixel at least.
    max(start + 1, round(roi[2 + k] * size[k] / photo.rgb.size[k]))
    for k, start in enumerate((left, top))
  )
  return small, (left, top, min(right, size[0]), min(bottom, size[1]))


def crop(photo: photos.Photo, roi: Box) -> photos.Photo:
  """Returns a region of a photo."""
  return dataclasses.replace(
    photo,
    rgb=photo.rgb.crop(roi),
    opacity=photo.opacity and photo.opacity.crop(roi),
    deep=None,
  )


def find_box(alpha: np.ndarray) -> Box:
  """Returns (left, top, width, height) of a subject's visible part."""
  seen = Image.fromarray(alpha >= _SEEN).getbbox()
  # There is some: a photo without a subject has been refused.
  left, top, right, bottom = seen or (0, 0, 1, 1)
  return left, top, right - left, bottom - top


def crop_subject(
  cutout: Image.Image, box: Box, margins: Sequence[tuple[float, str]]
) -> tuple[Image.Image, Box]:
  """Returns the subject with margins around it, and where it is in that."""
  left, top, width, height = box
  above, right, below, before = (
    min(
      round(value * side / 100) if unit == '%' else round(value),
      round(side * _WIDEST_SHARE),
      _WIDEST_MARGIN,
    )
    for (value, unit), side in zip(
      margins, (height, width, height, width), strict=True
    )
  )
  # Pillow fills what is outside of the picture with transparency.
  cropped = cutout.crop(
    (left - before, top - above, left + width + right, top + height + below)
  )
  return cropped, (before, above, width, height)


def place_subject(
  cutout: Image.Image,
  box: Box,
  scale: float | None,
  position: tuple[float, float] | None,
) -> tuple[Image.Image, Box]:
  """Returns the subject scaled and moved within the picture's own size.

  The position is that of the free space in [0, 1]; None keeps the centre.
  """
  left, top, width, height = box
  size = cutout.size
  factor = scale * min(size[0] / width, size[1] / height) if scale else 1
  new = [
    min(size[k], max(1, round(side * factor)))
    for k, side in enumerate((width, height))
  ]
  if position is None:
    places = [
      min(max(0, round(start + (side - new[k]) / 2)), size[k] - new[k])
      for k, (start, side) in enumerate(((left, width), (top, height)))
    ]
  else:
    places = [round((size[k] - new[k]) * p) for k, p in enumerate(position)]
  subject = cutout.crop((left, top, left + width, top + height))
  if factor != 1:
    subject = subject.resize(new, Image.Resampling.LANCZOS)
  placed = Image.new('RGBA', size)
  placed.paste(subject, (places[0], places[1]))
  return placed, (places[0], places[1], new[0], new[1])


def make_background(
  colour: tuple[int, ...] | None,
  picture: photos.Photo | None,
  size: tuple[int, int],
  profile: bytes | None,
) -> Image.Image | None:
  """Returns the picture cut to a size, or the RGBA colour; None for neither.

  The colour is sRGB, the result has the ICC profile, None for sRGB.
  """
  if picture is not None:
    return ImageOps.fit(picture.convert_colours(profile), size).convert('RGBA')
  if not colour:
    return None
  converted = photos.convert_colour(colour[:3], profile)
  return Image.new('RGBA', size, (*converted, *colour[3:]))
