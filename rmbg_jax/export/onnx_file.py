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
from rmbg_jax import export
from rmbg_jax.inference import runtimes
from rmbg_jax.inference.runtimes import resampling
from rmbg_jax.models import graph as graph_lib
from rmbg_jax.models import layers
from rmbg_jax.weights import load, onnx_package, release

# onnxruntime 1.20 and newer run these; 18 has `axes` for Resize.
_OPSET, _IR_VERSION = 18, 8


def save(path: Path, loaded: load.LoadedModel) -> None:
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
  pixels = writer.add('Cast', ['photos'], 'pixels', to=1)  # 1 is float32.
  planes = writer.add('Transpose', [pixels], 'planes', perm=[0, 3, 1, 2])
  logits = []
  for number, view in enumerate(views, start=1):
    if len(views) > 1:
      writer.prefix = f'view{number}/'
      # Views of the same network share its tensors.
      writer.weights = f'network{view.network + 1}/'
    logits.append(_add_view(writer, planes, networks[view.network], view, size))
  writer.prefix = ''
  x = writer.add('Mean', logits, 'mean') if len(views) > 1 else logits[0]
  if loaded.temperature != 1:
    x = writer.add('Div', [x, writer.scalar(loaded.temperature)], 'sharpened')
  probs = writer.add('Sigmoid', [x], 'probs')
  channel = writer.tensor('channel', np.array([1]))
  writer.add('Squeeze', [probs, channel], 'alpha')
  shape = ('batch', *size)
  made = onnx.helper.make_tensor_value_info
  model = onnx.helper.make_model(
    onnx.helper.make_graph(
      writer.nodes,
      'rmbg_jax',
      [made('photos', onnx.TensorProto.UINT8, (*shape, 3))],
      [made('alpha', onnx.TensorProto.FLOAT, shape)],
      list(writer.tensors.values()),
    ),
    opset_imports=[onnx.helper.make_opsetid('', _OPSET)],
    ir_version=_IR_VERSION,
    producer_name='rmbg_jax',
  )
  description = json.dumps(export.describe(loaded, size=size))
  onnx.helper.set_model_props(model, {release.DESCRIPTION: description})
  # Full: shapes are inferred, so that no wrong graph is written.
  onnx.checker.check_model(model, full_check=True)
  with files.write_atomically(path) as partial:
    partial.write_bytes(model.SerializeToString())


class _Writer:
  """Collects the nodes and tensors of an ONNX graph.

  Attributes:
    nodes: The nodes, in the order in which they run.
    tensors: The tensors by name.
    prefix: Put before the names of nodes that are added; keeps views apart.
    weights: Put before the names of a network's tensors.
  """

  def __init__(self, onnx: types.ModuleType):
    self._onnx = onnx
    self.nodes: list[Any] = []
    self.tensors: dict[str, Any] = {}
    self.prefix = self.weights = ''

  def add(
    self,
    op: str,
    inputs: list[str],
    output: str,
    **attributes: int | float | str | Sequence[int],
  ) -> str:
    """Adds a node and returns the name of its result."""
    name = self.prefix + output
    make = self._onnx.helper.make_node
    self.nodes.append(make(op, inputs, [name], name=name, **attributes))
    return name

  def tensor(self, name: str, values: np.ndarray) -> str:
    """Adds a tensor, unless its name is there, and returns the name."""
    if name not in self.tensors:
      make = self._onnx.numpy_helper.from_array
      self.tensors[name] = make(np.ascontiguousarray(values), name)
    return name

  def scalar(self, value: float) -> str:
    """Adds a number, unless it is there, and returns its name."""
    return self.tensor(f'scalar_{value:g}', np.array(value, np.float32))

  def mirror(self, x: str, width: int, output: str) -> str:
    """Adds the reversal of rows of pixels (b, c, h, w)."""
    columns = self.tensor(f'mirror{width}', np.arange(width - 1, -1, -1))
    return self.add('Gather', [x, columns], output, axis=3)

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
    x = self.add('MatMul', [left, x], f'{output}/rows')
    return self.add('MatMul', [x, right], output)


def _add_view(
  writer: _Writer,
  planes: str,
  loaded: load.LoadedModel,
  view: runtimes.View,
  size: tuple[int, int],
) -> str:
  """Adds a look at planes of that size; returns its logits (b, 1, h, w)."""
  x = writer.mirror(planes, size[1], 'mirrored') if view.mirrored else planes
  x = writer.resize(x, size, view.size, 'resized')
  graph = graph_lib.Graph(loaded.network, size=view.size)
  variables = layers.flatten(loaded.variables)
  results = {graph_lib.INPUT: _add_preprocessing(writer, x, loaded)}
  needed = graph.find_needed(graph.outputs[-1])
  for node in needed[1:]:
    inputs = [results[name] for name in node.inputs]
    results[node.name] = _add_node(writer, node, inputs, variables)
  name = graph.outputs[-1]
  x = results[name]
  if view.mirrored:
    name = f'{name}/mirrored'
    x = writer.mirror(x, view.size[1], name)
  if writer.prefix:  # The mean of several views is to come.
    bounds = [writer.scalar(-runtimes.SURE), writer.scalar(runtimes.SURE)]
    name = f'{name}/limited'
    x = writer.add('Clip', [x, *bounds], name)
  return writer.resize(x, view.size, size, f'{name}/resized')


def _add_preprocessing(
  writer: _Writer, x: str, loaded: load.LoadedModel
) -> str:
  """Adds the operations of `Preprocessing.normalize`, channels first."""
  preprocessing = loaded.preprocessing
  scale = preprocessing.scale
  if scale == 'maximum':
    axes = writer.tensor('axes', np.array([1, 2, 3]))
    brightest = writer.add('ReduceMax', [x, axes], 'brightest')
    one = writer.tensor('one', np.ones(1, np.float32))
    most = writer.add('Max', [brightest, one], 'scale')
    x, scale = writer.add('Div', [x, most], 'scaled'), 1.0
  if preprocessing.channels == 'bgr':
    order = writer.tensor('order', np.array([2, 1, 0]))
    x = writer.add('Gather', [x, order], 'bgr', axis=1)
  # As in `normalize`: one product and one sum for each pixel.
  std = np.asarray(preprocessing.std).reshape(3, 1, 1)
  mean = np.asarray(preprocessing.mean).reshape(3, 1, 1)
  gain, offset = (
    writer.tensor(writer.weights + name, values.astype(np.float32))
    for name, values in (('gain', 1 / (scale * std)), ('offset', -mean / std))
  )
  x = writer.add('Mul', [x, gain], 'multiplied')
  return writer.add('Add', [x, offset], graph_lib.INPUT)


def _add_node(
  writer: _Writer,
  node: graph_lib.Node,
  inputs: list[str],
  variables: Mapping[str, np.ndarray],
) -> str:
  (top, bottom), (left, right) = node.padding
  window = {'strides': [node.stride] * 2, 'pads': [top, left, bottom, right]}
  if node.op in graph_lib.CONVOLUTIONS:
    kernel, bias = graph_lib.fold_conv(variables, node)
    place = writer.weights + node.name
    inputs.append(writer.tensor(f'{place}/kernel', kernel))
    inputs.append(writer.tensor(f'{place}/bias', bias))
    return writer.add(
      'Conv',
      inputs,
      node.name,
      kernel_shape=kernel.shape[2:],
      dilations=[node.dilation] * 2,
      group=len(kernel) if node.op == 'depthwise' else 1,
      **window,
    )
  if node.op == 'pool':
    side = [node.kernel] * 2
    return writer.add('MaxPool', inputs, node.name, kernel_shape=side, **window)
  if node.op == 'resize':
    size = writer.tensor(
      f'{writer.prefix}{node.name}/size', np.array(node.shape[:2])
    )
    return writer.add(
      'Resize',
      [*inputs, '', '', size],  # By size: neither a region nor scales.
      node.name,
      axes=[2, 3],
      mode='linear',
      coordinate_transformation_mode='half_pixel',
    )
  if node.op == 'concat':
    return writer.add('Concat', inputs, node.name, axis=1)
  if node.op == 'relu6':
    inputs += [writer.scalar(0.0), writer.scalar(6.0)]
    return writer.add('Clip', inputs, node.name)
  # The others, `add` and `relu`, have the graph's names, with a capital.
  return writer.add(node.op.capitalize(), inputs, node.name)
