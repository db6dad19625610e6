"""Describes the calls for OpenAPI."""

from collections.abc import Mapping
from typing import Any

import pydantic

from rmbg_jax.web import problems


def describe_answers(*other_types: str) -> dict[int | str, Any]:
  """Returns the OpenAPI description of answers by their status.

  A result is a picture, or of one of the other media types.
  """
  pictures = ('image/png', 'image/webp', 'image/jpeg')
  picture = {'type': 'string', 'format': 'binary'}
  error = {'application/json': {'schema': problems.ERROR_SCHEMA}}
  reasons = {
    '400': 'A parameter or a file that cannot be used',
    '401': 'No valid key',
    '403': 'No valid key',
    '408': 'The body did not arrive in time',
    '413': 'More bytes than the limit',
    '429': 'Too many requests are waiting',
    '503': 'No room now',
  }
  answers: dict[int | str, Any] = {
    status: {'description': reason, 'content': error}
    for status, reason in reasons.items()
  }
  answers[200] = {
    'description': 'The result, or JSON with it where that is accepted',
    'content': {
      **{kind: {'schema': picture} for kind in (*pictures, *other_types)},
      'application/json': {'schema': {'type': 'object'}},
    },
  }
  return answers


def describe_body(
  options: type[pydantic.BaseModel],
  files: Mapping[str, bool],
  *,
  required: str = '',
) -> dict[str, Any]:
  """Returns the OpenAPI description of a body with these fields and files.

  Of each file, it is said whether JSON can have it as base64.
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
