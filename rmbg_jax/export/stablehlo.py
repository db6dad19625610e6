"""Writes StableHLO, for JAX without this project and other compilers.

The file is a ZIP of `program`, as `jax.export` serialises it, and
`description.json`, because the former has no room for metadata.

The file is for any machine, so it has XLA's own convolutions and none of the
algorithms for a CPU.
"""

import importlib.util
import json
import zipfile
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from data_pipelines.io import errors, files
from rmbg_jax import export
from rmbg_jax.inference import runtimes
from rmbg_jax.inference.runtimes import jax_runtime
from rmbg_jax.models import convolution
from rmbg_jax.weights import load

PROGRAM, DESCRIPTION = 'program', 'description.json'


def save(path: Path, loaded: load.LoadedModel) -> None:
  """Writes a program: photos (b, h, w, 3) to alpha (b, h, w), any b.

  Raises:
    UserError: if `flatbuffers` is not installed.
  """
  if importlib.util.find_spec('flatbuffers') is None:
    raise errors.UserError(
      f'{path}: writing StableHLO needs the flatbuffers package: '
      f'{errors.install_command("stablehlo")}'
    )
  networks = (loaded, *loaded.partners)
  views = runtimes.list_views(networks)
  size = max(view.size for view in views)
  compute = jax_runtime.make_function(networks, views, precision='float32')

  # The weights become constants of the program.
  def compute_alpha(photos: UInt8[Array, 'b h w 3']) -> Float[Array, 'b h w']:
    logits = compute([network.variables for network in networks], photos)
    return jax.nn.sigmoid(logits / loaded.temperature)

  # Any number of photos.
  (batch,) = jax.export.symbolic_shape('b')
  photos = jax.ShapeDtypeStruct((batch, *size, 3), jnp.uint8)
  with convolution.plain():
    program = jax.export.export(
      jax.jit(compute_alpha), platforms=('cpu', 'cuda')
    )(photos)
  description = export.describe(loaded, size=size)
  with (
    files.write_atomically(path) as partial,
    zipfile.ZipFile(partial, 'w') as file,
  ):
    file.writestr(PROGRAM, bytes(program.serialize()))
    file.writestr(DESCRIPTION, json.dumps(description))
