"""Convolves fast on a CPU too, gradients included.

3x3 convolutions between many channels go through `winograd.py`. For the others,
XLA computes the gradient of a convolution with respect to its kernel as another
convolution, with batch and channels exchanged. On a CPU that runs at a fraction
of the speed of the forward pass, after copies that exchange the axes; written
as matrix products it does not (`scripts/benchmarks/train.py` has the effect on
a training step). Other devices get XLA's own convolution and gradients.
"""

import contextlib
import contextvars
import functools
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rmbg_jax.models import winograd

Padding = str | Sequence[tuple[int, int]]

# Of a context, not global: other threads may trace programs meanwhile.
_is_plain = contextvars.ContextVar('is_plain', default=False)

_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')

# With fewer channels, the transforms cost more than the products they save.
_WINOGRAD_CHANNELS = 64


@contextlib.contextmanager
def plain() -> Iterator[None]:
  """Traces XLA's own convolutions, for a program that runs on any device."""
  token = _is_plain.set(True)
  try:
    yield
  finally:
    _is_plain.reset(token)


def is_for_cpu() -> bool:
  """Returns whether to use the algorithms for a CPU."""
  return not _is_plain.get() and jax.default_backend() == 'cpu'


def convolve(
  x: Float[Array, 'b h w c'],
  kernel: Float[Array, 'kh kw c f'],
  strides: tuple[int, ...],
  padding: Padding,
  **options: Any,  # Passed on unread.
) -> Float[Array, 'b h2 w2 f']:
  """Convolves as `jax.lax.conv_general_dilated`; for `flax.linen.Conv`.

  Args:
    x: Features.
    kernel: Kernel of the convolution.
    strides: Strides in rows and columns, in pixels.
    padding: Padding, as of `jax.lax.conv_general_dilated`.
    **options: Other options of `jax.lax.conv_general_dilated`.
  """
  height, width = kernel.shape[:2]
  dilation = tuple(options.get('rhs_dilation') or (1, 1))
  if not isinstance(padding, str):
    # Flax passes a list.
    padding = tuple((first, last) for first, last in padding)
  no_padding = padding in ('VALID', ((0, 0), (0, 0)))
  if (height, width) == (1, 1) and (no_padding or padding == 'SAME'):
    x = x[:, :: strides[0], :: strides[1]]  # A stride only leaves pixels out.
    strides, padding = (1, 1), 'SAME'
  # Half of the dilated kernel on each side is 'SAME' where the stride is 1.
  reach = dilation[0] * (height // 2), dilation[1] * (width // 2)
  same = padding in ('SAME', tuple((side, side) for side in reach))
  plain = same and tuple(strides) == (1, 1) and height % 2 and width % 2
  # Both fast ways know one dilation for rows and columns.
  rate = dilation[0]
  if plain and dilation == (rate, rate) and is_for_cpu():
    if _suits_winograd(x, kernel, rate):
      return winograd.convolve(x, kernel, rate)
    if rate == 1:
      return _convolve_same(x, kernel)
  return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)


def _suits_winograd(x: jax.Array, kernel: jax.Array, rate: int) -> bool:
  """Returns whether `winograd.py` is faster, and accurate enough."""
  height = x.shape[1]
  return (
    kernel.shape[:2] == (3, 3)
    and min(kernel.shape[2:]) >= _WINOGRAD_CHANNELS
    # Its transforms round too much for 16-bit types.
    and x.dtype == jnp.float32
    # Of few rows, tiles that are partly empty may cost all that it saves.
    and winograd.count_products(height, rate) < 3 * height
  )


def convolve_by_rows(
  x: Float[Array, 'b h w c'],
  kernel: Float[Array, 'kh kw c f'],
  strides: tuple[int, ...],
  padding: Padding,
  *,
  rhs_dilation: tuple[int, ...],
  **options: Any,  # Those of `convolve`.
) -> Float[Array, 'b h w f']:
  """Convolves with stride 1 and 'SAME', on a CPU by summing the kernel's rows.

  Shorter sums round less, for some more time.
  """
  if not is_for_cpu():
    options['rhs_dilation'] = rhs_dilation
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)
  height, rows, dilation = x.shape[1], kernel.shape[0], rhs_dilation[0]
  # Rows are padded here once; columns by each convolution, as 'SAME'.
  reach = dilation * (rows // 2)
  x = jnp.pad(x, ((0, 0), (reach, reach), (0, 0), (0, 0)))
  parts = [
    convolve(
      jax.lax.slice_in_dim(x, row * dilation, row * dilation + height, axis=1),
      kernel[row : row + 1],
      strides,
      padding,
      rhs_dilation=rhs_dilation,
      **options,
    )
    for row in range(rows)
  ]
  return functools.reduce(operator.add, parts)


@jax.custom_vjp
def _convolve_same(x, kernel):
  if kernel.shape[:2] == (1, 1):  # A matrix product, at up to twice the speed.
    return jax.lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())))
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), 'SAME', dimension_numbers=_DIMENSIONS
  )


def _forward(x, kernel):
  return _convolve_same(x, kernel), (x, kernel)


def _backward(saved, dy):
  x, kernel = saved
  # The gradient of x is the convolution of dy with the kernel turned by 180
  # degrees, its channels and filters exchanged.
  flipped = kernel[::-1, ::-1].swapaxes(2, 3)
  dx = _convolve_same(dy, flipped)
  return dx, _kernel_gradient(x, dy, kernel.shape).astype(kernel.dtype)


_convolve_same.defvjp(_forward, _backward)


def _kernel_gradient(
  x: Float[Array, 'b h w c'],
  dy: Float[Array, 'b h w f'],
  shape: tuple[int, ...],
) -> Float[Array, 'kh kw c f']:
  """Returns the kernel's gradient, by a matrix product for each of its rows.

  With x padded by half a kernel, dkernel[i, j] is the sum over all pixels of
  x[row + i, column + j] dy[row, column]. Side by side, the dy of a row's
  columns j, each moved j to the right, are the other factor of one product.
  """
  kh, kw, c, f = shape
  h = x.shape[1]
  # (b, h + kh - 1, w + kw - 1, c)
  x = jnp.pad(x, ((0, 0), (kh // 2,) * 2, (kw // 2,) * 2, (0, 0)))
  moved = jnp.concatenate(  # (b, h, w + kw - 1, kw * f)
    [jnp.pad(dy, ((0, 0), (0, 0), (j, kw - 1 - j), (0, 0))) for j in range(kw)],
    axis=-1,
  )
  rows = [
    jax.lax.dot_general(
      x[:, i : i + h].reshape(-1, c),
      moved.reshape(-1, kw * f),
      (((0,), (0,)), ((), ())),
      # A sum over all pixels of a batch would lose terms in bfloat16.
      preferred_element_type=jnp.float32,
    )
    for i in range(kh)
  ]
  return jnp.stack(rows).reshape(kh, c, kw, f).swapaxes(1, 2)  # (kh, kw, c, f)
