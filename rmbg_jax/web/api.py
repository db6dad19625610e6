"""Answers HTTP calls, one photo each: the routes beside the page.

`POST /api/remove` is the project's own call, `POST /v1.0/removebg` that of
remove.bg (`removebg.py`). Both work on the page's service, within its limits.
"""

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Literal

import fastapi
import pydantic
from PIL import ImageColor
from starlette import datastructures, exceptions, requests, responses, routing

import rmbg_jax
from data_pipelines.io import errors
from data_pipelines.io.types import JsonObject
from rmbg_jax.inference import refinement, rendering
from rmbg_jax.web import removebg
from rmbg_jax.web import service as service_lib

# Most bytes in a body beside its files, and most fields and files.
_OTHER_BYTES = 1_000_000
_MOST_FIELDS = 50
_MOST_FILES = 4
# Until a body must be there.
_BODY_SECONDS = 120
# Bodies that may arrive at once, for each request that may wait.
_ARRIVING = 4
_RETRY_SECONDS = 5
_SHOWN_LENGTH = 60  # Characters of a wrong value.

_MEDIA_TYPES = {
  'png': 'image/png',
  'webp': 'image/webp',
  'jpeg': 'image/jpeg',
}

Fields = JsonObject  # And files.


class Options(pydantic.BaseModel):
  """The fields of `/api/remove` beside `file`."""

  model_config = pydantic.ConfigDict(extra='forbid')

  kind: rendering.Kind | None = pydantic.Field(
    None, description='By default cutout, with a background composite.'
  )
  format: Literal['png', 'webp', 'jpeg', 'jpg'] = 'png'
  quality: int = pydantic.Field(95, ge=1, le=100)
  background: str = pydantic.Field(
    '', description="A colour (#rrggbb or its name), or 'blur'."
  )
  refine: refinement.Method = 'none'
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
      ImageColor.getrgb(value)
    return value


def make_api(
  service: service_lib.Service, *, keys: Sequence[bytes] = (), queue: int
) -> fastapi.FastAPI:
  """Returns the application with all routes but the page's.

  Args:
    service: Service that does the work.
    keys: One of which a call must have in X-Api-Key; none: nobody is asked.
    queue: Requests that may wait; another is answered by 429.
  """
  api = fastapi.FastAPI(
    title='RMBG-U2NET for JAX',
    version=rmbg_jax.__version__,
    description='Cuts out a photo in one call.',
    docs_url=None,  # Its page would load scripts from elsewhere.
    redoc_url=None,
  )
  door = _Door(service, keys, queue)

  @api.get('/healthz', summary='Whether the server answers')
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
    responses=_describe_answers('image/png', 'image/webp', 'image/jpeg'),
    openapi_extra=_describe_body(
      Options, {'file': True, 'background_file': False}, required='file'
    ),
  )
  async def remove(request: fastapi.Request):
    door.check_key(request, status=401)
    async with door.read(request) as fields:
      return await door.work(_remove, fields, _wants_json(request))

  @api.post(
    '/v1.0/removebg',
    summary="Cuts out a photo, by remove.bg's interface",
    response_class=responses.Response,
    responses=_describe_answers(*removebg.MEDIA_TYPES.values()),
    openapi_extra=_describe_body(
      removebg.Options,
      {'image_file': True, 'bg_image_file': False},
    ),
  )
  async def remove_bg(request: fastapi.Request):
    door.check_key(request, status=403)
    async with door.read(request) as fields:
      return await door.work(_remove_bg, fields, _wants_json(request))

  @api.get('/v1.0/account', summary="What remove.bg's clients ask first")
  async def show_account(request: fastapi.Request) -> dict[str, Any]:
    door.check_key(request, status=403)
    return removebg.ACCOUNT

  for kind in (removebg.ProblemError, exceptions.HTTPException, Exception):
    api.add_exception_handler(kind, _answer_error)
  return api


def list_routes(api: fastapi.FastAPI) -> list[routing.Route]:
  """Returns routes that lead another application to this one."""
  paths = dict.fromkeys(
    route.path for route in api.routes if isinstance(route, routing.Route)
  )
  return [routing.Route(path, endpoint=api) for path in paths]


class _Door:
  """Lets in who has a key, as many as may wait. Used by the event loop."""

  def __init__(
    self, service: service_lib.Service, keys: Sequence[bytes], queue: int
  ):
    self.waiting = 0
    self._arriving = 0
    self._service = service
    self._digests = [hashlib.sha256(key).digest() for key in keys]
    self._queue = queue

  def check_key(self, request: fastapi.Request, *, status: int) -> None:
    """Checks the key; how long that takes says nothing of it."""
    if not self._digests:
      return
    sent = request.headers.get('x-api-key', '').encode('latin-1')
    digest = hashlib.sha256(sent).digest()
    found = [hmac.compare_digest(digest, one) for one in self._digests]
    if not any(found):
      raise removebg.ProblemError(
        status,
        'auth_failed',
        'API Key invalid',
        'Send one of the keys of this server in the header X-Api-Key.',
      )

  @contextlib.asynccontextmanager
  async def read(self, request: fastapi.Request) -> AsyncIterator[Fields]:
    """Yields the fields of a request: texts, values of JSON, and files.

    Raises:
      ProblemError: if there are too many at once, or it is not a form or JSON
        within the limits.
    """
    if self._arriving >= _ARRIVING * self._queue:
      raise _too_many()
    self._arriving += 1
    try:
      async with contextlib.AsyncExitStack() as stack:
        try:
          async with asyncio.timeout(_BODY_SECONDS):
            fields = await self._read_body(request, stack)
        except TimeoutError as error:
          raise removebg.ProblemError(
            408,
            'request_timeout',
            f'The body did not arrive within {_BODY_SECONDS} seconds',
          ) from error
        except requests.ClientDisconnect as error:
          raise removebg.ProblemError(
            400, 'incomplete_body', 'The body is incomplete'
          ) from error
        yield fields
    finally:
      self._arriving -= 1

  async def _read_body(self, request, stack) -> Fields:
    most = 2 * self._service.limits.bytes + _OTHER_BYTES
    limited = _limit_body(request, most)
    form = request.headers.get('content-type', '').partition(';')[0].strip()
    if form == 'application/json':
      return _parse_json(await limited.body())
    if form in ('multipart/form-data', 'application/x-www-form-urlencoded'):
      data = await stack.enter_async_context(
        limited.form(
          max_files=_MOST_FILES, max_fields=_MOST_FIELDS, max_part_size=most
        )
      )
      fields = dict(data)
      if isinstance(options := fields.pop('options', None), str):
        fields = {**_parse_json(options.encode()), **fields}
      return fields
    raise removebg.ProblemError(
      415,
      'unsupported_media_type',
      'Send a form (curl -F file=@photo.jpg) or JSON',
      f'Content-Type is {form[:_SHOWN_LENGTH]!r}.',
    )

  async def work(
    self,
    function: Callable[[service_lib.Service, Fields, bool], responses.Response],
    fields: Fields,
    as_json: bool,
  ) -> responses.Response:
    """Waits for a turn and returns what the function does in a thread.

    Raises:
      ProblemError: if too many are waiting, or of the function.
    """
    if self.waiting >= self._queue + service_lib.AT_ONCE:
      raise _too_many()
    self.waiting += 1
    try:
      return await asyncio.get_running_loop().run_in_executor(
        self._service.pool, function, self._service, fields, as_json
      )
    except errors.UserError as error:
      # Flags are fields here.
      text = re.sub(r'--(?=[a-z])', '', str(error))
      code = (
        'resolution_too_high' if 'pixels than the limit' in text else 'invalid'
      )
      raise removebg.ProblemError(400, code, text) from error
    except OSError as error:
      logging.getLogger(__name__).exception('A request failed.')
      raise removebg.ProblemError(
        503, 'unavailable', f'The server cannot do it now: {error.strerror}'
      ) from error
    finally:
      self.waiting -= 1


def _remove(
  service: service_lib.Service, fields: Fields, as_json: bool
) -> responses.Response:
  fields = dict(fields)
  file, picture = fields.pop('file', None), fields.pop('background_file', None)
  options = removebg.parse(Options, fields)
  if file is None:
    raise removebg.ProblemError(
      400, 'missing_source', 'There is no photo: send it as file'
    )
  if picture is not None and options.background:
    raise removebg.ProblemError(
      400, 'invalid_parameters', 'Pass background or background_file, not both'
    )
  with service.take_turn() as folder:
    background = options.background
    if picture is not None:
      path = folder / 'background.png'
      content = read_content(picture, 'background_file', service.limits)
      service.read(content, 'background_file').rgb.save(path, compress_level=0)
      background = str(path)
    kind = options.kind or 'cutout'
    if background and kind == 'cutout':
      kind = 'composite'
    form = options.format.replace('jpg', 'jpeg')
    style = rendering.Style(
      format=form,
      quality=options.quality,
      background=background,
      estimate_foreground=options.estimate_foreground,
      trim=options.trim,
      trimap_width=options.trimap_width,
    )
    style.check_kinds((kind,))
    photo = service.read(
      read_content(file, 'file', service.limits), _find_name(file)
    )
    alpha = service.find_alpha(
      photo,
      checkpoint=options.checkpoint or service.checkpoints[0],
      refined=refinement.Refinement(
        method=options.refine,
        threshold=options.threshold,
        keep_largest=options.keep_largest,
        fill_holes=options.fill_holes,
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
  suffix = style.suffix(kind)
  form = {'.png': 'png', '.webp': 'webp', '.jpg': 'jpeg'}[suffix]
  return responses.Response(content, media_type=_MEDIA_TYPES[form])


def _remove_bg(
  service: service_lib.Service, fields: Fields, as_json: bool
) -> responses.Response:
  options = removebg.parse(removebg.Options, fields)
  source = removebg.choose_source(options, fields)
  with service.take_turn():
    photo = service.read(
      read_content(fields[source], source, service.limits),
      _find_name(fields[source]),
    )
    picture = None
    if (file := fields.get('bg_image_file')) not in (None, ''):
      content = read_content(file, 'bg_image_file', service.limits)
      picture = service.read(content, 'bg_image_file').rgb
    result = removebg.cut_out(
      photo,
      options,
      picture,
      find_alpha=lambda photo: service.find_alpha(
        photo,
        checkpoint=service.checkpoints[0],
        refined=refinement.Refinement(),
      ),
    )
  if as_json:
    return responses.JSONResponse({'data': result.to_json()})
  return responses.Response(
    result.content, media_type=result.media_type, headers=result.headers
  )


def read_content(value: object, name: str, limits: service_lib.Limits) -> bytes:
  """Returns the content of a file that came as such, or as base64.

  Raises:
    ProblemError: if it is too large, or neither.
  """
  if isinstance(value, datastructures.UploadFile):
    size = value.size or 0
    if size > limits.bytes:
      raise _too_large(size, limits)
    return value.file.read()
  if isinstance(value, str):
    text = value.partition('base64,')[2] or value  # A data address.
    if len(text) * 3 // 4 > limits.bytes + 2:
      raise _too_large(len(text) * 3 // 4, limits)
    try:
      return base64.b64decode(''.join(text.split()), validate=True)
    except (ValueError, binascii.Error):
      pass
  raise removebg.ProblemError(
    400, 'invalid_file', f'{name}: neither a file nor base64'
  )


def _find_name(value: Any) -> str:
  """Returns what a photo was called where it came from."""
  name = getattr(value, 'filename', None) or 'The photo'
  return service_lib.name_uploads([name])[0]


def _limit_body(request: fastapi.Request, most: int) -> fastapi.Request:
  """Returns the request with a body that ends in an error beyond so much."""
  problem = removebg.ProblemError(
    413, 'file_size_too_large', f'The body has more than {most} bytes'
  )
  length = request.headers.get('content-length', '')
  if length.isdecimal() and int(length) > most:
    raise problem
  received = 0

  async def receive():
    nonlocal received
    message = await request.receive()
    received += len(message.get('body', b''))
    if received > most:
      raise problem
    return message

  return fastapi.Request(request.scope, receive)


def _parse_json(text: bytes) -> Fields:
  try:
    fields = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise removebg.ProblemError(
      400, 'invalid_json', 'That is not JSON', str(error)[:_SHOWN_LENGTH]
    ) from error
  if not isinstance(fields, dict):
    raise removebg.ProblemError(
      400, 'invalid_json', 'Send a JSON object, such as {"kind": "mask"}'
    )
  return fields


def _wants_json(request: fastapi.Request) -> bool:
  accepted = request.headers.get('accept', '')
  return 'application/json' in accepted and 'image/' not in accepted


def _too_large(size: int, limits: service_lib.Limits) -> removebg.ProblemError:
  return removebg.ProblemError(
    413,
    'file_size_too_large',
    f'{size / 1_000_000:.1f} MB are more than the limit of '
    f'{limits.megabytes} MB. Reduce the photo.',
  )


def _too_many() -> removebg.ProblemError:
  return removebg.ProblemError(
    429,
    'rate_limit_exceeded',
    'Too many requests are waiting. Try again.',
    headers={'Retry-After': str(_RETRY_SECONDS)},
  )


async def _answer_error(
  request: fastapi.Request, error: Exception
) -> responses.Response:
  del request
  if isinstance(error, exceptions.HTTPException):
    # The framework's errors: wrong method, broken form.
    error = removebg.ProblemError(
      error.status_code,
      'invalid_request',
      str(error.detail),
      headers=error.headers,
    )
  if not isinstance(error, removebg.ProblemError):  # The server's log has it.
    error = removebg.ProblemError(
      500, 'internal_error', 'The server made a mistake'
    )
  return error.to_response()


def _describe_answers(*media_types: str) -> dict[int | str, Any]:
  picture = {'type': 'string', 'format': 'binary'}
  error = {'application/json': {'schema': removebg.ERROR_SCHEMA}}
  reasons = {
    '400': 'A parameter or a file that cannot be used',
    '401': 'No valid key',
    '403': 'No valid key',
    '408': 'The body did not arrive in time',
    '413': 'More bytes than the limit',
    '429': 'Too many requests are waiting',
  }
  answers: dict[int | str, Any] = {
    status: {'description': reason, 'content': error}
    for status, reason in reasons.items()
  }
  answers[200] = {
    'description': 'The result, or JSON with it where that is accepted',
    'content': {
      **{media_type: {'schema': picture} for media_type in media_types},
      'application/json': {'schema': {'type': 'object'}},
    },
  }
  return answers


def _describe_body(
  options: type[pydantic.BaseModel],
  files: Mapping[str, bool],
  *,
  required: str = '',
) -> dict[str, Any]:
  """Returns the OpenAPI description of a body.

  Args:
    options: Its fields.
    files: File fields by name, with whether JSON can have each as base64.
    required: Name of the file that must be there.
  """
  fields = options.model_json_schema()['properties']
  sent = {name: {'type': 'string', 'format': 'binary'} for name in files}
  texts = {
    name: {'type': 'string', 'contentEncoding': 'base64'}
    for name, in_json in files.items()
    if in_json
  }
  most = {'required': [required]} if required else {}
  content = {
    kind: {
      'schema': {'type': 'object', 'properties': {**more, **fields}, **most}
    }
    for kind, more in (
      ('multipart/form-data', sent),
      ('application/json', texts),
    )
  }
  return {'requestBody': {'required': True, 'content': content}}
