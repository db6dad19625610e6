"""3x3 convolutions with half the multiplications, as matrix products.

Winograd's minimal filtering (Lavin and Gray, arXiv:1509.09308) along the rows:
F(m, 3) computes m output rows from m + 2 input rows with m + 2 products where
the definition takes 3m. Along the columns the definition is kept: one matrix
product with the kernel's three columns side by side, whose results are added
shifted. In both directions at once there would be fewer multiplications still,
but more memory traffic than they save (`scripts/benchmarks/predict.py` has the
effect on a prediction, `scripts/benchmarks/train.py` on a training step).

A dilated convolution is the same on every `rate`-th row.

With m = 4 results differ from the definition's by some 1e-5 in float32, for
results around 1; it is not for 16-bit types.
"""

import functools
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Transforms of input, kernel and (transposed) output rows by m, the paper's
# B^T, G and A^T. m = 1 is plain convolution.
_TRANSFORMS = {
  1: (
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((1, 1, 1),),
  ),
  2: (
    ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    ((1, 1, 1, 0), (0, 1, -1, -1)),
  ),
  4: (
    (
      (4, 0, -5, 0, 1, 0),
      (0, -4, -4, 1, 1, 0),
      (0, 4, -4, -1, 1, 0),
      (0, -2, -1, 2, 1, 0),
      (0, 2, -1, -2, 1, 0),
      (0, 4, 0, -5, 0, 1),
    ),
    (
      (1 / 4, 0, 0),
      (-1 / 6, -1 / 6, -1 / 6),
      (-1 / 6, 1 / 6, -1 / 6),
      (1 / 24, 1 / 12, 1 / 6),
      (1 / 24, -1 / 12, 1 / 6),
      (0, 0, 1),
    ),
    (
      (1, 1, 1, 1, 1, 0),
      (0, 1, -1, 2, -2, 0),
      (0, 1, 1, 4, 4, 0),
      (0, 1, -1, 8, -8, 1),
    ),
  ),
}


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(
  x: Float[Array, 'b h w c'], kernel: Float[Array, '3 3 c f'], rate: int
) -> Float[Array, 'b h w f']:
  """Returns the 'same' convolution with stride 1 and that dilation rate."""
  b, h, w, c = x.shape
  f = kernel.shape[3]
  m = _choose_m(h, rate)
  _, g, at = _TRANSFORMS[m]
  # The kernel's rows are transformed, its columns put side by side.
  rows = kernel.swapaxes(1, 2).reshape(3, -1)
  matrices = (np.asarray(g, kernel.dtype) @ rows).reshape(m + 2, c, 3 * f)
  # One product for each of the m + 2 rows, all in one batch.
  products = jax.lax.dot_general(
    _transform_input(x, rate, m), matrices, (((5,), (1,)), ((0,), (0,)))
  )
  rows = [
    sum(
      # The product has the kernel's columns side by side: each is shifted.
      product[:, :, :, j * rate : j * rate + w, j * f : (j + 1) * f]
      for j in range(3)
    )
    for product in products
  ]
  outputs = jnp.stack([_combine(weights, rows) for weights in at], axis=2)
  # The last tile may reach below the features.
  return outputs.reshape(b, -1, w, f)[:, :h]


def _forward(x, kernel, rate):
  return convolve(x, kernel, rate), (x, kernel)


def _backward(rate, saved, dy):
  x, kernel = saved
  # The kernel turned by 180 degrees, channels and filters exchanged.
  dx = convolve(dy, kernel[::-1, ::-1].swapaxes(2, 3), rate)
  return dx, _kernel_gradient(x, dy, rate)


convolve.defvjp(_forward, _backward)


def _kernel_gradient(
  x: Float[Array, 'b h w c'], dy: Float[Array, 'b h w f'], rate: int
) -> Float[Array, '3 3 c f']:
  """Returns the kernel's gradient, by one product per transformed row."""
  m = _choose_m(x.shape[1], rate)
  _, g, at = _TRANSFORMS[m]
  b, h, w, c = x.shape
  f = dy.shape[3]
  # Rows of zeros, which fill the last tile, add nothing.
  dy = jnp.pad(dy, ((0, 0), (0, -h % (m * rate)), (0, 0), (0, 0)))
  dy = dy.reshape(b, -1, m, rate, w, f)
  rows = _combine_at_once(_transpose(at), [dy[:, :, a] for a in range(m)])
  # The dy of the kernel's columns j, each moved j to the right.
  moved = jnp.concatenate(
    [
      jnp.pad(rows, ((0, 0),) * 4 + ((j * rate, (2 - j) * rate), (0, 0)))
      for j in range(3)
    ],
    axis=-1,
  )
  products = jax.lax.dot_general(
    _transform_input(x, rate, m).reshape(m + 2, -1, c),
    moved.reshape(m + 2, -1, 3 * f),
    (((1,), (1,)), ((0,), (0,))),
  )
  gradients = products.reshape(m + 2, c, 3, f).swapaxes(1, 2)
  # (3, 3, c, f): G transposed maps products back to the kernel's rows.
  return jnp.stack(
    [_combine(weights, list(gradients)) for weights in _transpose(g)]
  )


def count_products(height: int, rate: int) -> int:
  """Returns the row products that `convolve` takes; 3 x height is plain."""
  m = _choose_m(height, rate)
  return (m + 2) * _count_tiles(height, rate, m) * rate


def _choose_m(height: int, rate: int) -> int:
  """Returns the m with the fewest products, the most exact one on ties."""
  return min(
    sorted(_TRANSFORMS), key=lambda m: (m + 2) * _count_tiles(height, rate, m)
  )


def _count_tiles(height: int, rate: int, m: int) -> int:
  return -(-height // (rate * m))


def _transform_input(
  x: Float[Array, 'b h w c'], rate: int, m: int
) -> Float[Array, 'm2 b tiles rate w2 c']:
  """Returns the m + 2 combinations of every tile's rows, padded by a rate."""
  b, h, w, c = x.shape
  tiles = _count_tiles(h, rate, m)
  # Tiles overlap by two rows, so one more row of the kernel's reach below.
  below = (tiles * m + 1) * rate - h
  x = jnp.pad(x, ((0, 0), (rate, below), (rate, rate), (0, 0)))
  x = x.reshape(b, tiles * m + 2, rate, w + 2 * rate, c)
  # Row i of every tile: tiles begin m rows apart.
  rows = [x[:, i : i + m * (tiles - 1) + 1 : m] for i in range(m + 2)]
  return _combine_at_once(_TRANSFORMS[m][0], rows)


def _transpose(
  rows: Sequence[Sequence[int | float]],
) -> list[Sequence[int | float]]:
  return list(zip(*rows, strict=True))


def _combine(weights, arrays):
  """Returns the weighted sum; zeros and ones cost nothing."""
  terms = [
    array if weight == 1 else array * float(weight)
    for weight, array in zip(weights, arrays, strict=True)
    if weight
  ]
  return functools.reduce(operator.add, terms)


def _combine_at_once(
  weights: Sequence[Sequence[int | float]], arrays: Sequence[jax.Array]
) -> jax.Array:
  """Returns the sums by each row of `weights`, stacked.

  All terms are added, zeros too, in one loop. It compiles in a third of the
  time of a loop for each sum, and waits for memory no longer.
  """
  columns = np.asarray(weights, arrays[0].dtype).T
  shape = (-1,) + (1,) * arrays[0].ndim
  terms = [
    column.reshape(shape) * array[None]
    for column, array in zip(columns, arrays, strict=True)
  ]
  return functools.reduce(operator.add, terms)
