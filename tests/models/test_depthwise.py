"""The CPU's depthwise convolution and its gradients equal XLA's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmbg_jax.models import depthwise

DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')


@pytest.mark.parametrize('padding', ['SAME', 'VALID', ((1, 2), (0, 1))])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('side', [3, 5])
@pytest.mark.parametrize('size', [(7, 9), (8, 6)])
def test_values_and_gradients(size, side, stride, padding):
  with jax.enable_x64(True):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, *size, 3), jnp.float64)
    kernel = jax.random.normal(keys[1], (side, side, 1, 3), jnp.float64)
    options = {'dimension_numbers': DIMENSIONS, 'feature_group_count': 3}

    @functools.partial(jax.jit, static_argnums=0)
    def compute(function, x, kernel):
      convolve = functools.partial(
        function, strides=(stride,) * 2, padding=padding, **options
      )
      y, vjp = jax.vjp(convolve, x, kernel)
      return y, *vjp(jax.random.normal(keys[2], y.shape, jnp.float64))

    for actual, expected in zip(
      compute(_convolve, x, kernel), compute(_reference, x, kernel), strict=True
    ):
      assert actual.shape == expected.shape
      np.testing.assert_allclose(actual, expected, atol=1e-12)


def test_long_sums_of_bfloat16_keep_their_digits():
  """The kernel's gradient has as many terms as there are pixels."""
  x = jnp.ones((4, 64, 64, 2), jnp.bfloat16)
  kernel = jnp.ones((3, 3, 1, 2), jnp.bfloat16)

  def total(kernel):
    return _convolve(x, kernel, strides=(1, 1), padding='VALID').sum()

  np.testing.assert_allclose(
    np.asarray(jax.grad(total)(kernel), np.float32), 4 * 62 * 62, rtol=0.01
  )


def _convolve(x, kernel, strides, padding, **options):
  return depthwise.convolve(x, kernel, strides, padding, **options)


def _reference(x, kernel, strides, padding, **options):
  return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)
