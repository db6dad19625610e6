"""Limits how many requests wait, and reads their fields and files."""

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Callable

import fastapi
from starlette import responses

from data_pipelines.io import errors
from data_pipelines.io.types import JsonObject
from rmbg_jax.web import problems
from rmbg_jax.web import service as service_lib

# Most bytes of a body beside its files, and most fields and files.
OTHER_BYTES = 1_000_000
_MOST_FIELDS = 50
_MOST_FILES = 4

Fields = JsonObject  # And files.


def count_most(service: service_lib.Service) -> int:
  """Returns the bytes of the largest body: two files, and the rest."""
  return 2 * service.limits.bytes + OTHER_BYTES


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
    self,
    function: Callable[[service_lib.Service, Fields, bool], responses.Response],
    request: fastapi.Request,
  ) -> responses.Response:
    """Waits for a turn and returns what the function does in a thread.

    It gets the service, the fields, and whether to answer with JSON. The body
    is read at its turn: those that wait are not in memory.

    Raises:
      ProblemError: if too many are waiting, if the body is not a form or JSON
        within the limits, or of the function.
    """
    if self.waiting >= self._queue + service_lib.AT_ONCE:
      why = 'Too many requests are waiting.'
      raise problems.busy('rate_limit_exceeded', why, status=429)
    self.waiting += 1
    accepted = request.headers.get('accept', '')
    # Who takes both gets the picture.
    as_json = 'application/json' in accepted and 'image/' not in accepted
    try:
      async with self._turns, contextlib.AsyncExitStack() as stack:
        fields = await self._read_body(request, stack)
        return await asyncio.get_running_loop().run_in_executor(
          self._service.pool, function, self._service, fields, as_json
        )
    except errors.UserError as error:
      # Messages name flags, which are fields here.
      text = re.sub('--no([a-z_]+)', r'\1=false', str(error))
      text = re.sub('--(?=[a-z])', '', text.replace('--save', 'kind'))
      is_large = isinstance(error, errors.TooManyPixelsError)
      code = 'resolution_too_high' if is_large else 'invalid'
      raise problems.ProblemError(code, text) from error
    except OSError as error:
      logging.getLogger(__name__).exception('A request failed.')
      reason = error.strerror or type(error).__name__
      text = f'The server cannot do it now: {reason}'
      raise problems.ProblemError('unavailable', text, status=503) from error
    finally:
      self.waiting -= 1

  async def _read_body(self, request, stack) -> Fields:
    form = request.headers.get('content-type', '').partition(';')[0].strip()
    if form == 'application/json':
      return _parse_json(await request.body())
    if form in ('multipart/form-data', 'application/x-www-form-urlencoded'):
      data = await stack.enter_async_context(
        request.form(
          max_files=_MOST_FILES,
          max_fields=_MOST_FIELDS,
          # Starlette takes 1 MB by default, too little for a photo in base64.
          max_part_size=count_most(self._service),
        )
      )
      fields = dict(data)
      if isinstance(options := fields.pop('options', None), str):
        # Own fields count first.
        fields = {**_parse_json(options.encode()), **fields}
      return fields
    raise problems.ProblemError(
      'unsupported_media_type',
      'Send a form (curl -F file=@photo.jpg) or JSON',
      f'Content-Type is {form[: problems.SHOWN_LENGTH]!r}.',
      status=415,
    )


def _parse_json(text: bytes) -> Fields:
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
