"""Writes networks in other programs' formats, for use without this one.

Every file holds the preprocessing's numbers (built in too), the architecture
and whatever the checkpoint says of itself.
"""

import importlib
from pathlib import Path
from typing import Any

from data_pipelines.io import errors
from rmbg_jax.weights import load, release

RELEASE = '.safetensors'

# Modules by file ending, each with a function `save` of (path, loaded network).
# Imported at use, since each needs packages of its own.
_WRITERS = {
  '.onnx': 'onnx_file',
  '.stablehlo': 'stablehlo',
  '.h5': 'keras_file',
}
FORMATS = (RELEASE, *_WRITERS)


def check_request(path: Path, *, dtype: str | None = None) -> None:
  """Raises a `UserError` for an ending or type that no format here has."""
  if path.suffix not in FORMATS:
    raise errors.UserError(
      f'{path}: unknown format. The name must end in {", ".join(FORMATS)}.'
    )
  if dtype and path.suffix != RELEASE:
    raise errors.UserError(
      f'{path}: --dtype={dtype} is for {RELEASE} files; {path.suffix} files '
      'hold float32.'
    )


def save_export(
  path: Path, loaded: load.LoadedModel, *, dtype: str | None = None
) -> None:
  """Writes a checkpoint in the format of the path's ending, atomically.

  Parameters in a `.safetensors` are of `dtype`, 'float16' (the default) or
  'float32'; other formats hold float32.

  Raises:
    UserError: for another ending, a network that the format cannot hold, or if
      the format needs a package that is not installed.
  """
  check_request(path, dtype=dtype)
  load.check_own(loaded)
  if path.suffix == RELEASE:
    release.save_release(
      path,
      loaded.variables,
      loaded.describe(),
      partners=[partner.variables for partner in loaded.partners],
      dtype=dtype or 'float16',
    )
  elif loaded.network.channels != 3:
    raise errors.UserError(
      f'{path}: a refiner is not for other programs, which would have to cut a '
      f'photo into windows as this one does. Export it as {RELEASE}.'
    )
  else:
    module = f'rmbg_jax.export.{_WRITERS[path.suffix]}'
    importlib.import_module(module).save(path, loaded)


def describe(
  loaded: load.LoadedModel,
  *,
  size: tuple[int, int],
  takes: str = 'photos: uint8 (b, {}, {}, 3), RGB in [0, 255]',
  gives: str = 'alpha: float32 (b, {}, {}) in [0, 1]',
) -> dict[str, Any]:
  """Returns the JSON-compatible description of an exported checkpoint.

  Args:
    loaded: The checkpoint.
    size: (height, width) of the input, in pixels.
    takes: Input of the file in words, with {} for height and width.
    gives: Output of the file in the same way.
  """
  return loaded.describe(
    interface={
      'size': list(size),
      'input': takes.format(*size),
      'output': gives.format(*size),
      'preprocessing': 'Built in: do not normalise the input.',
    }
  )
