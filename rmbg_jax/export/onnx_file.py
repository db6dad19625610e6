"""Writes ONNX, for onnxruntime and other programs.

Photos as NumPy has them (uint8, channels last) go in, alpha comes out; batch
normalisations are folded into the convolutions.
"""

import json
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.io import files
from rmbg_jax.export import descriptions
from rmbg_jax.inference import runtimes
from rmbg_jax.inference.runtimes import resampling
from rmbg_jax.models import graph as graph_lib
from rmbg_jax.models import layers
from rmbg_jax.models.preprocessing import Preprocessing
from rmbg_jax.weights import load, onnx_package, release

# onnxruntime 1.20 and newer run these; 18 has `axes` for Resize.
_OPSET, _IR_VERSION = 18, 8


def save_onnx(path: Path, loaded: load.LoadedModel) -> None:
  """Writes an ONNX file: photos (b, h, w, 3) to alpha (b, h, w), any b.

  Raises:
    UserError: for a network that cannot be exported, or if `onnx` is not
      installed.
  """
  onnx_package.check_installed(f'{path}: writing')
  import onnx

  networks = (loaded, *loaded.partners)
  views = runtimes.list_views(networks)
  size = max(view.size for view in views)
  writer = _Writer(onnx)
  writer.add('Cast', ['photos'], 'pixels', to=1)  # 1 is float32.
  writer.add('Transpose', ['pixels'], 'planes', perm=[0, 3, 1, 2])
  logits = [
    # Prefixes keep names apart, where there is more than one.
    _add_view(
      writer,
      networks[view.network],
      view,
      size,
      prefix=f'view{number}/' if len(views) > 1 else '',
    )
    for number, view in enumerate(views, start=1)
  ]
  x = logits[0]
  if len(views) > 1:
    writer.add('Mean', logits, 'mean')
    x = 'mean'
  if loaded.temperature != 1:
    writer.add('Div', [x, writer.scalar(loaded.temperature)], 'sharpened')
    x = 'sharpened'
  writer.add('Sigmoid', [x], 'probs')
  channel = writer.tensor('channel', np.array([1]))
  writer.add('Squeeze', ['probs', channel], 'alpha')
  shape = ('batch', *size)
  made = onnx.helper.make_tensor_value_info
  model = onnx.helper.make_model(
    onnx.helper.make_graph(
      writer.nodes,
      'rmbg_jax',
      [made('photos', onnx.TensorProto.UINT8, (*shape, 3))],
      [made('alpha', onnx.TensorProto.FLOAT, shape)],
      writer.tensors,
    ),
    opset_imports=[onnx.helper.make_opsetid('', _OPSET)],
    ir_version=_IR_VERSION,
    producer_name='rmbg_jax',
  )
  description = json.dumps(descriptions.describe_photos(loaded, size=size))
  onnx.helper.set_model_props(model, {release.DESCRIPTION: description})
  # Full: shapes are inferred, so that no wrong graph is written.
  onnx.checker.check_model(model, full_check=True)
  with files.write_atomically(path) as partial:
    partial.write_bytes(model.SerializeToString())


class _Writer:
  """Collects the nodes and tensors of an ONNX graph."""

  def __init__(self, onnx: types.ModuleType):
    self._onnx = onnx
    self.nodes: list[Any] = []
    self.tensors: list[Any] = []

  def add(
    self,
    op: str,
    inputs: list[str],
    output: str,
    **attributes: int | float | str | Sequence[int],
  ) -> None:
    self.nodes.append(
      self._onnx.helper.make_node(
        op, inputs, [output], name=output, **attributes
      )
    )

  def tensor(self, name: str, values: np.ndarray) -> str:
    """Adds a tensor, unless its name is there, and returns the name."""
    if all(tensor.name != name for tensor in self.tensors):
      self.tensors.append(
        self._onnx.numpy_helper.from_array(np.ascontiguousarray(values), name)
      )
    return name

  def scalar(self, value: float) -> str:
    """Adds a number, unless it is there, and returns its name."""
    return self.tensor(f'scalar_{value:g}', np.array(value, np.float32))

  def mirror(self, x: str, width: int, output: str) -> str:
    """Adds the reversal of rows of pixels (b, c, h, w)."""
    columns = self.tensor(f'mirror{width}', np.arange(width - 1, -1, -1))
    self.add('Gather', [x, columns], output, axis=3)
    return output

  def resize(
    self, x: str, old: tuple[int, int], new: tuple[int, int], output: str
  ) -> str:
    """Adds a resize of planes (b, c, h, w), unless the size is that already."""
    if old == new:
      return x
    # Products, as the runtimes do: ONNX' own would not average on the way down.
    rows, columns = map(resampling.make_weights, old, new)
    left = self.tensor(f'resize{old[0]}to{new[0]}', rows)
    right = self.tensor(f'resize{old[1]}to{new[1]}/columns', columns.T)
    self.add('MatMul', [left, x], f'{output}/rows')
    self.add('MatMul', [f'{output}/rows', right], output)
    return output


def _add_view(
  writer: _Writer,
  loaded: load.LoadedModel,
  view: runtimes.View,
  size: tuple[int, int],
  *,
  prefix: str,
) -> str:
  """Adds a look at the planes; returns its logits (b, 1, h, w).

  Args:
    writer: Collects the operations.
    loaded: The network that looks.
    view: How it looks.
    size: (height, width) of the planes and of the logits.
    prefix: Put before the names of the view's results; '' for the only view.
  """
  x = 'planes'
  if view.mirrored:
    x = writer.mirror(x, size[1], f'{prefix}mirrored')
  x = writer.resize(x, size, view.size, f'{prefix}resized')
  # Views of the same network share its tensors.
  weights = f'network{view.network + 1}/' if prefix else ''
  _add_preprocessing(writer, x, loaded.preprocessing, prefix, weights)
  graph = graph_lib.Graph(loaded.network, size=view.size)
  variables = layers.flatten(loaded.variables)
  for node in graph.find_needed(graph.outputs[-1]):
    _add_node(writer, node, variables, prefix, weights)
  x = prefix + graph.outputs[-1]
  if view.mirrored:
    x = writer.mirror(x, view.size[1], f'{x}/mirrored')
  if prefix:  # The mean of several views is to come.
    bounds = [writer.scalar(-runtimes.SURE), writer.scalar(runtimes.SURE)]
    writer.add('Clip', [x, *bounds], f'{x}/limited')
    x = f'{x}/limited'
  return writer.resize(x, view.size, size, f'{x}/resized')


def _add_preprocessing(
  writer: _Writer,
  x: str,
  preprocessing: Preprocessing,
  prefix: str,
  weights: str,
) -> None:
  """Adds the operations of `Preprocessing.normalize`, channels first."""
  scale = preprocessing.scale
  if scale == 'maximum':
    axes = writer.tensor('axes', np.array([1, 2, 3]))
    writer.add('ReduceMax', [x, axes], f'{prefix}brightest')
    one = writer.tensor('one', np.ones(1, np.float32))
    writer.add('Max', [f'{prefix}brightest', one], f'{prefix}scale')
    writer.add('Div', [x, f'{prefix}scale'], f'{prefix}scaled')
    x, scale = f'{prefix}scaled', 1.0
  if preprocessing.channels == 'bgr':
    order = writer.tensor('order', np.array([2, 1, 0]))
    writer.add('Gather', [x, order], f'{prefix}bgr', axis=1)
    x = f'{prefix}bgr'
  # As in `normalize`: one product and one sum for each pixel.
  std = np.asarray(preprocessing.std).reshape(3, 1, 1)
  mean = np.asarray(preprocessing.mean).reshape(3, 1, 1)
  gain, offset = (
    writer.tensor(weights + name, values.astype(np.float32))
    for name, values in (('gain', 1 / (scale * std)), ('offset', -mean / std))
  )
  writer.add('Mul', [x, gain], f'{prefix}multiplied')
  writer.add('Add', [f'{prefix}multiplied', offset], prefix + graph_lib.INPUT)


def _add_node(
  writer: _Writer,
  node: graph_lib.Node,
  variables: Mapping[str, np.ndarray],
  prefix: str,
  weights: str,
) -> None:
  name, inputs = prefix + node.name, [prefix + one for one in node.inputs]
  (top, bottom), (left, right) = node.padding
  window = {'strides': [node.stride] * 2, 'pads': [top, left, bottom, right]}
  if node.op in graph_lib.CONVOLUTIONS:
    kernel, bias = graph_lib.fold_conv(variables, node)
    inputs.append(writer.tensor(f'{weights}{node.name}/kernel', kernel))
    inputs.append(writer.tensor(f'{weights}{node.name}/bias', bias))
    writer.add(
      'Conv',
      inputs,
      name,
      kernel_shape=kernel.shape[2:],
      dilations=[node.dilation] * 2,
      group=len(kernel) if node.op == 'depthwise' else 1,
      **window,
    )
  elif node.op == 'pool':
    writer.add(
      'MaxPool', inputs, name, kernel_shape=[node.kernel] * 2, **window
    )
  elif node.op == 'resize':
    size = writer.tensor(f'{name}/size', np.array(node.shape[:2]))
    writer.add(
      'Resize',
      [*inputs, '', '', size],  # By size: neither a region nor scales.
      name,
      axes=[2, 3],
      mode='linear',
      coordinate_transformation_mode='half_pixel',
    )
  elif node.op == 'concat':
    writer.add('Concat', inputs, name, axis=1)
  elif node.op == 'relu6':
    inputs += [writer.scalar(0.0), writer.scalar(6.0)]
    writer.add('Clip', inputs, name)
  # ONNX has the graph's names, with a capital.
  elif node.op in ('add', 'relu'):
    writer.add(node.op.capitalize(), inputs, name)
