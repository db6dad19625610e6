"""Takes other people's networks as they are: ONNX files that make a mask.

Their operations are run by OpenVINO, or by onnxruntime where OpenVINO lacks
one. What the file does not say (how a photo becomes its input, and what its
output means) is known of the published files, by checksum, and otherwise read
from a JSON file beside it.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, NoReturn, TypeVar

from data_pipelines.io import checks, errors, files
from data_pipelines.io.types import JsonObject
from rmbg_jax.models import layers as layers_lib
from rmbg_jax.models import preprocessing
from rmbg_jax.weights import onnx_package, onnx_published

T = TypeVar('T')

SUFFIX = '.json'  # Added to the ONNX file's name for its settings.

_FLOATS = {1: 'float32', 10: 'float16'}


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnnxNetwork:
  """A network in an ONNX file.

  It is a `layers.Network` that cannot be taken apart.

  Attributes:
    path: Path of the file.
    output: Name or position of the output that is the mask.
    sigmoid: Whether that output is logits; otherwise probabilities.
    content: The file's bytes, for machines that do not have the file.
  """

  channels: ClassVar[int] = 3
  path: Path
  output: str | int
  sigmoid: bool
  content: bytes | None = dataclasses.field(
    default=None, repr=False, compare=False
  )
  bn_momentum: float = 0.0  # It is not trained.

  def compute(self, layers: layers_lib.Layers[T], images: T) -> tuple[T, ...]:
    """Refuses, as `refuse` does: its operations are not this project's."""
    self.refuse()

  def find_stage(self, child: str) -> int:
    """Refuses, as `refuse` does: its parts are not known."""
    self.refuse()

  def refuse(self) -> NoReturn:
    """Raises a `UserError` that says what to use for more than prediction."""
    raise errors.UserError(
      f'{self.path}: a foreign ONNX network is only run as it is, on a CPU: it '
      'cannot be trained or exported. To train, start from u2netp or another '
      'checkpoint of this project; to use it elsewhere, take the .onnx file.'
    )

  def check_mask(self, shape: tuple[int, ...]) -> None:
    """Raises a `UserError` if an output of that shape is not one mask."""
    if not is_mask(shape):
      raise errors.UserError(
        f'{self.path}: its output {self.output} is '
        f'{"x".join(map(str, shape))}, not one mask (1x1xHEIGHTxWIDTH). Name '
        f'another in {self.path.name}{SUFFIX}.'
      )

  def pack(self) -> 'OnnxNetwork':
    """Returns the same with its content, to be sent to another machine."""
    return dataclasses.replace(self, content=self.path.read_bytes())


# What a JSON file says: the preprocessing of photos, which output is the mask,
# whether it is logits, whether each mask is stretched to [0, 1], and whose the
# network is.
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


def find_settings(path: Path, sha256: str) -> JsonObject | None:
  """Returns how to run a file, as a JSON file says it; None if nothing does.

  The JSON file beside it counts first, then what is known by checksum. What
  the JSON file says is compared with the ONNX file.

  Raises:
    UserError: naming the key that is missing, unknown or impossible, or if the
      ONNX file cannot be used.
  """
  beside = path.with_name(path.name + SUFFIX)
  if beside.exists():
    settings = files.parse_json(
      beside.read_bytes(),
      beside,
      remedy='Write it again (docs/other_networks.md).',
    )
    checks.check_object(
      settings, {**_REQUIRED, **_OPTIONAL}, beside, required=_REQUIRED
    )
    _check(path, settings, beside)
    return settings
  known = onnx_published.find_known(f'sha256:{sha256}')
  # Most publishers state MD5 (`onnx_published.py`).
  return known or onnx_published.find_known(
    f'md5:{files.hash_file(path, "md5")}'
  )


def describe(
  network: OnnxNetwork, settings: JsonObject, sha256: str
) -> dict[str, Any]:
  """Returns the description that tells it from any other network."""
  about = {
    key: settings[key]
    for key in ('name', 'source', 'license')
    if key in settings
  }
  return {
    **about,
    'architecture': {
      'name': 'onnx',
      'sha256': sha256,
      'output': network.output,
      'sigmoid': network.sigmoid,
    },
    'prediction': {'stretch': settings.get('stretch', False)},
  }


def explain_missing(path: Path, reason: str) -> errors.UserError:
  """Returns the error for a file without settings.

  The reason, which begins with the path, says why it is not run as a U2-Net.
  """
  try:
    facts = _read_facts(path)
  except errors.UserError as error:
    text = str(error).removeprefix(f'{path}: ')
    return errors.UserError(f'{reason} As another network: {text}')
  height, width = (side or 1024 for side in facts.sides)
  template = {
    'size': [height, width],
    'channels': 'rgb',
    'scale': 255.0,
    'mean': [0.485, 0.456, 0.406],
    'std': [0.229, 0.224, 0.225],
    'output': next(iter(facts.outputs)),
    'sigmoid': False,
    'stretch': False,
  }
  lines = ',\n'.join(
    f'  {json.dumps(key)}: {json.dumps(value)}'
    for key, value in template.items()
  )
  outputs = ', '.join(
    f'{name} {_format(shape)}' for name, shape in facts.outputs.items()
  )
  return errors.UserError(
    f'{reason} Nothing says how to run another network. Write '
    f'{path.name}{SUFFIX} beside it (docs/other_networks.md), with the values '
    f'of its authors in place of these:\n{{\n{lines}\n}}\nThe file says: input '
    f'{facts.name} {_format((None, 3, *facts.sides))}; outputs {outputs}.'
  )


class _Facts(NamedTuple):
  name: str  # Of the input.
  sides: tuple[int | None, int | None]  # Height and width, None where free.
  outputs: dict[str, tuple[int | None, ...] | None]  # Shapes, where stated.


def _read_facts(path: Path) -> _Facts:
  """Reads names and shapes; the file must be whole, and take photos."""
  model = onnx_package.read(path)
  import onnx

  outputs = {one.name: _shape(one) for one in model.graph.output}
  for one in model.graph.output:  # Some do not state it, as they must.
    one.type.tensor_type.shape.SetInParent()
  try:  # OpenVINO crashes at some that this refuses.
    # By path, since a model is copied first; what is mended is only in memory.
    onnx.checker.check_model(path if all(outputs.values()) else model)
  except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
    raise errors.UserError(
      f'{path}: damaged, or not written by the rules of ONNX '
      f'({str(error).partition(chr(10))[0]}). Download or export it again.'
    ) from error
  # Old files list their weights among the inputs.
  weights = {tensor.name for tensor in model.graph.initializer}
  inputs = [one for one in model.graph.input if one.name not in weights]
  shape = _shape(inputs[0]) if len(inputs) == 1 else None
  if not (
    shape
    and len(shape) == 4
    and shape[0] in (1, None)
    and shape[1] == 3
    and inputs[0].type.tensor_type.elem_type in _FLOATS
    and model.graph.output
  ):
    found = ', '.join(f'{one.name} {_format(_shape(one))}' for one in inputs)
    raise errors.UserError(
      f'{path}: it must take one photo as 1x3xHEIGHTxWIDTH floats, but its '
      f'inputs are: {found or "none"}. Export it in that form.'
    )
  return _Facts(inputs[0].name, (shape[2], shape[3]), outputs)


def _check(path: Path, settings: JsonObject, beside: Path) -> None:
  facts = _read_facts(path)
  size = settings['size']
  if any(
    own not in (None, side) for own, side in zip(facts.sides, size, strict=True)
  ):
    raise errors.UserError(
      f'{beside}: size={list(size)}, but {path.name} takes '
      f'{_format(facts.sides)} alone. Write that size.'
    )
  names = list(facts.outputs)
  output = settings.get('output', 0)
  if isinstance(output, int) and output < len(names):
    output = names[output]
  if output not in facts.outputs:
    raise errors.UserError(
      f'{beside}: output={output}, but {path.name} has '
      f'{", ".join(names)}. Name one of them.'
    )
  shape = facts.outputs[output]
  if shape and not is_mask(shape):
    raise errors.UserError(
      f'{beside}: the output {output} of {path.name} is {_format(shape)}, not '
      'one mask (1x1xHEIGHTxWIDTH). Name another: '
      f'{", ".join(f"{n} {_format(s)}" for n, s in facts.outputs.items())}.'
    )


def is_mask(shape: tuple[int | None, ...]) -> bool:
  """Returns whether an output's shape is that of one mask; None is any."""
  return len(shape) in (3, 4) and all(n in (1, None) for n in shape[:-2])


def _shape(value: Any) -> tuple[int | None, ...] | None:
  """Returns the shape of an input or output, None where it is not stated."""
  tensor = value.type.tensor_type
  if not tensor.HasField('shape'):
    return None
  return tuple(side.dim_value or None for side in tensor.shape.dim)


def _format(shape: tuple[int | None, ...] | None) -> str:
  if shape is None:
    return '(no shape)'
  return 'x'.join('?' if side is None else str(side) for side in shape)
