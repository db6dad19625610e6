"""Release files: one `.safetensors` that alone rebuilds the network.

The tensors are the flat `params/...` and `batch_stats/...`; the header has a
JSON description with the architecture, the preprocessing and whatever else the
releaser states (data, scores, licence). Networks that look at a photo too are
`partners` in it, and their tensors are below `partner1/` and so on. There is no
pickle in it.
"""

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from data_pipelines.io import checks, errors, files
from data_pipelines.io.types import JsonObject
from rmbg_jax import choices
from rmbg_jax.models import layers
from rmbg_jax.models.preprocessing import Preprocessing
from rmbg_jax.weights import loaded

# The metadata in which every file of the project describes itself, in JSON.
DESCRIPTION = 'rmbg_jax'
# The weights that come with the project. The default, called 'released', is the
# first, with the others as its partners.
RELEASED = ('small', 'lite')
REFINER = 'refiner'  # The weights of `--refine=learned`.
_PARTNER = 'partner{}/'  # Before the keys of another network, by its number.
# How each looks at a photo where nothing else is passed: options of
# `BackgroundRemover` (docs/results.md).
PREDICTIONS: dict[str, JsonObject] = {
  'released': {'scales': (1.0, 4 / 3), 'flip': True, 'temperature': 0.6},
  'small': {'temperature': 0.7},
  'lite': {'temperature': 0.7},
}
# Of the default, in place of its first network's (docs/model_card.md).
SCORES = {'all': {'images': 489, 'mae': 0.042, 'iou': 0.864}}


def find_released(name: str) -> Path:
  """Returns the path of one of `RELEASED`, or `REFINER`.

  The first one stands for 'released'.
  """
  stem = RELEASED[0] if name == 'released' else name
  return Path(__file__).parent / 'released' / f'{stem}.safetensors'


def save_release(
  path: Path,
  variables: layers.Variables,
  description: JsonObject,
  *,
  partners: Sequence[layers.Variables] = (),
  dtype: str = 'float16',
) -> None:
  """Writes a release file, atomically.

  Args:
    path: The file.
    variables: The network's.
    description: JSON-compatible, with `architecture`, `preprocessing` and, if
      there are partners, their descriptions as `partners`.
    partners: Variables of networks that look at a photo too.
    dtype: Type of parameters. Batch statistics stay float32: a variance can be
      beyond float16, and they are few.

  Raises:
    UserError: if a parameter is beyond the type.
  """
  tensors = {}
  for number, tree in enumerate((variables, *partners)):
    prefix = _PARTNER.format(number) if number else ''
    for key, value in layers.flatten(tree).items():
      kind = dtype if key.startswith('params/') else np.float32
      with np.errstate(over='ignore'):
        tensor = np.ascontiguousarray(value, kind)
      if np.isinf(tensor).any() and np.isfinite(value).all():
        raise errors.UserError(
          f'{path}: {key} has a value of {np.abs(value).max():g}, more than '
          f'{dtype} can hold. Export it with --dtype=float32.'
        )
      tensors[prefix + key] = tensor
  with files.write_atomically(path) as partial:
    # `save_file` would make a file that only its owner may read.
    metadata = {DESCRIPTION: json.dumps(dict(description))}
    partial.write_bytes(safetensors.numpy.save(tensors, metadata=metadata))


def read_header(path: Path) -> tuple[list[dict[str, Any]], int]:
  """Returns the descriptions of a file's networks, and how many numbers it has.

  Raises:
    UserError: if it is not a release file of this project, or damaged.
  """
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      description = files.parse_json(
        (file.metadata() or {}).get(DESCRIPTION, '{}'),
        f'{path}: the description in the header',
        remedy='Get the file again.',
      )
      described = _check_description(description, path)
      # `safe_open` is no mapping: it can be asked for its keys alone.
      slices = [file.get_slice(key) for key in file.keys()]  # noqa: SIM118
      return described, sum(math.prod(one.get_shape()) for one in slices)
  except safetensors.SafetensorError as error:
    raise errors.UserError(
      f'{path}: not a readable .safetensors file ({error}).'
    ) from error


def read_release(path: Path) -> loaded.LoadedModel:
  """Reads a release file.

  Raises:
    UserError: if it is not a release file of this project, or damaged, or its
      weights do not fit its network.
  """
  # Before the tensors: another project's may be many gigabytes.
  described, _ = read_header(path)
  tensors = safetensors.numpy.load_file(path)
  parts: list[dict[str, np.ndarray]] = [{} for _ in described]
  for key, tensor in tensors.items():
    number = re.match(r'partner([1-9]\d*)/', key)
    index = int(number[1]) if number and int(number[1]) < len(parts) else 0
    parts[index][key.removeprefix(_PARTNER.format(index))] = tensor
  first, *partners = (
    loaded.assemble(
      path,
      one,
      Preprocessing.from_dict(one['preprocessing'], f'{path}: preprocessing'),
      part,
    )
    for one, part in zip(described, parts, strict=True)
  )
  return dataclasses.replace(first, partners=tuple(partners))


_OPTIONS: checks.Checks = {
  'scales': (
    lambda v: (
      isinstance(v, list)
      and all(checks.is_positive(one) and one <= choices.MAX_SCALE for one in v)
    ),
    f'a list of numbers above 0 and at most {choices.MAX_SCALE}',
  ),
  'flip': (checks.is_bool, 'true or false'),
  'temperature': (checks.is_positive, 'a number above 0'),
  'stretch': (checks.is_bool, 'true or false'),
}


def _check_description(
  description: dict[str, Any], path: Path
) -> list[dict[str, Any]]:
  """Returns the descriptions of all networks of a file, the first one first.

  Raises:
    UserError: naming what is missing or impossible.
  """
  partners = description.pop('partners', [])
  described = [description, *(partners if isinstance(partners, list) else [{}])]
  for one in described:
    missing = [
      key
      for key in ('architecture', 'preprocessing')
      if not (isinstance(one, dict) and isinstance(one.get(key), dict))
    ]
    if missing:
      raise errors.UserError(
        f'{path}: the header does not state {" and ".join(missing)}, so this '
        'is not a release of this project. ImageNet weights for the encoder go '
        'to --config.model.encoder.weights.'
      )
    checks.check_object(
      one.get('prediction') or {}, _OPTIONS, f'{path}: prediction'
    )
  return described
