"""Defines the answers to calls that cannot be done, and checks of fields."""

from collections.abc import Mapping
from typing import TypeVar

import pydantic
from starlette import responses

from data_pipelines.io.types import JsonObject

SHOWN_LENGTH = 60  # Characters of a wrong value.
_TEXTS = dict.fromkeys(('title', 'code', 'detail'), {'type': 'string'})
ERROR_SCHEMA = {
  'type': 'object',
  'properties': {
    'errors': {
      'type': 'array',
      'items': {'type': 'object', 'properties': _TEXTS},
    }
  },
}

_Model = TypeVar('_Model', bound=pydantic.BaseModel)


class ProblemError(Exception):
  """Ends a request with a status and a body that says why."""

  def __init__(
    self,
    code: str,
    title: str,
    detail: str = '',
    *,
    status: int = 400,
    headers: Mapping[str, str] | None = None,
  ):
    super().__init__(title)
    self._status = status
    self._entry = {'title': title, 'code': code}
    if detail:
      self._entry['detail'] = detail
    self._headers = headers

  def to_response(self) -> responses.Response:
    """Returns the response."""
    return responses.JSONResponse(
      {'errors': [self._entry]},
      status_code=self._status,
      headers=dict(self._headers or {}),
    )


def parse(model: type[_Model], fields: JsonObject) -> _Model:
  """Returns the fields as options; empty ones count as left out.

  Raises:
    ProblemError: naming the first that is wrong.
  """
  # Forms send '' for what nobody filled in.
  fields = {
    name: value for name, value in fields.items() if value not in ('', None)
  }
  try:
    return model.model_validate(fields)
  except pydantic.ValidationError as error:
    first = error.errors(include_url=False)[0]
    name = str(first['loc'][0])[:SHOWN_LENGTH]
    value = first['input']
    if not isinstance(value, str | int | float):
      value = type(value).__name__
    if first['type'] == 'extra_forbidden':
      raise ProblemError(
        'invalid_parameters',
        f'{name}: no such parameter. Choose from '
        f'{", ".join(model.model_fields)}',
      ) from error
    # Pydantic puts that before the text of a ValueError.
    message = first['msg'].removeprefix('Value error, ')
    raise wrong(name, str(value), message) from error


def busy(code: str, why: str, *, status: int) -> ProblemError:
  """Returns the answer to what may be tried again soon."""
  headers = {'Retry-After': '5'}
  return ProblemError(code, f'{why} Try again.', status=status, headers=headers)


def wrong(name: str, value: str, remedy: str) -> ProblemError:
  """Returns the answer to a wrong parameter."""
  text = f'{name}={value[:SHOWN_LENGTH]}: {remedy}'
  return ProblemError('invalid_parameters', text)
