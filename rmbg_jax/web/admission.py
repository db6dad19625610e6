"""Lets requests in: who has a key, as many as may wait, within the limits."""

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Sequence

import fastapi
from starlette import requests, responses

from data_pipelines.io import errors
from data_pipelines.io.types import JsonObject
from rmbg_jax.web import problems
from rmbg_jax.web import service as service_lib

# What a body may have beside its files, in bytes, and of fields and files.
_OTHER_BYTES = 1_000_000
_MOST_FIELDS = 50
_MOST_FILES = 4
# Until a body must be there.
_BODY_SECONDS = 120
# Bodies that may arrive at once, for each request that may wait.
_ARRIVING = 4

Fields = JsonObject  # And files.


class Door:
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
      raise problems.ProblemError(
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
      raise problems.too_many()
    self._arriving += 1
    try:
      async with contextlib.AsyncExitStack() as stack:
        try:
          async with asyncio.timeout(_BODY_SECONDS):
            fields = await self._read_body(request, stack)
        except TimeoutError as error:
          raise problems.ProblemError(
            408,
            'request_timeout',
            f'The body did not arrive within {_BODY_SECONDS} seconds',
          ) from error
        except requests.ClientDisconnect as error:
          raise problems.ProblemError(
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
    raise problems.ProblemError(
      415,
      'unsupported_media_type',
      'Send a form (curl -F file=@photo.jpg) or JSON',
      f'Content-Type is {form[: problems.SHOWN_LENGTH]!r}.',
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
      raise problems.too_many()
    self.waiting += 1
    try:
      return await asyncio.get_running_loop().run_in_executor(
        self._service.pool, function, self._service, fields, as_json
      )
    except errors.UserError as error:
      # Of flags, which are fields here.
      text = re.sub(r'--(?=[a-z])', '', str(error))
      code = (
        'resolution_too_high' if 'pixels than the limit' in text else 'invalid'
      )
      raise problems.ProblemError(400, code, text) from error
    except OSError as error:
      logging.getLogger(__name__).exception('A request failed.')
      raise problems.ProblemError(
        503, 'unavailable', f'The server cannot do it now: {error.strerror}'
      ) from error
    finally:
      self.waiting -= 1


def _limit_body(request: fastapi.Request, most: int) -> fastapi.Request:
  """Returns the request with a body that ends in an error beyond so much."""
  problem = problems.ProblemError(
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
    raise problems.ProblemError(
      400,
      'invalid_json',
      'That is not JSON',
      str(error)[: problems.SHOWN_LENGTH],
    ) from error
  if not isinstance(fields, dict):
    raise problems.ProblemError(
      400, 'invalid_json', 'Send a JSON object, such as {"kind": "mask"}'
    )
  return fields
