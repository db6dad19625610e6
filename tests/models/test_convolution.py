"""The CPU's convolution gradient equals XLA's own."""

import contextlib
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmbg_jax.models import convolution, resnet
from tests.support import helpers

DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')
CASES = [
  # kernel, stride, padding, dilation
  ((3, 3), 1, 'SAME', 1),
  ((3, 3), 1, [(1, 1), (1, 1)], 1),
  ((1, 1), 1, 'SAME', 1),
  ((1, 1), 2, 'VALID', 1),
  ((5, 3), 1, 'SAME', 1),
  ((3, 3), 1, 'SAME', 3),
  ((3, 3), 1, [(1, 1), (1, 1)], 3),  # Not 'SAME': the result is smaller.
  ((3, 3), 1, [(3, 3), (3, 3)], 3),
  ((3, 3), 2, [(1, 1), (1, 1)], 1),
  ((7, 7), 2, [(3, 3), (3, 3)], 1),
  ((2, 2), 1, 'SAME', 1),
]
ROW_CASES = [CASES[0], CASES[4], CASES[5]]  # Stride 1 and 'SAME'.


@pytest.mark.parametrize(
  ('convolve_here', 'case'),
  [(convolution.convolve, case) for case in CASES]
  + [(convolution.convolve_by_rows, case) for case in ROW_CASES],
)
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_values_and_gradients(convolve_here, case, dtype):
  size, stride, padding, dilation = case
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(keys[0], (2, 9, 8, 5), dtype)
  kernel = jax.random.normal(keys[1], (*size, 5, 6), dtype)

  def apply(function):
    convolve = functools.partial(
      function,
      strides=(stride, stride),
      padding=padding,
      rhs_dilation=(dilation, dilation),
      dimension_numbers=DIMENSIONS,
    )
    y, vjp = jax.vjp(lambda x, k: convolve(x, k), x, kernel)
    dy = jax.random.normal(keys[2], y.shape, dtype)
    return y, *vjp(dy)

  def reference(x, kernel, *, strides, **options):
    return jax.lax.conv_general_dilated(x, kernel, strides, **options)

  tolerance = 1e-4 if dtype == 'float32' else 0.03
  for actual, expected in zip(
    jax.jit(lambda: apply(convolve_here))(),
    jax.jit(lambda: apply(reference))(),
    strict=True,
  ):
    assert actual.dtype == expected.dtype
    actual, expected = (np.asarray(a, np.float32) for a in (actual, expected))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual / scale, expected / scale, atol=tolerance)


def test_the_cpu_takes_its_own_way():
  def loss(kernel):
    y = convolution.convolve(
      jnp.ones((1, 8, 8, 3)),
      kernel,
      (1, 1),
      'SAME',
      dimension_numbers=DIMENSIONS,
    )
    return (y**2).sum()

  text = str(jax.make_jaxpr(jax.grad(loss))(jnp.ones((3, 3, 3, 4))))
  assert text.count('dot_general[') == 3  # One per row of the kernel.


@pytest.mark.parametrize('padding', [1, 'SAME', ((1, 1), (1, 1))])
def test_a_network_takes_the_cpus_way_whatever_its_padding(padding):
  """Through Flax, which has its own form of a padding."""
  layer = nn.Conv(
    64,
    (3, 3),
    padding=padding,
    conv_general_dilated=convolution.convolve,
  )
  x = jnp.zeros((1, 16, 16, 64))
  variables = jax.eval_shape(layer.init, jax.random.key(0), x)
  program = str(jax.make_jaxpr(layer.apply)(variables, x))
  assert 'conv_general_dilated' not in program


def test_the_encoder_takes_the_cpus_way():
  """All its convolutions but the 7x7 of the stem."""
  encoder = helpers.make_encoder(
    resnet.compute_features, stage_sizes=(3, 4, 6), width=64, dialect='keras'
  )
  x = jax.ShapeDtypeStruct((1, 256, 256, 3), 'float32')
  variables = jax.eval_shape(encoder.init, jax.random.key(0), x)
  program = str(jax.make_jaxpr(encoder.apply)(variables, x))
  assert program.count('conv_general_dilated[') == 1


@pytest.mark.parametrize('plain', [False, True])
def test_programs_for_any_device_have_xlas_own(plain):
  x, kernel = jnp.zeros((1, 16, 16, 64)), jnp.zeros((3, 3, 64, 64))
  convolve = functools.partial(
    convolution.convolve,
    strides=(1, 1),
    padding='SAME',
    dimension_numbers=DIMENSIONS,
  )
  with convolution.plain() if plain else contextlib.nullcontext():
    program = str(jax.make_jaxpr(convolve)(x, kernel))
  assert ('conv_general_dilated' in program) == plain
