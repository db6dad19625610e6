"""Answers HTTP calls, one photo each: the routes beside the page.

`POST /api/remove` is the project's own call, `POST /v1.0/removebg` that of
remove.bg (`removebg.py`). Both work on the page's service, within its limits.
"""

from collections.abc import Sequence
from typing import Any, Literal

import fastapi
import pydantic
from PIL import ImageColor
from starlette import exceptions, responses

import rmbg_jax
from data_pipelines.io.errors import UserError
from rmbg_jax import choices
from rmbg_jax.inference import refinement, rendering
from rmbg_jax.web import calls, guard, problems, removebg
from rmbg_jax.web import service as service_lib


class Options(pydantic.BaseModel):
  """The fields of `/api/remove` beside `file`."""

  model_config = pydantic.ConfigDict(extra='forbid')

  kind: choices.Kind | None = pydantic.Field(
    None, description='By default cutout, with a background composite.'
  )
  format: Literal['png', 'webp', 'jpeg', 'jpg'] = 'png'
  quality: int = pydantic.Field(95, ge=1, le=100)
  background: str = pydantic.Field(
    '', description="A colour (#rrggbb or its name), or 'blur'."
  )
  refine: choices.Refinement = 'none'
  threshold: float | None = pydantic.Field(None, gt=0, le=1)
  keep_largest: bool = False
  fill_holes: bool = False
  estimate_foreground: bool = True
  trim: bool = False
  trimap_width: int = pydantic.Field(10, ge=0, le=1000)
  checkpoint: str | None = None

  @pydantic.field_validator('background')
  @classmethod
  def _is_no_path(cls, value: str) -> str:
    if value not in ('', 'blur'):
      ImageColor.getrgb(value)  # A path is a ValueError here.
    return value


_REASONS = {
  400: 'A parameter or a file that cannot be used',
  401: 'No valid key',
  403: 'No valid key',
  408: 'The body did not arrive in time',
  413: 'More bytes than the limit',
  429: 'Too many requests are waiting',
  503: 'No room now',
}
_TEXTS = dict.fromkeys(('title', 'code', 'detail'), {'type': 'string'})
_ENTRY = {'type': 'object', 'properties': _TEXTS}
_ERROR = {
  'type': 'object',
  'properties': {'errors': {'type': 'array', 'items': _ENTRY}},
}


def make_api(service: service_lib.Service, *, queue: int) -> fastapi.FastAPI:
  """Returns the application with all routes but the page's.

  So many requests may wait as the queue has room; another is answered by 429.
  """
  api = fastapi.FastAPI(
    title='RMBG-U2NET for JAX',
    version=rmbg_jax.__version__,
    description='Cuts out a photo in one call.',
    docs_url=None,  # Its page would load scripts from elsewhere.
    redoc_url=None,
  )
  door = calls.Door(service, queue)

  @api.head(guard.HEALTH, include_in_schema=False)
  @api.get(guard.HEALTH, summary='Whether the server answers')
  async def check_health() -> dict[str, Any]:
    return {
      'status': 'ok',
      'version': rmbg_jax.__version__,
      'checkpoints': list(service.checkpoints),
      'waiting': door.waiting,
    }

  @api.post(
    '/api/remove',
    summary='Cuts out a photo',
    **_describe(Options, 'file', 'background_file', required=['file']),
  )
  async def remove(request: fastapi.Request):
    return await door.work(_remove, request)

  @api.post(
    '/v1.0/removebg',
    summary="Cuts out a photo, by remove.bg's interface",
    **_describe(
      removebg.Options,
      'image_file',
      'bg_image_file',
      more_types=['application/zip'],
    ),
  )
  async def remove_bg(request: fastapi.Request):
    return await door.work(removebg.cut_out, request)

  http = exceptions.HTTPException
  for kind in (problems.ProblemError, http, UserError, OSError, Exception):
    api.add_exception_handler(kind, problems.answer)
  return api


def _describe(
  options: type[pydantic.BaseModel],
  *files: str,
  required: Sequence[str] = (),
  more_types: Sequence[str] = (),
) -> dict[str, Any]:
  """Returns a route's description for OpenAPI: fields, files, and answers."""
  fields = options.model_json_schema()['properties']
  bodies = {}
  for kind, form in (
    ('multipart/form-data', {'format': 'binary'}),
    ('application/json', {'contentEncoding': 'base64'}),
  ):
    sent = dict.fromkeys(files, {'type': 'string', **form})
    schema = {'type': 'object', 'properties': sent | fields}
    bodies[kind] = {'schema': schema | {'required': [*required]}}
  types = ('image/png', 'image/webp', 'image/jpeg', *more_types)
  picture = {'schema': {'type': 'string', 'format': 'binary'}}
  error = {'application/json': {'schema': _ERROR}}
  answers: dict[int | str, Any] = {
    status: {'description': reason, 'content': error}
    for status, reason in _REASONS.items()
  }
  answers[200] = {
    'description': 'The result, or JSON with it where that is accepted',
    'content': {
      **dict.fromkeys(types, picture),
      'application/json': {'schema': {'type': 'object'}},
    },
  }
  return {
    'response_class': responses.Response,
    'responses': answers,
    'openapi_extra': {'requestBody': {'required': True, 'content': bodies}},
  }


def _remove(call: calls.Call) -> calls.File:
  options = call.parse(Options, 'file', 'background_file')
  if 'file' not in call.fields:
    raise problems.ProblemError(
      'missing_source', 'There is no photo: send it as file'
    )
  background, kind = options.background, options.kind or 'cutout'
  has_picture = 'background_file' in call.fields
  if has_picture and background:
    raise problems.ProblemError(
      'invalid_parameters', 'Pass background or background_file, not both'
    )
  has_background = bool(background) or has_picture
  if has_background and kind == 'cutout':
    kind = 'composite'
  if has_background != (kind == 'composite'):
    raise problems.wrong(
      'kind',
      kind,
      'background or background_file is for composite, which needs one',
    )
  with call.service.take_turn() as folder:
    if has_picture:
      path = folder / 'background.png'
      picture = call.read('background_file')
      # It is read again at once: compressing would only take time.
      picture.seen.save(path, compress_level=0, icc_profile=picture.icc_profile)
      background = str(path)
    looks = {'quality', 'estimate_foreground', 'trim', 'trimap_width'}
    style = rendering.Style(
      format=options.format.replace('jpg', 'jpeg'),
      background=background,
      **options.model_dump(include=looks),
    )
    style.check_kinds((kind,))
    photo = call.read_photo('file')
    alpha = call.service.find_alpha(
      photo,
      checkpoint=options.checkpoint,
      refined=refinement.Refinement(
        method=options.refine,
        **options.model_dump(
          include={'threshold', 'keep_largest', 'fill_holes'}
        ),
      ),
    )
    content = style.render(photo, alpha, (kind,))[kind]
  width, height = photo.rgb.size
  return calls.File(
    content=content,
    form=style.suffix(kind).removeprefix('.'),
    facts={'photo_width': width, 'photo_height': height, 'notes': photo.notes},
  )
