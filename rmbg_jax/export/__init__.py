"""Writes networks in other programs' formats, for use without this one.

Every file holds the preprocessing's numbers (built in too), the architecture
and whatever the checkpoint says of itself.
"""

import importlib
from pathlib import Path

from data_pipelines.io import errors
from rmbg_jax.weights import load, release

RELEASE = '.safetensors'

# Writers by file ending; they take (path, loaded network). Imported at use,
# since each needs packages of its own.
_WRITERS = {
  '.onnx': ('onnx_file', 'save_onnx'),
  '.stablehlo': ('stablehlo', 'save_stablehlo'),
  '.h5': ('keras_file', 'save_keras'),
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
    module, function = _WRITERS[path.suffix]
    writer = importlib.import_module(f'rmbg_jax.export.{module}')
    getattr(writer, function)(path, loaded)
