"""Networks in the formats of other programs, ready for use without this one.

Every file holds the preprocessing's numbers (built in too), the architecture
and whatever the checkpoint says of itself.
"""

from pathlib import Path

from rmbg_jax.export import onnx_file, stablehlo
from rmbg_jax.pretrained import load, release

# What writes a file of that ending: (path, loaded network).
WRITERS = {
  '.stablehlo': stablehlo.save_stablehlo,
  '.onnx': onnx_file.save_onnx,
}
RELEASE = '.safetensors'


def save_export(
  path: Path, loaded: load.LoadedModel, *, dtype: str | None = None
) -> None:
  """Writes a network in the format that the path's ending names.

  Args:
    path: ending in `.safetensors` or a key of `WRITERS`.
    loaded: the network.
    dtype: of the parameters in a `.safetensors`, 'float16' (the default) or
      'float32'; the others hold float32.

  Raises:
    ValueError: for another ending, or a network that the format cannot hold.
  """
  if path.suffix == RELEASE:
    description = release.describe(loaded.description, loaded.preprocessing)
    release.save_release(
      path, loaded.variables, description, dtype=dtype or 'float16'
    )
  elif path.suffix not in WRITERS:
    raise ValueError(
      f'{path}: unknown format. The name must end in '
      f'{", ".join((RELEASE, *WRITERS))}.'
    )
  elif dtype:
    raise ValueError(
      f'{path}: {path.suffix} files hold float32. Only {RELEASE} has a choice.'
    )
  else:
    WRITERS[path.suffix](path, loaded)
