"""Winograd convolutions equal XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmbg_jax.models import convolution, winograd

DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')


def _reference(x, kernel, rate):
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (1, 1),
    'SAME',
    rhs_dilation=(rate, rate),
    dimension_numbers=DIMENSIONS,
  )


# Every m, whole and cut tiles, dilations beyond the image.
@pytest.mark.parametrize(
  ('height', 'rate'), [(1, 1), (2, 1), (7, 1), (8, 1), (13, 3), (12, 6), (5, 9)]
)
def test_values_and_gradients(height, rate):
  keys = jax.random.split(jax.random.key(height), 3)
  x = jax.random.normal(keys[0], (2, height, 6, 5))
  kernel = jax.random.normal(keys[1], (3, 3, 5, 4))
  dy = jax.random.normal(keys[2], (2, height, 6, 4))

  def apply(function):
    y, vjp = jax.vjp(lambda x, k: function(x, k, rate), x, kernel)
    return y, *vjp(dy)

  for actual, expected in zip(
    jax.jit(lambda: apply(winograd.convolve))(),
    jax.jit(lambda: apply(_reference))(),
    strict=True,
  ):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual / scale, expected / scale, atol=3e-5)


def test_products_are_halved_where_there_are_rows_enough():
  assert winograd.count_products(512, 1) == 512 * 3 // 2
  assert winograd.count_products(32, 9) == 54  # 36 rows, of 32.
  assert winograd.count_products(1, 1) == 3  # The definition.


@pytest.mark.parametrize(
  ('channels', 'height', 'dtype', 'products'),
  [
    (64, 16, 'float32', 2),  # The kernel's transform, then all rows.
    (63, 16, 'float32', 0),
    (64, 16, 'bfloat16', 0),
    (64, 1, 'float32', 0),
  ],
)
def test_the_cpu_takes_it_for_wide_layers(channels, height, dtype, products):
  text = str(
    jax.make_jaxpr(
      lambda x, kernel: convolution.convolve(
        x, kernel, (1, 1), 'SAME', dimension_numbers=DIMENSIONS
      )
    )(
      jnp.ones((1, height, 8, channels), dtype),
      jnp.ones((3, 3, channels, 64), dtype),
    )
  )
  assert text.count('dot_general[') == products
