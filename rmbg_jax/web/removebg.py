"""remove.bg's interface: its parameters, results, headers and errors."""

import base64
import dataclasses
import io
import re
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import numpy as np
import pydantic
from PIL import Image, ImageColor, ImageOps
from starlette import responses

from data_pipelines.io.types import JsonObject
from rmbg_jax.inference import foreground, photos, rendering

# Pixels that a result may have, by size; None: as many as the photo.
Size = Literal[
  'preview', 'small', 'regular', 'medium', 'hd', '4k', 'full', 'auto', '50MP'
]
_SIZES: dict[Size, int | None] = {
  'preview': 250_000,
  'small': 250_000,
  'regular': 250_000,
  'medium': 1_500_000,
  'hd': 4_000_000,
  '4k': 10_000_000,
  'full': None,
  'auto': None,
  '50MP': None,
}
MEDIA_TYPES = {
  'png': 'image/png',
  'jpg': 'image/jpeg',
  'webp': 'image/webp',
  'zip': 'application/zip',
}
_QUALITY = 95
# Alpha of what counts as seen, and of what there must be somewhere.
_SEEN, _FOUND = 0.05, 0.5
# Pixels, and share of the subject: the widest margins.
_WIDEST_MARGIN, _WIDEST_SHARE = 500, 0.5
_SHOWN_LENGTH = 60  # Characters of a wrong value.

# Nobody counts here, but clients may ask for what is left.
_PLENTY = 1_000_000
ACCOUNT = {
  'data': {
    'attributes': {
      'credits': {
        'total': _PLENTY,
        'subscription': 0,
        'payg': _PLENTY,
        'enterprise': 0,
      },
      'api': {'free_calls': _PLENTY, 'sizes': 'all'},
    }
  }
}
ERROR_SCHEMA = {
  'type': 'object',
  'properties': {
    'errors': {
      'type': 'array',
      'items': {
        'type': 'object',
        'properties': {
          'title': {'type': 'string'},
          'code': {'type': 'string'},
          'detail': {'type': 'string'},
        },
      },
    }
  },
}


class ProblemError(Exception):
  """Ends a request with a status and a body that says why."""

  def __init__(
    self,
    status: int,
    code: str,
    title: str,
    detail: str = '',
    *,
    headers: Mapping[str, str] | None = None,
  ):
    super().__init__(title)
    self._status = status
    self._entry = {'title': title, 'code': code}
    if detail:
      self._entry['detail'] = detail
    self._headers = headers

  def to_response(self) -> responses.Response:
    """Returns what the client gets."""
    return responses.JSONResponse(
      {'errors': [self._entry]},
      status_code=self._status,
      headers=dict(self._headers or {}),
    )


class Options(pydantic.BaseModel):
  """The parameters that are no files; others are ignored, as there."""

  image_file_b64: str = ''
  image_url: str = pydantic.Field('', description='Refused.')
  bg_image_url: str = pydantic.Field('', description='Refused.')
  size: Size = 'preview'
  type: str = pydantic.Field('auto', description='Changes nothing.')
  format: Literal['auto', 'png', 'jpg', 'jpeg', 'webp', 'zip'] = 'auto'
  channels: Literal['rgba', 'alpha'] = 'rgba'
  bg_color: str = pydantic.Field(
    '', description='Hexadecimal (rgb, rrggbb, rrggbbaa) or a name.'
  )
  roi: str = pydantic.Field(
    '0% 0% 100% 100%', description='Left, top, right, bottom; px or %.'
  )
  crop: bool = False
  crop_margin: str = pydantic.Field(
    '0', description='One, two or four values in px or % of the subject.'
  )
  scale: str = pydantic.Field('original', description='10% to 100%.')
  position: str = pydantic.Field(
    'original', description='center, or one or two values in %.'
  )
  add_shadow: bool = pydantic.Field(False, description='True is refused.')
  shadow_type: str = pydantic.Field('none', description='Others are refused.')


_Model = TypeVar('_Model', bound=pydantic.BaseModel)


def parse(model: type[_Model], fields: JsonObject) -> _Model:
  """Returns the fields as options; empty ones count as left out.

  Raises:
    ProblemError: naming the first that is wrong.
  """
  fields = {
    name: value for name, value in fields.items() if value not in ('', None)
  }
  try:
    return model.model_validate(fields)
  except pydantic.ValidationError as error:
    first = error.errors(include_url=False)[0]
    name = str(first['loc'][0])[:_SHOWN_LENGTH]
    value = first['input']
    if not isinstance(value, str | int | float):
      value = type(value).__name__
    message = first['msg'].removeprefix('Value error, ')
    raise ProblemError(
      400,
      'invalid_parameters',
      f'{name}={str(value)[:_SHOWN_LENGTH]}: {message}'
      if first['type'] != 'extra_forbidden'
      else f'{name}: no such parameter. Choose from '
      f'{", ".join(model.model_fields)}',
    ) from error


def choose_source(options: Options, fields: JsonObject) -> str:
  """Returns the name of the field with the photo.

  Raises:
    ProblemError: if there is none, more than one, or an address.
  """
  for name in ('image_url', 'bg_image_url'):
    if getattr(options, name):
      raise ProblemError(
        400,
        'invalid_image_url',
        f'{name}: this server fetches no addresses',
        'Send the file itself.',
      )
  found = [
    name
    for name in ('image_file', 'image_file_b64')
    if fields.get(name) not in (None, '')
  ]
  if not found:
    raise ProblemError(
      400,
      'missing_source',
      'No image given',
      'Pass image_file or image_file_b64.',
    )
  if len(found) > 1:
    raise ProblemError(
      400,
      'multiple_sources',
      'Multiple image sources given: pass either image_file or image_file_b64',
    )
  return found[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
  """The response to a client.

  Attributes:
    content: Content of the file.
    form: Format of the file, one of `MEDIA_TYPES`.
    kind: Kind of photo that was asked for.
    size: (width, height) of the result.
    box: (left, top, width, height) of the subject in it.
  """

  content: bytes
  form: str
  kind: str
  size: tuple[int, int]
  box: tuple[int, int, int, int]

  @property
  def media_type(self) -> str:
    """Media type of the content."""
    return MEDIA_TYPES[self.form]

  @property
  def headers(self) -> dict[str, str]:
    """Headers that describe a result, as remove.bg has them."""
    left, top, width, height = self.box
    values = {
      'X-Type': self.kind,
      'X-Width': self.size[0],
      'X-Height': self.size[1],
      'X-Foreground-Top': top,
      'X-Foreground-Left': left,
      'X-Foreground-Width': width,
      'X-Foreground-Height': height,
      'X-Credits-Charged': 0,
    }
    return {name: str(value) for name, value in values.items()}

  def to_json(self) -> dict[str, Any]:
    """Returns the same for clients that ask for JSON."""
    left, top, width, height = self.box
    return {
      'result_b64': base64.b64encode(self.content).decode(),
      'foreground_top': top,
      'foreground_left': left,
      'foreground_width': width,
      'foreground_height': height,
    }


def cut_out(
  photo: photos.Photo,
  options: Options,
  picture: Image.Image | None,
  *,
  find_alpha: Callable[[photos.Photo], np.ndarray],
) -> Result:
  """Returns what the options ask for.

  Args:
    photo: The photo.
    options: Options of the request.
    picture: Background picture in RGB, None for none.
    find_alpha: Computes a photo's alpha (h, w) in [0, 1].

  Raises:
    ProblemError: if an option is wrong, or there is no foreground.
  """
  colour = _parse_colour(options.bg_color)
  margins = _parse_margins(options.crop_margin)
  scale, position = _parse_place(options)
  if options.add_shadow or options.shadow_type != 'none':
    raise _wrong('add_shadow', 'true', 'this server draws no shadows')
  if colour and picture:
    raise _wrong('bg_color', options.bg_color, 'there is bg_image_file as well')
  roi = _parse_roi(options.roi, photo.rgb.size)
  photo, roi = _shrink(photo, roi, _SIZES[options.size])
  alpha = np.zeros(photo.rgb.size[::-1], np.float32)
  left, top, right, bottom = roi
  alpha[top:bottom, left:right] = find_alpha(_crop(photo, roi))
  if alpha.max() < _FOUND:
    raise ProblemError(
      400,
      'unknown_foreground',
      'Could not identify foreground in image.',
      'There is nothing in it that the network takes for a subject.',
    )
  colours = foreground.estimate_foreground(np.asarray(photo.rgb), alpha)
  cutout = Image.fromarray(rendering.add_opacity(colours, alpha))
  box = _find_box(alpha)
  if options.crop:
    cutout, box = _crop_subject(cutout, box, margins)
  elif scale or position:
    cutout, box = _place_subject(cutout, box, scale, position)
  behind = _make_background(colour, picture, cutout.size)
  form = options.format.replace('jpeg', 'jpg')
  if form == 'auto':
    opaque = picture is not None or (colour is not None and colour[3] == 255)
    form = 'jpg' if opaque and options.channels == 'rgba' else 'png'
  profile = photo.icc_profile
  return Result(
    content=_encode(cutout, behind, form, options.channels, profile),
    form=form,
    kind='other' if options.type == 'auto' else _printable(options.type),
    size=cutout.size,
    box=box,
  )


def _encode(cutout, behind, form, channels, profile) -> bytes:
  """Returns the file: of alpha, of the cut-out, or before a background."""
  file = io.BytesIO()
  keep = {'icc_profile': profile} if profile else {}
  if form == 'zip':
    # Pictures do not get smaller.
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_STORED) as archive:
      archive.writestr('color.jpg', _save(cutout.convert('RGB'), 'jpg', keep))
      archive.writestr('alpha.png', _save(cutout.getchannel('A'), 'png', {}))
      if behind:
        archive.writestr(
          'background.jpg', _save(behind.convert('RGB'), 'jpg', keep)
        )
    return file.getvalue()
  if channels == 'alpha':
    return _save(cutout.getchannel('A'), form, {})
  if behind:
    cutout = Image.alpha_composite(behind, cutout)
  if form == 'jpg':  # Without a background, on white.
    white = Image.new('RGBA', cutout.size, 'white')
    cutout = Image.alpha_composite(white, cutout).convert('RGB')
  return _save(cutout, form, keep)


def _save(image: Image.Image, form: str, options: Mapping[str, Any]) -> bytes:
  file = io.BytesIO()
  if form == 'png':
    image.save(file, 'png', compress_level=1, **options)
  elif form == 'webp':
    if max(image.size) > 16_383:
      raise _wrong('format', 'webp', 'it has at most 16383 pixels a side')
    image.save(file, 'webp', quality=_QUALITY, **options)
  else:
    image.save(file, 'jpeg', quality=_QUALITY, **options)
  return file.getvalue()


def _shrink(photo, roi, most: int | None):
  """Returns photo and region with at most so many pixels."""
  width, height = photo.rgb.size
  if most is None or width * height <= most:
    return dataclasses.replace(photo, deep=None), roi
  scale = (most / (width * height)) ** 0.5
  size = max(1, int(width * scale)), max(1, int(height * scale))
  resample = Image.Resampling.BOX if scale < 0.5 else Image.Resampling.BILINEAR
  small = dataclasses.replace(
    photo,
    rgb=photo.rgb.resize(size, resample),
    opacity=photo.opacity and photo.opacity.resize(size, resample),
    deep=None,
  )
  left, top = (int(roi[k] * size[k] / photo.rgb.size[k]) for k in (0, 1))
  right, bottom = (
    max(start + 1, round(roi[2 + k] * size[k] / photo.rgb.size[k]))
    for k, start in enumerate((left, top))
  )
  return small, (left, top, min(right, size[0]), min(bottom, size[1]))


def _crop(photo: photos.Photo, roi) -> photos.Photo:
  return dataclasses.replace(
    photo,
    rgb=photo.rgb.crop(roi),
    opacity=photo.opacity and photo.opacity.crop(roi),
  )


def _find_box(alpha: np.ndarray) -> tuple[int, int, int, int]:
  seen = alpha >= _SEEN
  rows, columns = (np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0))
  left, top = int(columns[0]), int(rows[0])
  return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top


def _crop_subject(cutout, box, margins):
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


def _place_subject(cutout, box, scale, position):
  """Returns the subject scaled and moved within the picture's own size."""
  left, top, width, height = box
  size = cutout.size
  factor = scale * min(size[0] / width, size[1] / height) if scale else 1
  new = [
    min(size[k], max(1, round(side * factor)))
    for k, side in enumerate((width, height))
  ]
  if position == 'original':
    places = [
      min(max(0, round(start + (side - new[k]) / 2)), size[k] - new[k])
      for k, (start, side) in enumerate(((left, width), (top, height)))
    ]
  else:
    # Scaling alone centres.
    x, y = position or (0.5, 0.5)
    places = [round((size[k] - new[k]) * p) for k, p in enumerate((x, y))]
  subject = cutout.crop((left, top, left + width, top + height))
  if factor != 1:
    subject = subject.resize(new, Image.Resampling.LANCZOS)
  placed = Image.new('RGBA', size)
  placed.paste(subject, (places[0], places[1]))
  return placed, (*places, *new)


def _make_background(colour, picture, size) -> Image.Image | None:
  if picture is not None:
    return ImageOps.fit(picture, size).convert('RGBA')
  return Image.new('RGBA', size, colour) if colour else None


def _parse_colour(text: str) -> tuple[int, int, int, int] | None:
  if not text:
    return None
  if re.fullmatch('[0-9a-fA-F]{3,8}', text):
    text = f'#{text}'
  try:
    colour = ImageColor.getrgb(text)
  except ValueError:
    raise _wrong('bg_color', text, 'pass rrggbb or a name') from None
  return colour if len(colour) == 4 else (*colour, 255)


_LENGTH = re.compile(r'(\d+(?:\.\d+)?)(px|%)?', re.ASCII)


def _parse_lengths(name, text, counts) -> list[tuple[float, str]]:
  words = text.split()
  parts = [found for word in words if (found := _LENGTH.fullmatch(word))]
  if len(text) > 100 or len(words) not in counts or len(parts) < len(words):
    raise _wrong(name, text, 'pass numbers with px or %, such as 10%')
  return [(float(part[1]), part[2] or 'px') for part in parts]


def _parse_margins(text: str) -> list[tuple[float, str]]:
  """Returns top, right, bottom and left."""
  found = _parse_lengths('crop_margin', text, (1, 2, 4))
  if len(found) == 4:
    return found
  return [found[0], found[-1]] * 2


def _parse_roi(text: str, size: tuple[int, int]) -> tuple[int, int, int, int]:
  edges = [
    round(value * size[k % 2] / 100) if unit == '%' else round(value)
    for k, (value, unit) in enumerate(_parse_lengths('roi', text, (4,)))
  ]
  left, top, right, bottom = (
    min(edge, size[k % 2]) for k, edge in enumerate(edges)
  )
  if left >= right or top >= bottom:
    raise _wrong('roi', text, 'there is nothing in it')
  return left, top, right, bottom


def _parse_place(options: Options):
  """Returns the scale, None for none, and the position.

  That is None where nothing is said, 'original', or (x, y) in [0, 1].
  """
  scale = None
  if options.scale != 'original':
    ((value, unit),) = _parse_lengths('scale', options.scale, (1,))
    if unit != '%' or not 10 <= value <= 100:
      raise _wrong('scale', options.scale, 'pass 10% to 100%')
    scale = value / 100
  if options.position == 'original':
    said = 'position' in options.model_fields_set
    return scale, 'original' if said and scale else None
  if options.position == 'center':
    return scale, (0.5, 0.5)
  found = _parse_lengths('position', options.position, (1, 2))
  if any(unit != '%' or value > 100 for value, unit in found):
    raise _wrong('position', options.position, 'pass 0% to 100%')
  return scale, (found[0][0] / 100, found[-1][0] / 100)


def _wrong(name: str, value: str, remedy: str) -> ProblemError:
  return ProblemError(
    400, 'invalid_parameters', f'{name}={value[:_SHOWN_LENGTH]}: {remedy}'
  )


def _printable(text: str) -> str:
  return re.sub('[^a-z]', '', text[:_SHOWN_LENGTH]) or 'other'
