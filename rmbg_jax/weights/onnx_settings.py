"""Reads how to run an ONNX file from a JSON file beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from data_pipelines.io import checks, files
from rmbg_jax.models import preprocessing


class Settings(NamedTuple):
  """Settings to run a file with.

  Attributes:
    preprocessing: Preprocessing that the network expects of a photo.
    sigmoid: Whether the output is logits.
    output: Name or position of the output that is the mask.
    stretch: Whether each mask is stretched from its own minimum and maximum.
    about: `name`, `source` and `license`, as far as they are known.
  """

  preprocessing: preprocessing.Preprocessing
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
  checks.check_object(found, known, path, required=_REQUIRED)
  return Settings(
    preprocessing.Preprocessing.from_dict(
      {key: found[key] for key in preprocessing.CHECKS}
    ),
    found['sigmoid'],
    found.get('output', 0),
    found.get('stretch', False),
    {key: found[key] for key in ('name', 'source', 'license') if key in found},
  )


_REQUIRED: checks.Checks = {
  **preprocessing.CHECKS,
  'sigmoid': (checks.is_bool, 'true (the output is logits) or false'),
}
_OPTIONAL: checks.Checks = {
  'output': (
    lambda v: isinstance(v, str) or (type(v) is int and v >= 0),
    'the name or the position of an output',
  ),
  'stretch': (checks.is_bool, 'true or false'),
  **dict.fromkeys(('name', 'source', 'license'), (checks.is_text, 'a text')),
}
