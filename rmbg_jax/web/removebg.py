"""remove.bg's interface: its parameters, results and headers."""

import re
from typing import Literal

import numpy as np
import pydantic
from PIL import Image, ImageColor

from data_pipelines.io.types import JsonObject
from rmbg_jax.inference import foreground, rendering
from rmbg_jax.web import calls, composition, problems

Size = Literal[
  'preview', 'small', 'regular', 'medium', 'hd', '4k', 'full', 'auto', '50MP'
]
# Pixels that a result may have, by size; of the others, as many as the photo.
_MOST: dict[Size, int] = {
  'preview': 250_000,
  'small': 250_000,
  'regular': 250_000,
  'medium': 1_500_000,
  'hd': 4_000_000,
  '4k': 10_000_000,
}
_FOUND = 0.5  # Alpha that some pixel must have.


class Options(pydantic.BaseModel):
  """The parameters that are no files; unknown ones are ignored."""

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


def cut_out(call: calls.Call) -> calls.File:
  """Returns a photo that is cut out as a call's fields say.

  Raises:
    ProblemError: if one is wrong, or there is no foreground.
    UserError: if a file is no picture, or has too many pixels.
  """
  options = call.parse(Options)
  source = _choose_source(options, call.fields)
  # All options are checked before the network runs.
  colour = _parse_colour(options.bg_color)
  margins = _parse_margins(options.crop_margin)
  scale, position = _parse_place(options)
  if options.add_shadow or options.shadow_type != 'none':
    raise problems.wrong('add_shadow', 'true', 'this server draws no shadows')
  has_picture = 'bg_image_file' in call.fields
  if colour and has_picture:
    raise problems.wrong(
      'bg_color', options.bg_color, 'there is bg_image_file as well'
    )
  with call.service.take_turn():
    photo = call.read_photo(source)
    picture = call.read('bg_image_file') if has_picture else None
    roi = _parse_roi(options.roi, photo.rgb.size)
    photo, roi = composition.shrink(photo, roi, _MOST.get(options.size))
    # Outside of the region, nothing is foreground.
    alpha = np.zeros(photo.rgb.size[::-1], np.float32)
    left, top, right, bottom = roi
    part = composition.crop(photo, roi)
    alpha[top:bottom, left:right] = call.service.find_alpha(part)
    if alpha.max() < _FOUND:
      raise problems.ProblemError(
        'unknown_foreground',
        'Could not identify foreground in image.',
        'There is nothing in it that the network takes for a subject.',
      )
    colours = foreground.estimate_foreground(
      np.asarray(photo.rgb), alpha, photo.opacity_values
    )
    cutout = Image.fromarray(rendering.add_opacity(colours, alpha))
    box = composition.find_box(alpha)
    if options.crop:
      cutout, box = composition.crop_subject(cutout, box, margins)
    elif scale or position:
      cutout, box = composition.place_subject(cutout, box, scale, position)
    profile = photo.icc_profile
    behind = composition.make_background(colour, picture, cutout.size, profile)
    form = options.format.replace('jpeg', 'jpg')
    if form == 'auto':
      opaque = picture is not None or (colour is not None and colour[3] == 255)
      form = 'jpg' if opaque and options.channels == 'rgba' else 'png'
    content = composition.encode(
      cutout, behind, form, options.channels, profile
    )
  place = dict(zip(('left', 'top', 'width', 'height'), box, strict=True))
  # A header may not hold whatever a client sends.
  kind = re.sub('[^a-z]', '', options.type[: problems.SHOWN_LENGTH])
  headers = {
    'X-Type': 'other' if options.type == 'auto' else kind or 'other',
    'X-Width': cutout.width,
    'X-Height': cutout.height,
    'X-Credits-Charged': 0,
  } | {f'X-Foreground-{key.title()}': value for key, value in place.items()}
  return calls.File(
    content=content,
    form=form,
    facts={f'foreground_{name}': value for name, value in place.items()},
    headers={name: str(value) for name, value in headers.items()},
  )


def _choose_source(options: Options, fields: JsonObject) -> str:
  """Returns the name of the field with the photo."""
  for name in ('image_url', 'bg_image_url'):
    if getattr(options, name):
      raise problems.ProblemError(
        'invalid_image_url',
        f'{name}: this server fetches no addresses',
        'Send the file itself.',
      )
  found = [n for n in ('image_file', 'image_file_b64') if n in fields]
  if not found:
    raise problems.ProblemError(
      'missing_source', 'No image given', 'Pass image_file or image_file_b64.'
    )
  if len(found) > 1:
    raise problems.ProblemError(
      'multiple_sources',
      'Multiple image sources given: pass either image_file or image_file_b64',
    )
  return found[0]


def _parse_colour(text: str) -> tuple[int, int, int, int] | None:
  if not text:
    return None
  # The interface takes hexadecimal colours without '#'.
  if re.fullmatch('[0-9a-fA-F]{3,8}', text):
    text = f'#{text}'
  try:
    colour = ImageColor.getrgb(text)
  except ValueError:
    raise problems.wrong('bg_color', text, 'pass rrggbb or a name') from None
  return colour if len(colour) == 4 else (*colour, 255)


_LENGTH = re.compile(r'(\d+(?:\.\d+)?)(px|%)?', re.ASCII)


def _parse_lengths(name, text, counts) -> list[tuple[float, str]]:
  words = text.split()
  parts = [found for word in words if (found := _LENGTH.fullmatch(word))]
  if len(text) > 100 or len(words) not in counts or len(parts) < len(words):
    raise problems.wrong(name, text, 'pass numbers with px or %, such as 10%')
  return [(float(part[1]), part[2] or 'px') for part in parts]


def _parse_margins(text: str) -> list[tuple[float, str]]:
  """Returns top, right, bottom and left."""
  found = _parse_lengths('crop_margin', text, (1, 2, 4))
  # As in CSS: one for all, or (above and below, right and left).
  return found if len(found) == 4 else [found[0], found[-1]] * 2


def _parse_roi(text: str, size: tuple[int, int]) -> tuple[int, int, int, int]:
  edges = [
    round(value * size[k % 2] / 100) if unit == '%' else round(value)
    for k, (value, unit) in enumerate(_parse_lengths('roi', text, (4,)))
  ]
  left, top, right, bottom = (
    min(edge, size[k % 2]) for k, edge in enumerate(edges)
  )
  if left >= right or top >= bottom:
    raise problems.wrong('roi', text, 'there is nothing in it')
  return left, top, right, bottom


def _parse_place(
  options: Options,
) -> tuple[float | None, tuple[float, float] | None]:
  """Returns the scale and the position in [0, 1]; None leaves what is there."""
  scale, position = None, options.position
  if options.scale != 'original':
    ((value, unit),) = _parse_lengths('scale', options.scale, (1,))
    if unit != '%' or not 10 <= value <= 100:
      raise problems.wrong('scale', options.scale, 'pass 10% to 100%')
    scale = value / 100
    # Scaling alone centres, unless it is said that the place stays.
    if 'position' not in options.model_fields_set:
      position = 'center'
  if position == 'original':
    return scale, None
  found = [(50.0, '%')]
  if position != 'center':
    found = _parse_lengths('position', position, (1, 2))
  if any(unit != '%' or value > 100 for value, unit in found):
    raise problems.wrong('position', position, 'pass 0% to 100%')
  return scale, (found[0][0] / 100, found[-1][0] / 100)
