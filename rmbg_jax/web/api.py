"""Answers HTTP calls, one photo each: the routes beside the page.

`POST /api/remove` is the project's own call, `POST /v1.0/removebg` that of
remove.bg (`removebg.py`). Both work on the page's service, within its limits.
"""

import base64
import binascii
from typing import Any, Literal

import fastapi
import pydantic
from PIL import ImageColor
from starlette import datastructures, exceptions, responses, routing

import rmbg_jax
from rmbg_jax import choices
from rmbg_jax.inference import photos, refinement, rendering
from rmbg_jax.web import admission, guard, openapi, problems, removebg
from rmbg_jax.web import options as options_lib
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
  door = admission.Door(service, queue)

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
    response_class=responses.Response,
    responses=openapi.describe_answers(),
    openapi_extra=openapi.describe_body(
      Options, {'file': True, 'background_file': False}, required='file'
    ),
  )
  async def remove(request: fastapi.Request):
    return await door.work(_remove, request)

  @api.post(
    '/v1.0/removebg',
    summary="Cuts out a photo, by remove.bg's interface",
    response_class=responses.Response,
    responses=openapi.describe_answers('application/zip'),
    openapi_extra=openapi.describe_body(
      removebg.Options, {'image_file': True, 'bg_image_file': False}
    ),
  )
  async def remove_bg(request: fastapi.Request):
    return await door.work(_remove_bg, request)

  for kind in (problems.ProblemError, exceptions.HTTPException, Exception):
    api.add_exception_handler(kind, _answer_error)
  return api


def list_routes(api: fastapi.FastAPI) -> list[routing.Route]:
  """Returns routes that lead another application to this one."""
  # A path once, whatever the number of its methods.
  paths = dict.fromkeys(
    route.path for route in api.routes if isinstance(route, routing.Route)
  )
  return [routing.Route(path, endpoint=api) for path in paths]


def _remove(
  service: service_lib.Service, fields: admission.Fields, as_json: bool
) -> responses.Response:
  # Forms send '' for what nobody filled in.
  fields = {name: value for name, value in fields.items() if value != ''}
  file, picture = fields.pop('file', None), fields.pop('background_file', None)
  options = problems.parse(Options, fields)
  if file is None:
    raise problems.ProblemError(
      'missing_source', 'There is no photo: send it as file'
    )
  background, kind = options.background, options.kind or 'cutout'
  if picture is not None and background:
    raise problems.ProblemError(
      'invalid_parameters', 'Pass background or background_file, not both'
    )
  has_background = bool(background) or picture is not None
  if has_background and kind == 'cutout':
    kind = 'composite'
  if has_background != (kind == 'composite'):
    raise problems.wrong(
      'kind',
      kind,
      'background or background_file is for composite, which needs one',
    )
  with service.take_turn() as folder:
    if picture is not None:
      path = folder / 'background.png'
      picture = _read(service, picture, 'background_file')
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
    photo = _read(service, file, 'file', _find_name(file))
    alpha = service.find_alpha(
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
  if as_json:
    data = {
      'result_b64': base64.b64encode(content).decode(),
      'photo_width': width,
      'photo_height': height,
      'notes': photo.notes,
    }
    return responses.JSONResponse({'data': data})
  media_type = removebg.MEDIA_TYPES[style.suffix(kind).removeprefix('.')]
  return responses.Response(content, media_type=media_type)


def _remove_bg(
  service: service_lib.Service, fields: admission.Fields, as_json: bool
) -> responses.Response:
  options = problems.parse(removebg.Options, fields)
  source = removebg.choose_source(options, fields)
  file, behind = fields[source], fields.get('bg_image_file')
  with service.take_turn():
    photo = _read(service, file, source, _find_name(file))
    picture = None
    if behind not in (None, ''):
      picture = _read(service, behind, 'bg_image_file')
    return removebg.cut_out(
      photo,
      options,
      picture,
      find_alpha=service.find_alpha,
      as_json=as_json,
    )


def _read(
  service: service_lib.Service, value: object, field: str, name: str = ''
) -> photos.Photo:
  content = _read_content(value, field, service.limits)
  return service.read(content, name or field)


def _read_content(
  value: object, field: str, limits: options_lib.Limits
) -> bytes:
  """Returns the content of a file that came as such, or as base64."""
  if isinstance(value, datastructures.UploadFile):
    size = value.size or 0
    if size > limits.bytes:
      raise _too_large(size, limits)
    return value.file.read()
  if isinstance(value, str):
    text = value.partition('base64,')[2] or value  # A data address.
    # Two more, since base64 fills up to three bytes.
    if len(text) * 3 // 4 > limits.bytes + 2:
      raise _too_large(len(text) * 3 // 4, limits)
    try:
      # Encoders break lines.
      return base64.b64decode(''.join(text.split()), validate=True)
    except (ValueError, binascii.Error):
      pass
  raise problems.ProblemError(
    'invalid_file', f'{field}: neither a file nor base64'
  )


def _find_name(value: Any) -> str:
  """Returns the name that a client gives a photo."""
  name = getattr(value, 'filename', None) or 'The photo'
  return service_lib.name_uploads([name])[0]


def _too_large(size: int, limits: options_lib.Limits) -> problems.ProblemError:
  text = limits.describe_excess(size)
  return problems.ProblemError('file_size_too_large', text, status=413)


async def _answer_error(
  request: fastapi.Request, error: Exception
) -> responses.Response:
  del request
  if isinstance(error, exceptions.HTTPException):
    # Of the framework: no such method, a form that is none.
    error = problems.ProblemError(
      'invalid_request',
      str(error.detail),
      status=error.status_code,
      headers=error.headers,
    )
  if not isinstance(error, problems.ProblemError):  # The server's log has it.
    text = 'The server made a mistake'
    error = problems.ProblemError('internal_error', text, status=500)
  return error.to_response()
