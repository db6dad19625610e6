"""Layers that the networks share: convolution, normalisation, upsampling.

The parts receive `conv` and `norm` ready-made, so that the compute type, the
mode (training or not) and the framework whose numbers are reproduced are
chosen in one place, `unet.py`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rmbg_jax.models import convolution

# `conv(features, kernel, ...)` and `norm(...)` make a layer.
LayerFactory = Callable[..., nn.Module]
Dtype = str | np.dtype | type  # 'float32', np.dtype('float32'), jnp.float32
# `params` and `batch_stats`, nested by name. Any: arrays of NumPy or JAX, their
# shapes, or further such mappings.
Variables = Mapping[str, Any]
# The flat keys of a convolution's and a batch normalisation's variables, with
# the layer's path in place of {}.
CONV_KEYS = ('params/{}/kernel', 'params/{}/bias')
NORM_KEYS = (
  'params/{}/scale',
  'params/{}/bias',
  'batch_stats/{}/mean',
  'batch_stats/{}/var',
)


def make_conv(*, dtype: Dtype, use_bias: bool = True) -> LayerFactory:
  """Returns a factory of convolutions with stride 1 and 'same' padding.

  Parameters are float32, the computation runs in `dtype`. Padding is explicit
  at every convolution whose stride is not 1: 'SAME' pads such a convolution
  on other sides than Keras' and PyTorch's ResNets do.
  """
  return functools.partial(
    nn.Conv,
    use_bias=use_bias,
    padding='SAME',
    dtype=dtype,
    kernel_init=convolution.init_kernel,
    conv_general_dilated_cls=lambda: convolution.convolve,
  )


def make_norm(
  *, dtype: Dtype, train: bool, momentum: float, epsilon: float
) -> LayerFactory:
  """Returns a factory of batch normalisations.

  In training they use the statistics of the whole global batch (under jit
  over a mesh the reduction crosses devices) and update the running ones.
  """
  return functools.partial(
    nn.BatchNorm,
    use_running_average=not train,
    momentum=momentum,
    epsilon=epsilon,
    dtype=dtype,
  )


def stop_gradient_if(frozen: bool, x: jax.Array) -> jax.Array:
  """Returns `x`, through which no gradient passes if `frozen`."""
  return jax.lax.stop_gradient(x) if frozen else x


def find_size(x: jax.Array) -> tuple[int, int]:
  """Returns (height, width) of features or images (b, h, w, c)."""
  _, height, width, _ = x.shape
  return height, width


def upsample_bilinear(
  x: Float[Array, 'b h w c'], *, factor: int
) -> Float[Array, 'b {factor}*h {factor}*w c']:
  """Enlarges by an even whole factor, bilinear with half-pixel centres.

  The same numbers as `tf.image.resize` and Keras' `UpSampling2D(bilinear)`.
  Every output pixel is a fixed blend of two neighbours per axis, which slices
  express directly; `jax.image.resize` would multiply by dense matrices.
  """
  if factor == 1:
    return x
  if factor % 2:
    raise ValueError(f'factor must be 1 or even, got {factor}.')
  return _upsample_axis(_upsample_axis(x, 1, factor), 2, factor)


def resize_bilinear(
  x: Float[Array, 'b h w c'], *, size: tuple[int, int]
) -> Float[Array, 'b h2 w2 c']:
  """Enlarges to (height, width), bilinear with half-pixel centres.

  The same numbers as PyTorch's `interpolate` without aligned corners, and ONNX'
  `Resize` with `pytorch_half_pixel`.
  """
  factors = {new / old for new, old in zip(size, x.shape[1:3], strict=True)}
  factor = factors.pop()
  if not factors and (factor == 1 or factor % 2 == 0):
    return upsample_bilinear(x, factor=int(factor))
  shape = (x.shape[0], *size, x.shape[3])
  return jax.image.resize(x, shape, method='bilinear')


def _upsample_axis(x: jax.Array, axis: int, factor: int) -> jax.Array:
  size = x.shape[axis]
  first = jax.lax.slice_in_dim(x, 0, 1, axis=axis)
  last = jax.lax.slice_in_dim(x, size - 1, size, axis=axis)
  padded = jnp.concatenate([first, x, last], axis=axis)  # Edges are repeated.
  before = jax.lax.slice_in_dim(padded, 0, size, axis=axis)
  after = jax.lax.slice_in_dim(padded, 2, size + 2, axis=axis)
  # Output pixel `factor * i + phase` lies `offset` input pixels from pixel i.
  phases = []
  for phase in range(factor):
    offset = (phase + 0.5) / factor - 0.5
    neighbour = before if offset < 0 else after
    weight = jnp.asarray(abs(offset), x.dtype)
    phases.append(x * (1 - weight) + neighbour * weight)
  stacked = jnp.stack(phases, axis=axis + 1)
  shape = x.shape[:axis] + (size * factor,) + x.shape[axis + 1 :]
  return stacked.reshape(shape)
