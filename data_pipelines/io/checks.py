"""Checks objects of JSON files, which users and other programs write."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from data_pipelines.io import errors

# By key: the check of a value, and what it must be in words. Any: JSON's.
Checks = Mapping[str, tuple[Callable[[Any], bool], str]]


def check_object(
  found: object, checks: Checks, place: object, *, required: Iterable[str] = ()
) -> None:
  """Checks an object of JSON.

  Args:
    found: The object.
    checks: The keys that it may have.
    place: Where it is, for the error.
    required: The keys that it must have.

  Raises:
    UserError: if it is no object, or naming the key that is missing, unknown or
      impossible.
  """
  if not isinstance(found, Mapping):
    raise errors.UserError(
      f'{place}: {json.dumps(found)} is no object of JSON.'
    )
  missing = ', '.join(key for key in required if key not in found)
  unknown = ', '.join(key for key in found if key not in checks)
  if missing or unknown:
    raise errors.UserError(
      f'{place}: '
      + (f'{missing} is missing' if missing else f'{unknown} is not known')
      + f'. The keys are {", ".join(checks)}.'
    )
  for key, value in found.items():
    is_possible, wanted = checks[key]
    if not is_possible(value):
      raise errors.UserError(
        f'{place}: {key}={json.dumps(value)}; it must be {wanted}.'
      )


def is_number(value: object) -> bool:
  """Returns whether a value is a number, finite and of usual size."""
  return (
    isinstance(value, int | float)
    and not isinstance(value, bool)  # To Python, True is 1.
    and abs(value) < 1e9  # JSON may have NaN and Infinity.
  )


def is_positive(value: object) -> bool:
  """Returns whether a value is such a number above 0."""
  return is_number(value) and value > 0  # ty: ignore[unsupported-operator]


def is_text(value: object) -> bool:
  """Returns whether a value is a text."""
  return isinstance(value, str)


def is_bool(value: object) -> bool:
  """Returns whether a value is true or false."""
  return isinstance(value, bool)
