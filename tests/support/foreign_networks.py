"""Tiny ONNX files of the forms that rembg's sessions run, written by hand.

Each convolves the photo's three channels to one, with known weights.
"""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SETTINGS = {
  'size': [64, 96],
  'channels': 'rgb',
  'scale': 255.0,
  'mean': [0.5, 0.4, 0.3],
  'std': [0.5, 1.0, 2.0],
  'sigmoid': False,
}


def save(
  path,
  *,
  seed=0,
  size=(64, 96),
  sigmoid=True,
  channels=1,
  dtype=TensorProto.FLOAT,
  stride=1,
  op='Relu',
  unpooled=False,
):
  """Writes a network.

  Args:
    path: The file.
    seed: Of the weights.
    size: Of the input.
    sigmoid: Whether it gives probabilities.
    channels: Of the outputs.
    dtype: Of input and outputs.
    stride: Of the convolution.
    op: Makes the second output.
    unpooled: Whether it has an operation that OpenVINO lacks.
  """
  rng = np.random.default_rng(seed)
  weights = rng.normal(0, 1, (channels, 3, 3, 3))
  nodes = [
    helper.make_node(
      'Conv',
      ['photo', 'w'],
      ['c'],
      pads=[1] * 4,
      kernel_shape=[3, 3],
      strides=[stride] * 2,
    ),
    helper.make_node('Sigmoid' if sigmoid else 'Identity', ['y'], ['mask']),
    helper.make_node(op, ['c'], ['side']),
  ]
  half = {'kernel_shape': [2, 2], 'strides': [2, 2]}
  nodes[1:1] = (
    [
      helper.make_node('MaxPool', ['c'], ['p', 'i'], **half),
      helper.make_node('MaxUnpool', ['p', 'i'], ['y'], **half),
    ]
    if unpooled
    else [helper.make_node('Identity', ['c'], ['y'])]
  )
  graph = helper.make_graph(
    nodes,
    'foreign',
    [helper.make_tensor_value_info('photo', dtype, [1, 3, *size])],
    [
      helper.make_tensor_value_info(name, dtype, [1, channels, None, None])
      for name in ('mask', 'side')
    ],
    [
      numpy_helper.from_array(
        weights.astype(helper.tensor_dtype_to_np_dtype(dtype)), 'w'
      )
    ],
  )
  model = helper.make_model(
    graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=8
  )
  onnx.save(model, path)


def save_settings(path, **changes):
  """Writes the JSON file beside an ONNX file."""
  settings = {**SETTINGS, **changes}
  path.with_name(f'{path.name}.json').write_text(json.dumps(settings))
