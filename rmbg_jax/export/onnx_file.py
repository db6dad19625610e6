"""Writes ONNX, for onnxruntime and other programs.

Photos as NumPy has them (uint8, channels last) go in, alpha comes out; batch
normalisations are folded into the convolutions.
"""

import json
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.io import files
from rmbg_jax.export import descriptions
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

  preprocessing = loaded.preprocessing
  graph = graph_lib.Graph(loaded.network, size=preprocessing.size)
  writer = _Writer(onnx)
  variables = layers.flatten(loaded.variables)
  _add_preprocessing(writer, preprocessing)
  for node in graph.find_needed(graph.outputs[-1]):
    _add_node(writer, node, variables)
  logits = graph.outputs[-1]
  if loaded.temperature != 1:
    writer.add('Div', [logits, writer.scalar(loaded.temperature)], 'sharpened')
    logits = 'sharpened'
  writer.add('Sigmoid', [logits], 'probs')
  channel = writer.tensor('channel', np.array([1]))
  writer.add('Squeeze', ['probs', channel], 'alpha')
  shape = ('batch', *preprocessing.size)
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
  description = json.dumps(descriptions.describe_photos(loaded))
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
    tensor = self._onnx.numpy_helper.from_array(
      np.ascontiguousarray(values), name
    )
    self.tensors.append(tensor)
    return name

  def scalar(self, value: float) -> str:
    """Adds a number, unless it is there, and returns its name."""
    name = f'scalar_{value:g}'
    if all(tensor.name != name for tensor in self.tensors):
      self.tensor(name, np.array(value, np.float32))
    return name


def _add_preprocessing(writer: _Writer, preprocessing: Preprocessing) -> None:
  """Adds the operations of `Preprocessing.normalize`, then channels first."""
  writer.add('Cast', ['photos'], 'pixels', to=1)  # 1 is float32.
  x, scale = 'pixels', preprocessing.scale
  if scale == 'maximum':
    axes = writer.tensor('axes', np.array([1, 2, 3]))
    writer.add('ReduceMax', [x, axes], 'brightest')
    one = writer.tensor('one', np.ones(1, np.float32))
    writer.add('Max', ['brightest', one], 'scale')
    writer.add('Div', [x, 'scale'], 'scaled')
    x, scale = 'scaled', 1.0
  if preprocessing.channels == 'bgr':
    order = writer.tensor('order', np.array([2, 1, 0]))
    writer.add('Gather', [x, order], 'bgr', axis=3)
    x = 'bgr'
  # As in `normalize`: one product and one sum for each pixel.
  std = np.asarray(preprocessing.std)
  gain = writer.tensor('gain', (1 / (scale * std)).astype(np.float32))
  offset = writer.tensor(
    'offset', (-np.asarray(preprocessing.mean) / std).astype(np.float32)
  )
  writer.add('Mul', [x, gain], 'multiplied')
  writer.add('Add', ['multiplied', offset], 'normalized')
  writer.add('Transpose', ['normalized'], graph_lib.INPUT, perm=[0, 3, 1, 2])


def _add_node(writer: _Writer, node: graph_lib.Node, variables: Any) -> None:
  name, inputs = node.name, list(node.inputs)
  (top, bottom), (left, right) = node.padding
  window = {'strides': [node.stride] * 2, 'pads': [top, left, bottom, right]}
  if node.op in graph_lib.CONVOLUTIONS:
    kernel, bias = graph_lib.fold_conv(variables, node)
    inputs.append(writer.tensor(f'{name}/kernel', kernel))
    inputs.append(writer.tensor(f'{name}/bias', bias))
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
