"""Defines the answers to calls that cannot be done."""

import logging
import re
from collections.abc import Mapping

import fastapi
from starlette import exceptions, responses

from data_pipelines.io import errors

SHOWN_LENGTH = 60  # Characters of a wrong value.
# Of codes whose status is not 400.
_STATUSES = {
  'auth_failed': 401,
  'file_size_too_large': 413,
  'internal_error': 500,
  'rate_limit_exceeded': 429,
  'request_timeout': 408,
  'unavailable': 503,
  'unsupported_media_type': 415,
}
# Seconds after which to ask again, where that is of use.
_RETRY = {429: '5', 503: '5'}


class ProblemError(Exception):
  """Ends a request with a status and a body that says why."""

  def __init__(
    self,
    code: str,
    title: str,
    detail: str = '',
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
  ):
    """Makes the answer; its status is the code's own, if none is given."""
    super().__init__(title)
    self._status = status or _STATUSES.get(code, 400)
    self._entry = {'title': title, 'code': code}
    if detail:
      self._entry['detail'] = detail
    self._headers = dict(headers or {})
    if self._status in _RETRY:
      self._headers['Retry-After'] = _RETRY[self._status]

  def to_response(self) -> responses.Response:
    """Returns the response."""
    return responses.JSONResponse(
      {'errors': [self._entry]},
      status_code=self._status,
      headers=self._headers,
    )


def wrong(name: str, value: str, remedy: str) -> ProblemError:
  """Returns the answer to a wrong parameter."""
  text = f'{name}={value[:SHOWN_LENGTH]}: {remedy}'
  return ProblemError('invalid_parameters', text)


async def answer(_: fastapi.Request, error: Exception) -> responses.Response:
  """Answers what a call raised; a handler of these and all other errors."""
  return _convert(error).to_response()


def _convert(error: Exception) -> ProblemError:
  if isinstance(error, ProblemError):
    return error
  if isinstance(error, exceptions.HTTPException):
    # Of the framework: no such method, a form that is none.
    return ProblemError(
      'invalid_request',
      str(error.detail),
      status=error.status_code,
      headers=error.headers,
    )
  if isinstance(error, errors.UserError):
    # Messages name flags, which are fields here.
    text = re.sub('--no([a-z_]+)', r'\1=false', str(error))
    text = re.sub('--(?=[a-z])', '', text.replace('--save', 'kind'))
    is_large = isinstance(error, errors.TooManyPixelsError)
    return ProblemError('resolution_too_high' if is_large else 'invalid', text)
  if isinstance(error, OSError):
    logging.getLogger(__name__).error('A request failed.', exc_info=error)
    reason = error.strerror or type(error).__name__
    text = f'The server cannot do it now: {reason}'
    return ProblemError('unavailable', text)
  # The server's log has it.
  return ProblemError('internal_error', 'The server made a mistake')
