"""Reads U2-Net and U2-Net-p from ONNX files.

PyTorch's exporter writes the convolutions in the order in which the authors'
code runs them, and gives most weights no name but a number. So convolutions are
matched by their rank; their number, dilations and shapes must all fit.

The published files have the batch normalisations folded into the convolutions.
They become normalisations that change nothing, which training must leave so
(`freeze_norm`).
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.io import errors, files
from rmbg_jax.models import graph as graph_lib
from rmbg_jax.models import layers as layers_lib
from rmbg_jax.models import u2net
from rmbg_jax.models.preprocessing import make_preprocessing
from rmbg_jax.weights import loaded, onnx_package, onnx_published, release


class OtherNetworkError(errors.UserError):
  """Reports an ONNX file of another network."""


def read_model(path: Path) -> loaded.LoadedModel:
  """Reads a U2-Net of any widths.

  The published weights are described by their licence and citation, which are
  shown as well.

  Raises:
    OtherNetworkError: if the file is not of a U2-Net.
    UserError: if the file is not ONNX, or `onnx` is not installed.
  """
  convs, stored, size = _read_graph(path)
  pairs = _match(convs, path)
  wanted = [name for conv in convs for name in (conv.weight, *conv.norm)]
  missing = [name for name in wanted if name not in stored]
  if missing:
    raise errors.UserError(
      f'{path}: the file does not hold the weights {", ".join(missing[:5])}. '
      'Export the network with its parameters.'
    )
  tensors, names, widths = {}, {}, {}
  for node, conv in pairs:
    # PyTorch keeps convolution kernels as (out, in, h, w).
    kernel = stored[conv.weight].transpose(2, 3, 1, 0)
    filters = widths[node.name] = kernel.shape[-1]
    # Without a bias, a name of no tensor.
    bias = stored.get(conv.bias, np.zeros(filters))
    parts = [
      (conv.weight, kernel),
      (conv.bias or f'{conv.weight} (no bias)', bias),
    ]
    keys = [key.format(node.name) for key in layers_lib.CONV_KEYS]
    if node.norm:
      parts += _norm_parts(conv, stored, filters)
      keys += [key.format(node.norm) for key in layers_lib.NORM_KEYS]
    tensors |= parts
    names |= {key: name for key, (name, _) in zip(keys, parts, strict=True)}
  architecture = {
    'name': 'u2net',
    'encoder': _widths(widths, [f'encoder/stage{i}' for i in range(1, 7)]),
    'decoder': _widths(widths, [f'decoder{i}' for i in range(1, 6)]),
    'freeze_norm': not any(conv.norm for conv in convs),
  }
  return loaded.assemble(
    path,
    {**_describe(path), 'architecture': architecture},
    make_preprocessing('u2net', size=size),
    tensors,
    names.__getitem__,
  )


class _Conv(NamedTuple):
  """A convolution of the file, and the normalisation behind it, if any."""

  weight: str
  bias: str
  dilation: int
  norm: tuple[str, ...]
  epsilon: float


def _read_graph(
  path: Path,
) -> tuple[list[_Conv], dict[str, np.ndarray], tuple[int, int]]:
  """Returns convolutions, weights by name, and the input's (height, width)."""
  model = onnx_package.read(path)
  from onnx import numpy_helper

  if any(entry.key == release.DESCRIPTION for entry in model.metadata_props):
    raise errors.UserError(
      f'{path}: an export of this project, for other programs. Load the '
      'checkpoint that it was made from.'
    )
  graph = model.graph
  tensors = {
    tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer
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
    options: dict[str, Any] = {
      one.name: list(one.ints) or one.f
      for one in (*node.attribute, *(norm.attribute if norm else ()))
    }
    convs.append(
      _Conv(
        weight=node.input[1],
        bias=node.input[2] if len(node.input) > 2 else '',
        dilation=options.get('dilations', [1])[0],
        norm=tuple(norm.input[1:]) if norm else (),
        epsilon=options.get('epsilon', 1e-5),  # ONNX' default.
      )
    )
  # Old files list their weights among the inputs; other networks' inputs are of
  # any kind, or there is none.
  inputs = [one for one in graph.input if one.name not in tensors]
  shape = inputs[0].type.tensor_type.shape.dim if inputs else ()
  # A side of any length has the value 0.
  sides = [side.dim_value for side in shape][2:4]
  if len(sides) < 2 or not all(sides):
    sides = [320, 320]  # The authors'.
  return convs, tensors, (sides[0], sides[1])


def _match(
  convs: list[_Conv], path: Path
) -> list[tuple[graph_lib.Node, _Conv]]:
  """Returns the network's convolutions with the file's, both in their order."""
  graph = graph_lib.Graph(u2net.U2Net(), size=(32, 32))
  nodes = [node for node in graph.nodes.values() if node.op == 'conv']
  if len(convs) != len(nodes):
    raise OtherNetworkError(
      f'{path}: not a U2-Net: it has {len(convs)} convolutions instead of '
      f'{len(nodes)}.'
    )
  pairs = list(zip(nodes, convs, strict=True))
  for node, conv in pairs:
    if conv.dilation != node.dilation:
      raise OtherNetworkError(
        f'{path}: not a U2-Net: the convolution of {conv.weight}, by its rank '
        f'{node.name.removesuffix("/conv")}, has dilation {conv.dilation} '
        f'instead of {node.dilation}.'
      )
  return pairs


def _norm_parts(
  conv: _Conv, tensors: Mapping[str, np.ndarray], filters: int
) -> list[tuple[str, np.ndarray]]:
  """Returns scale, bias, mean and variance behind a convolution, with names."""
  if not conv.norm:  # Folded: an identity.
    values = (1.0, 0.0, 0.0, 1 - u2net.EPSILON)  # Variance + epsilon is 1.
    return [
      (f'{conv.weight} (folded {part})', np.full(filters, value, np.float32))
      for part, value in zip(
        ('scale', 'bias', 'mean', 'variance'), values, strict=True
      )
    ]
  *parts, (name, variance) = [(name, tensors[name]) for name in conv.norm]
  # The network adds its own epsilon to the variance; only the sum counts. With
  # another name, since a scale of the same numbers may be the same tensor.
  variance = variance + (conv.epsilon - u2net.EPSILON)
  return [*parts, (f'{name} (variance)', variance)]


def _widths(
  widths: Mapping[str, int], stages: list[str]
) -> dict[str, list[int]]:
  return {
    'mid': [widths[f'{stage}/conv1/conv'] for stage in stages],
    'filters': [widths[f'{stage}/conv_in/conv'] for stage in stages],
  }


def _describe(path: Path) -> dict[str, str]:
  name = onnx_published.find_name(f'md5:{files.hash_file(path, "md5")}')
  if not name:
    return {}
  about = onnx_published.describe(name)
  said = f'{about["license"]}, {about["citation"]}'
  print(f'Weights {name}: {said}.', file=sys.stderr)
  return about
