"""Takes calls in: how many wait, their fields and files, their answers."""

import asyncio
import base64
import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import fastapi
import pydantic
from starlette import datastructures, responses

from data_pipelines.io import errors
from data_pipelines.io.types import JsonObject
from rmbg_jax.inference import photos
from rmbg_jax.web import problems
from rmbg_jax.web import service as service_lib

_MOST_FIELDS = 50
_MOST_FILES = 4

_Model = TypeVar('_Model', bound=pydantic.BaseModel)


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
  """The answer to a call.

  Attributes:
    content: The file.
    form: Its format: 'png', 'jpg', 'webp' or 'zip'.
    facts: What an answer in JSON has beside the file.
    headers: Headers of an answer that is the file.
  """

  content: bytes
  form: str
  facts: dict[str, Any]
  headers: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def to_response(self, *, as_json: bool) -> responses.Response:
    """Returns the response."""
    if as_json:
      code = base64.b64encode(self.content).decode()
      return responses.JSONResponse({'data': {'result_b64': code} | self.facts})
    kind = f'image/{self.form.replace("jpg", "jpeg")}'
    return responses.Response(
      self.content,
      media_type='application/zip' if self.form == 'zip' else kind,
      headers=dict(self.headers),
    )


class Call:
  """A call whose turn has come.

  Attributes:
    service: What works on it.
    fields: Its fields and files by name, without the empty ones.
  """

  def __init__(self, service: service_lib.Service, fields: JsonObject):
    self.service = service
    # Forms send '' for what nobody filled in.
    self.fields = {
      name: value for name, value in fields.items() if value not in ('', None)
    }

  def parse(self, model: type[_Model], *files: str) -> _Model:
    """Returns the fields but the files as options.

    Raises:
      ProblemError: naming the first that is wrong.
    """
    try:
      return model.model_validate(
        {n: value for n, value in self.fields.items() if n not in files}
      )
    except pydantic.ValidationError as error:
      first = error.errors(include_url=False)[0]
      name = str(first['loc'][0])[: problems.SHOWN_LENGTH]
      value = first['input']
      if not isinstance(value, str | int | float):
        value = type(value).__name__
      if first['type'] == 'extra_forbidden':
        raise problems.ProblemError(
          'invalid_parameters',
          f'{name}: no such parameter. Choose from '
          f'{", ".join(model.model_fields)}',
        ) from error
      # Pydantic puts that before the text of a ValueError.
      message = first['msg'].removeprefix('Value error, ')
      raise problems.wrong(name, str(value), message) from error

  def read(self, field: str, name: str = '') -> photos.Photo:
    """Reads a picture that came as a file, or as base64.

    Args:
      field: Its field.
      name: Name for errors, if it is not the field's.

    Raises:
      ProblemError: if it is neither, or too large a file.
      UserError: if it is no picture, or has too many pixels.
    """
    value, content = self.fields[field], None
    if isinstance(value, datastructures.UploadFile):
      self._check_size(value.size or 0)
      content = value.file.read()
    elif isinstance(value, str):
      text = value.partition('base64,')[2] or value  # A data address.
      # Two less, since base64 fills up to three bytes.
      self._check_size(len(text) * 3 // 4 - 2)
      with contextlib.suppress(ValueError):
        # Encoders break lines.
        content = base64.b64decode(''.join(text.split()), validate=True)
    if content is None:
      raise problems.ProblemError(
        'invalid_file', f'{field}: neither a file nor base64'
      )
    try:
      return photos.read_photo(content, max_pixels=self.service.limits.pixels)
    except errors.UserError as error:
      text = str(error).removeprefix('The given bytes: ')
      raise type(error)(f'{name or field}: {text}') from error

  def read_photo(self, field: str) -> photos.Photo:
    """Reads the photo to cut out; as `read`, by the client's name for it."""
    name = getattr(self.fields[field], 'filename', None) or 'The photo'
    return self.read(field, service_lib.name_uploads([name])[0])

  def _check_size(self, size: int) -> None:
    if text := self.service.limits.find_excess(size):
      raise problems.ProblemError('file_size_too_large', text)


class Door:
  """Lets in as many as may wait. Used by the event loop.

  Attributes:
    waiting: Requests that wait or are worked on.
  """

  def __init__(self, service: service_lib.Service, queue: int):
    self.waiting = 0
    self._service = service
    self._queue = queue
    self._turns = asyncio.Semaphore(service_lib.AT_ONCE)

  async def work(
    self, function: Callable[[Call], File], request: fastapi.Request
  ) -> responses.Response:
    """Waits for a turn and answers with what the function does in a thread.

    The body is read at its turn: those that wait are not in memory.

    Raises:
      ProblemError: if too many are waiting, if the body is not a form or JSON
        within the limits, or of the function.
    """
    if self.waiting >= self._queue + service_lib.AT_ONCE:
      raise problems.ProblemError(
        'rate_limit_exceeded', 'Too many requests are waiting. Try again.'
      )
    self.waiting += 1
    try:
      async with self._turns:
        call = Call(self._service, await self._read_body(request))
        file = await asyncio.to_thread(function, call)
    finally:
      self.waiting -= 1
      await request.close()
    accepted = request.headers.get('accept', '')
    # Who takes both gets the picture.
    as_json = 'application/json' in accepted and 'image/' not in accepted
    return file.to_response(as_json=as_json)

  async def _read_body(self, request: fastapi.Request) -> JsonObject:
    form = request.headers.get('content-type', '').partition(';')[0].strip()
    if form == 'application/json':
      return _parse_json(await request.body())
    if form in ('multipart/form-data', 'application/x-www-form-urlencoded'):
      fields = dict(
        await request.form(
          max_files=_MOST_FILES,
          max_fields=_MOST_FIELDS,
          # Starlette takes 1 MB by default, too little for a photo in base64.
          max_part_size=self._service.limits.call_bytes,
        )
      )
      if isinstance(options := fields.pop('options', None), str):
        # Own fields count first.
        return {**_parse_json(options), **fields}
      return fields
    raise problems.ProblemError(
      'unsupported_media_type',
      'Send a form (curl -F file=@photo.jpg) or JSON',
      f'Content-Type is {form[: problems.SHOWN_LENGTH]!r}.',
    )


def _parse_json(text: str | bytes) -> JsonObject:
  try:
    fields = json.loads(text)
  # RecursionError: of brackets that are nested a thousand deep.
  except (ValueError, RecursionError) as error:
    why = str(error)[: problems.SHOWN_LENGTH]
    raise problems.ProblemError(
      'invalid_json', 'That is not JSON', why
    ) from error
  if not isinstance(fields, dict):
    raise problems.ProblemError(
      'invalid_json', 'Send a JSON object, such as {"kind": "mask"}'
    )
  return fields
