"""StableHLO: for JAX without this project, and what else compiles it.

The file is a ZIP of `program`, as `jax.export` serialises it, and
`description.json`, because the former has no room for metadata.

The program is made from `graph.py`, not from the Flax module, which chooses the
algorithms of `models/convolution.py` for the machine that traces it. A file is
for any machine, so it holds both and chooses where it runs.
"""

import json
import zipfile
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from rmbg_jax import files
from rmbg_jax.export import descriptions
from rmbg_jax.export import graph as graph_lib
from rmbg_jax.models import convolution, depthwise, layers
from rmbg_jax.pretrained import load

PROGRAM, DESCRIPTION = 'program', 'description.json'

_PLATFORMS = ('cpu', 'cuda')


def save_stablehlo(path: Path, loaded: load.LoadedModel) -> None:
  """Writes a program: photos (b, h, w, 3) to alpha (b, h, w), any b.

  Raises:
    ValueError: for a network that cannot be exported.
  """
  preprocessing = loaded.preprocessing
  graph = graph_lib.Graph(loaded.model, size=preprocessing.size)
  output = graph.outputs[-1]
  nodes = graph.find_needed(output)
  weights = {
    node.name: graph_lib.fold_conv(loaded.variables, node)
    for node in nodes
    if node.op in ('conv', 'depthwise')
  }

  def compute_alpha(
    photos: UInt8[Array, 'b h w 3'],
  ) -> Float[Array, 'b h w']:
    results = {graph_lib.INPUT: preprocessing.normalize(photos)}
    for node in nodes[1:]:
      inputs = [results[name] for name in node.inputs]
      results[node.name] = _compute(node, inputs, weights.get(node.name))
    return jax.nn.sigmoid(results[output][..., 0])

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


def _compute(node, inputs, weights) -> jax.Array:
  x = inputs[0]
  if node.op in ('conv', 'depthwise'):
    kernel, bias = weights
    return _convolve(node, x, kernel) + bias.reshape(1, 1, 1, -1)
  if node.op == 'pool':
    return jax.lax.reduce_window(
      x,
      -jnp.inf,
      jax.lax.max,
      (1, node.kernel, node.kernel, 1),
      (1, node.stride, node.stride, 1),
      ((0, 0), *node.padding, (0, 0)),
    )
  if node.op == 'resize':
    return layers.resize_bilinear(x, size=node.size)
  if node.op == 'concat':
    return jnp.concatenate(inputs, axis=-1)
  if node.op == 'relu6':
    return jax.nn.relu6(x)
  return jax.nn.relu(x) if node.op == 'relu' else x + inputs[1]


def _convolve(node, x, kernel) -> jax.Array:
  """Puts the algorithms for a CPU and for others into the program."""
  depth = node.op == 'depthwise'
  convolve = depthwise.convolve if depth else convolution.convolve
  padding = graph_lib.find_padding(node, kernel)
  if not node.padding and node.stride == 1:
    padding = 'SAME'

  def make(platform):
    return lambda x, kernel: convolve(
      x,
      kernel,
      (node.stride,) * 2,
      padding,
      rhs_dilation=(node.dilation,) * 2,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=kernel.shape[3] if depth else 1,
      platform=platform,
    )

  return jax.lax.platform_dependent(
    x, kernel, cpu=make('cpu'), default=make('other')
  )
