"""Writes StableHLO, for JAX without this project and other compilers.

The file is a ZIP of `program`, as `jax.export` serialises it, and
`description.json`, because the former has no room for metadata.

A program for prediction has the algorithms of `models/convolution.py` that suit
the machine that traces it. A file is for any machine, so it holds those for a
CPU and the others, and chooses where it runs.
"""

import json
import zipfile
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from data_pipelines.io import files
from rmbg_jax.export import descriptions
from rmbg_jax.models import program as program_lib
from rmbg_jax.weights import load

PROGRAM, DESCRIPTION = 'program', 'description.json'

_PLATFORMS = ('cpu', 'cuda')


def save_stablehlo(path: Path, loaded: load.LoadedModel) -> None:
  """Writes a program: photos (b, h, w, 3) to alpha (b, h, w), any b.

  Raises:
    ValueError: for a network that cannot be exported.
  """
  preprocessing = loaded.preprocessing
  made = program_lib.Program(
    loaded.model, loaded.variables, size=preprocessing.size
  )

  def compute_alpha(
    photos: UInt8[Array, 'b h w 3'],
  ) -> Float[Array, 'b h w']:
    inputs = preprocessing.normalize(photos)
    return jax.nn.sigmoid(made.compute_logits(made.weights, inputs)[..., 0])

  (batch,) = jax.export.symbolic_shape('b')
  photos = jax.ShapeDtypeStruct((batch, *preprocessing.size, 3), jnp.uint8)
  program = jax.export.export(jax.jit(compute_alpha), platforms=_PLATFORMS)(
    photos
  )
  description = descriptions.describe_photos(loaded)
  with (
    files.write_atomically(path) as partial,
    zipfile.ZipFile(partial, 'w') as file,
  ):
    file.writestr(PROGRAM, bytes(program.serialize()))
    file.writestr(DESCRIPTION, json.dumps(description))
