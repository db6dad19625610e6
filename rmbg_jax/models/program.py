"""Runs a network for prediction: only what its last output needs.

Against `model.apply`, normalisations are folded into the convolutions, kernels
are transformed once and not at every call, and there is less to trace and to
compile.
"""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rmbg_jax.models import convolution, depthwise, layers, winograd
from rmbg_jax.models import graph as graph_lib

# A convolution's `kernel`, plain or transformed, and its `bias`.
Weights = Mapping[str, Array | np.ndarray]

_CONVOLUTIONS = ('conv', 'depthwise')


class Program:
  """Computes a network's prediction for images of one size.

  Attributes:
    weights: Network's variables that `compute_logits` needs, NumPy arrays by
      keys that say how they are prepared: programs of several sizes may share
      one dictionary.
  """

  def __init__(
    self,
    model: nn.Module,
    variables: layers.Variables,
    *,
    size: tuple[int, int],
    platform: str = '',
  ):
    """Prepares the weights.

    Args:
      model: The network.
      variables: Its `params` and `batch_stats`, NumPy arrays.
      size: (height, width) of the images.
      platform: 'cpu' or another to choose the algorithms for; '' for both, of
        which the compiler takes one.

    Raises:
      UserError: for a network whose walk is not known.
    """
    graph = graph_lib.Graph(model, size=size)
    self._platform = platform
    self._output = graph.outputs[-1]
    self._nodes = graph.find_needed(self._output)
    self._dtype = jnp.dtype(model.dtype)
    self._keys = {}
    self.weights: dict[str, Weights] = {}
    for node in self._nodes:
      if node.op not in _CONVOLUTIONS:
        continue
      kernel, bias = (
        array.astype(self._find_dtype(node))
        for array in graph_lib.fold_conv(variables, node)
      )
      m = self._choose_winograd(node, kernel.shape)
      if m:
        kernel = winograd.transform_kernel(kernel, m)
      key = f'{node.name}@{m}' if m else node.name
      self._keys[node.name] = key
      self.weights[key] = {'kernel': kernel, 'bias': bias}

  def compute_logits(
    self, weights: Mapping[str, Weights], images: Float[Array, 'b h w 3']
  ) -> Float[Array, 'b h w 1']:
    """Returns float32 logits of preprocessed images.

    Args:
      weights: This program's, wherever they are now.
      images: Preprocessed images of the program's size.
    """
    results = {graph_lib.INPUT: images}
    for node in self._nodes[1:]:
      inputs = [results[name] for name in node.inputs]
      if node.op in _CONVOLUTIONS:
        found = weights[self._keys[node.name]]
        results[node.name] = self._convolve(node, *inputs, found)
      else:
        results[node.name] = _compute(node, inputs)
    return results[self._output]

  def _find_dtype(self, node: graph_lib.Node) -> Any:
    # Heads have no normalisation, and are always computed in float32.
    return self._dtype if node.norm else jnp.dtype(jnp.float32)

  def _choose_winograd(
    self, node: graph_lib.Node, shape: tuple[int, ...]
  ) -> int:
    plain = node.op == 'conv' and node.stride == 1 and not node.padding
    if self._platform != 'cpu' or not plain or node.accurate:
      return 0
    return convolution.choose_winograd(
      node.size[0], shape, self._find_dtype(node), node.dilation
    )

  def _convolve(
    self, node: graph_lib.Node, x: jax.Array, weights: Mapping[str, Any]
  ) -> jax.Array:
    kernel, bias = weights['kernel'], weights['bias']
    x = x.astype(bias.dtype)
    if kernel.ndim == 3:  # Transformed.
      y = winograd.convolve_transformed(x, kernel, node.dilation)
    elif self._platform:
      y = _convolve(x, kernel, node=node, platform=self._platform)
    else:
      cpu, other = (
        functools.partial(_convolve, node=node, platform=platform)
        for platform in ('cpu', 'other')
      )
      y = jax.lax.platform_dependent(x, kernel, cpu=cpu, default=other)
    return y + bias.reshape(1, 1, 1, -1)


def _convolve(
  x: jax.Array, kernel: jax.Array, *, node: graph_lib.Node, platform: str
) -> jax.Array:
  depth = node.op == 'depthwise'
  if depth:
    convolve = depthwise.convolve
  elif node.accurate and platform == 'cpu':
    convolve = convolution.convolve_by_rows
  else:
    convolve = convolution.convolve
  padding = graph_lib.find_padding(node, kernel)
  if not node.padding and node.stride == 1:
    padding = 'SAME'
  return convolve(
    x,
    kernel,
    (node.stride,) * 2,
    padding,
    rhs_dilation=(node.dilation,) * 2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=kernel.shape[3] if depth else 1,
    platform=platform,
  )


def _compute(node: graph_lib.Node, inputs: list[jax.Array]) -> jax.Array:
  x = inputs[0]
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
    dtype = inputs[0].dtype
    return jnp.concatenate([x.astype(dtype) for x in inputs], axis=-1)
  if node.op == 'relu6':
    return jax.nn.relu6(x)
  return jax.nn.relu(x) if node.op == 'relu' else x + inputs[1]
