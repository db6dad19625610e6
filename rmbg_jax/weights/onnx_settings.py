"""Reads how to run an ONNX file from a JSON file beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from data_pipelines.io import errors, files
from rmbg_jax.models.preprocessing import Preprocessing

LONGEST_SIDE = 4096  # Pixels of the input.


class Settings(NamedTuple):
  """Settings to run a file with.

  Attributes:
    preprocessing: Preprocessing that the network expects of a photo.
    sigmoid: Whether the output is logits.
    output: Name or position of the output that is the mask.
    stretch: Whether each mask is stretched from its own minimum and maximum.
    about: `name`, `source` and `license`, as far as they are known.
  """

  preprocessing: Preprocessing
  sigmoid: bool
  output: str | int = 0
  stretch: bool = False
  about: Mapping[str, str] = {}


def read_settings(path: Path) -> Settings:
  """Reads a JSON file that says how to run an ONNX file.

  Raises:
    UserError: naming the key that is missing, unknown or impossible.
  """
  found = files.parse_json(
    path.read_bytes(), path, remedy='Write it again (docs/other_networks.md).'
  )
  known = {**_REQUIRED, **_OPTIONAL}
  missing = ', '.join(key for key in _REQUIRED if key not in found)
  unknown = ', '.join(key for key in found if key not in known)
  if missing or unknown:
    raise errors.UserError(
      f'{path}: '
      + (f'{missing} is missing' if missing else f'{unknown} is not known')
      + f'. The keys are {", ".join(known)}.'
    )
  for key, value in found.items():
    is_possible, wanted = known[key]
    if not is_possible(value):
      raise errors.UserError(
        f'{path}: {key}={json.dumps(value)}; it must be {wanted}.'
      )
  return Settings(
    Preprocessing.from_dict(
      {key: found[key] for key in ('size', 'channels', 'scale', 'mean', 'std')}
    ),
    found['sigmoid'],
    found.get('output', 0),
    found.get('stretch', False),
    {key: found[key] for key in ('name', 'source', 'license') if key in found},
  )


def _is_number(value: object) -> bool:
  return (
    isinstance(value, int | float)
    and not isinstance(value, bool)  # To Python, True is 1.
    and abs(value) < 1e9  # JSON may have NaN and Infinity.
  )


def _are_three(value: object) -> bool:
  return (
    isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))
  )


def _is_size(value: object) -> bool:
  return (
    isinstance(value, list)
    and len(value) == 2
    and all(type(side) is int and 16 <= side <= LONGEST_SIDE for side in value)
  )


# Check of a value, and what it must be in words. Any: a value of JSON.
_REQUIRED: dict[str, tuple[Any, str]] = {
  'size': (_is_size, f'[height, width], each 16 to {LONGEST_SIDE}'),
  'channels': (lambda v: v in ('rgb', 'bgr'), '"rgb" or "bgr"'),
  'scale': (
    lambda v: v == 'maximum' or (_is_number(v) and v > 0),
    'a number above 0, or "maximum"',
  ),
  'mean': (_are_three, 'three numbers'),
  'std': (lambda v: _are_three(v) and all(v), 'three numbers other than 0'),
  'sigmoid': (
    lambda v: isinstance(v, bool),
    'true (the output is logits) or false',
  ),
}
_OPTIONAL: dict[str, tuple[Any, str]] = {
  'output': (
    lambda v: isinstance(v, str) or (type(v) is int and v >= 0),
    'the name or the position of an output',
  ),
  'stretch': (lambda v: isinstance(v, bool), 'true or false'),
  **dict.fromkeys(
    ('name', 'source', 'license'), (lambda v: isinstance(v, str), 'a text')
  ),
}
