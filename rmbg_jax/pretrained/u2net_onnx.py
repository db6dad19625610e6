"""Reading U2-Net and U2-Net-p from ONNX files, the published ones by name.

PyTorch's exporter writes the convolutions in the order in which the authors'
code runs them, and gives most weights no name but a number. So convolutions are
matched by their rank; their number, dilations and shapes must all fit.

The published files have the batch normalisations folded into the convolutions.
They become normalisations that change nothing, which training must leave so
(`freeze_norm`).
"""

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rmbg_jax.models import u2net
from rmbg_jax.pretrained import download, matching

# As converted by rembg; its release lists the MD5 of its files.
_RELEASE = 'https://github.com/danielgatis/rembg/releases/download/v0.0.0/'
PUBLISHED = {
  'u2net': (
    f'{_RELEASE}u2net.onnx',
    'md5:60024c5c889badc19c04ad937298a77b',
  ),
  'u2netp': (
    f'{_RELEASE}u2netp.onnx',
    'md5:8e83ca70e441ab06c318d82300c84806',
  ),
  'u2net_human_seg': (
    f'{_RELEASE}u2net_human_seg.onnx',
    'md5:c09ddc2e0104f800e3e1bb4652583d1f',
  ),
}
LICENSE = 'Apache-2.0'
CITATION = (
  'Qin et al., "U2-Net: Going Deeper with Nested U-Structure for Salient '
  'Object Detection", Pattern Recognition 2020, '
  'doi 10.1016/j.patcog.2020.107404'
)

_DEFAULT_SIZE = (320, 320)  # The authors', where the file does not say.


def find_published(name: str) -> Path:
  """Returns the local copy of a published file, downloading it at need.

  Args:
    name: a key of `PUBLISHED`.

  Raises:
    FileNotFoundError: if it cannot be downloaded.
    ValueError: if the download is damaged, or `onnx` is not installed.
  """
  _import_onnx(name)  # Before 176 MB are fetched in vain.
  url, checksum = PUBLISHED[name]
  return download.fetch(
    url, checksum=checksum, flag='--checkpoint or --config.init_from'
  )


def read_model(path: Path) -> tuple[matching.ForeignModel, dict[str, Any]]:
  """Reads a U2-Net of any widths.

  Returns:
    What the file holds and what is known of its weights: for the published
    ones, licence and citation, which are also shown.

  Raises:
    ValueError: if the file is not ONNX or not of a U2-Net, or `onnx` is not
      installed.
  """
  graph = _read_graph(path)
  blocks = u2net.block_names()
  names = [name for name, _ in blocks] + u2net.head_names()
  if len(graph.convs) != len(names):
    raise ValueError(
      f'{path}: not a U2-Net: it has {len(graph.convs)} convolutions instead '
      f'of {len(names)}.'
    )
  layers = dict(zip(names, graph.convs, strict=True))
  for name, dilation in blocks:
    if layers[name].dilation != dilation:
      raise ValueError(
        f'{path}: not a U2-Net: the convolution {layers[name].weight}, which '
        f'should be {name}, has dilation {layers[name].dilation} instead of '
        f'{dilation}.'
      )
  folded = not any(layers[name].norm for name, _ in blocks)
  tensors, keys = {}, {}
  for name, layer in layers.items():
    is_head = name in u2net.head_names()
    kernel = graph.tensors[layer.weight].transpose(2, 3, 1, 0)
    bias = graph.tensors.get(layer.bias, np.zeros(kernel.shape[-1]))
    parts = {f'{layer.weight} (kernel)': kernel, f'{layer.weight} (bias)': bias}
    targets = matching.CONV
    keys |= _match(name if is_head else f'{name}/conv', targets, parts)
    tensors |= parts
    if not is_head:
      parts = _norm_parts(layer, graph.tensors, count=kernel.shape[-1])
      keys |= _match(f'{name}/bn', matching.NORM, parts)
      tensors |= parts
  architecture = {
    'name': 'u2net',
    'encoder': _widths(tensors, keys, 'encoder', range(1, 7)),
    'decoder': _widths(tensors, keys, 'decoder', range(5, 0, -1)),
    'freeze_norm': folded,
  }
  model = matching.ForeignModel(architecture, graph.size, tensors, keys)
  return model, _describe(path)


class _Conv(NamedTuple):
  """A convolution of the file, and the normalisation behind it, if any."""

  weight: str
  bias: str
  dilation: int
  norm: tuple[str, ...]
  epsilon: float


class _Graph(NamedTuple):
  """What is needed of an ONNX file."""

  convs: list[_Conv]
  tensors: Mapping[str, np.ndarray]
  size: tuple[int, int]


def _read_graph(path: Path) -> _Graph:
  onnx = _import_onnx(str(path))
  from google.protobuf.message import DecodeError

  try:
    graph = onnx.load(path).graph
  except DecodeError as error:
    raise ValueError(
      f'{path}: cannot be read as ONNX ({error}). Download or save it again.'
    ) from error
  tensors = {
    tensor.name: onnx.numpy_helper.to_array(tensor)
    for tensor in graph.initializer
  }
  norms = {
    node.input[0]: node
    for node in graph.node
    if node.op_type == 'BatchNormalization'
  }
  convs = []
  for node in graph.node:
    if node.op_type != 'Conv':
      continue
    norm = norms.get(node.output[0])
    convs.append(
      _Conv(
        weight=node.input[1],
        bias=node.input[2] if len(node.input) > 2 else '',
        dilation=_attribute(node, 'dilations', [1])[0],
        norm=tuple(norm.input[1:]) if norm else (),
        epsilon=_attribute(norm, 'epsilon', 1e-5) if norm else 0.0,
      )
    )
  missing = [conv.weight for conv in convs if conv.weight not in tensors]
  if missing:
    raise ValueError(
      f'{path}: the file does not hold the weights {", ".join(missing[:5])}. '
      'Export the network with its parameters.'
    )
  shape = graph.input[0].type.tensor_type.shape.dim
  size = tuple(side.dim_value for side in shape[2:4])
  return _Graph(convs, tensors, size if all(size) else _DEFAULT_SIZE)
