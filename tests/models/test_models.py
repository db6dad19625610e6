"""The network: sizes, types, gradients, and what upsampling computes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from configs import demo, full, lite
from rmbg_jax import models
from rmbg_jax.models import flax_network
from rmbg_jax.training import losses, network_table, setup, state
from tests.support import helpers

TINY = {
  'name': 'unet',
  'encoder': {'stage_sizes': [1, 1, 1], 'width': 4},
  'bridge': {'filters': 4},
  'decoder': {'filters': [8, 6, 4, 4]},
}


def _init(model):
  return state.create_variables(model, seed=0)


def _count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize('size', [(16, 16), (32, 48), (80, 32)])
@pytest.mark.parametrize('dialect', ['keras', 'torchvision'])
def test_four_outputs_of_the_images_size(size, dialect):
  architecture = {**TINY, 'encoder': {**TINY['encoder'], 'dialect': dialect}}
  model = models.create_model(architecture)
  outputs = jax.eval_shape(
    lambda x: model.apply(model.init(jax.random.key(0), x), x),
    jnp.zeros((2, *size, 3)),
  )
  assert [o.shape for o in outputs] == [(2, *size, 1)] * 4


def test_other_sizes_are_refused():
  model = models.create_model(TINY)
  with pytest.raises(ValueError, match='multiples of 16, got 32x40'):
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 40, 3)))


def test_budgets():
  shapes = jax.eval_shape(
    lambda: setup.create_model(full.get_config())[1].init(
      jax.random.key(0), jnp.zeros((1, 16, 16, 3))
    )
  )
  assert _count(shapes) == 53_539_588
  model = setup.create_model(lite.get_config())[1]
  images = jax.ShapeDtypeStruct((1, 320, 320, 3), jnp.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), images)
  assert _count(shapes) <= 14.5e6
  compiled = jax.jit(model.apply).lower(shapes, images).compile()
  assert compiled.cost_analysis()['flops'] <= 30e9


def test_bfloat16_computes_narrow_and_keeps_wide():
  model = models.create_model(TINY, dtype='bfloat16')
  images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
  variables = _init(model)
  outputs, state = jax.jit(
    functools.partial(
      model.apply,
      train=True,
      capture_intermediates=True,
      mutable=['intermediates', 'batch_stats'],
    )
  )(variables, images)
  leaves = jax.tree.leaves([variables, outputs, state['batch_stats']])
  assert {leaf.dtype for leaf in leaves} == {jnp.dtype('float32')}
  bridge = state['intermediates']['bridge']['__call__'][0]
  assert bridge.dtype == jnp.bfloat16
  exact, _ = jax.jit(
    functools.partial(
      models.create_model(TINY).apply, train=True, mutable=['batch_stats']
    )
  )(variables, images)
  for narrow, wide in zip(outputs, exact, strict=True):
    assert 0 < np.abs(narrow - wide).max() < 0.1 * np.abs(wide).max() + 0.1


U2NET = {
  'name': 'u2net',
  'encoder': {'mid': [4] * 6, 'filters': [4] * 6},
  'decoder': {'mid': [4] * 5, 'filters': [4] * 5},
}


@pytest.mark.parametrize('architecture', [TINY, U2NET])
def test_remat_keeps_less_for_the_same_gradient(architecture):
  images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
  shape = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
  variables = jax.eval_shape(
    models.create_model(architecture).init, jax.random.key(0), shape
  )

  def make_loss(variables, remat):
    model = models.create_model(architecture, remat=remat)

    def compute_loss(params):
      outputs, updates = model.apply(
        {**variables, 'params': params},
        images,
        train=True,
        mutable=['batch_stats'],
      )
      return sum((output**2).mean() for output in outputs), updates

    return compute_loss

  def count_kept(remat):
    """What the backward pass gets from the forward pass."""

    def keep(variables):
      compute_loss = make_loss(variables, remat)
      return jax.vjp(compute_loss, variables['params'], has_aux=True)[1]

    return _count(jax.eval_shape(keep, variables))

  assert count_kept(remat=True) < 0.5 * count_kept(remat=False)
  if architecture == TINY:  # The other one takes a minute to compile.
    variables = _init(models.create_model(architecture))
    plain, again = (
      jax.jit(jax.grad(make_loss(variables, remat), has_aux=True))(
        variables['params']
      )
      for remat in (False, True)
    )
    for left, right in zip(plain, again, strict=True):
      helpers.assert_same_gradient(left, right)


def test_every_parameter_gets_a_gradient():
  model = models.create_model(TINY)
  images = jax.random.normal(jax.random.key(1), (4, 32, 32, 3))
  alpha = (jax.random.uniform(jax.random.key(2), (4, 32, 32, 1)) > 0.5) * 1.0
  variables = _init(model)

  @jax.jit
  @jax.grad
  def compute_grads(params):
    outputs, _ = model.apply(
      {**variables, 'params': params},
      images,
      train=True,
      mutable=['batch_stats'],
    )
    return losses.compute_loss(
      outputs, alpha, weights={'bce': 1.0}, output_weights=(1.0,) * 4
    ).mean()

  grads = traverse_util.flatten_dict(compute_grads(variables['params']))
  # Rounding alone makes 1e-8 of what is zero, the least of the others is 1e-4.
  dead = {path for path, grad in grads.items() if np.abs(grad).max() < 1e-6}
  # A bias that a batch normalisation follows is subtracted again with the
  # batch's mean.
  without_effect = {
    (*place, layer, 'bias')
    for *place, layer, _ in grads
    if (*place, layer.replace('conv', 'bn'), 'scale') in grads
    and 'conv' in layer
  }
  assert without_effect
  assert dead == without_effect


def test_evaluation_leaves_the_statistics_alone():
  model = models.create_model(TINY)
  variables = _init(model)
  images = jnp.ones((2, 32, 32, 3))
  evaluated, trained = (
    jax.jit(
      functools.partial(model.apply, train=mode, mutable=['batch_stats'])
    )(variables, images)[1]
    for mode in (False, True)
  )
  before = jax.tree.leaves(variables['batch_stats'])
  for old, same in zip(before, jax.tree.leaves(evaluated), strict=True):
    np.testing.assert_array_equal(old, same)
  assert any(
    np.abs(old - new).max() > 0
    for old, new in zip(before, jax.tree.leaves(trained), strict=True)
  )


@pytest.mark.parametrize('factor', [1, 2, 4, 8])
def test_upsampling_equals_a_half_pixel_resize(factor):
  x = jax.random.normal(jax.random.key(0), (2, 5, 3, 4))
  expected = jax.image.resize(
    x, (2, 5 * factor, 3 * factor, 4), method='bilinear'
  )
  actual = flax_network.upsample_bilinear(x, factor=factor)
  np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_upsampling_refuses_odd_factors():
  with pytest.raises(ValueError, match='got 3'):
    flax_network.upsample_bilinear(jnp.ones((1, 2, 2, 1)), factor=3)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'name': 'vnet'}, "Unknown model name 'vnet'"),
    ({'bridge': {'depth': 1}}, 'no attribute bridge_depth'),
    ({'bn_momentum': '.9'}, r"bn_momentum='\.9' is not of the kind"),
    ({'bn_momentum': True}, 'bn_momentum=True is not of the kind'),
    ({'encoder': {'dialect': 'caffe'}}, "dialect 'caffe'"),
  ],
)
def test_wrong_architectures_are_refused(change, message):
  with pytest.raises(ValueError, match=message):
    model = models.create_model({**TINY, **change})
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))


def test_summary_adds_up():
  _, model = setup.create_model(demo.get_config())
  text = network_table.summarize(model, size=(96, 96))
  lines = text.splitlines()
  shapes = jax.eval_shape(
    functools.partial(model.init, jax.random.key(0)), jnp.zeros((1, 96, 96, 3))
  )
  assert f'Total: {_count(shapes):,}' in lines
  assert f'Trainable: {_count(shapes["params"]):,}' in lines
  rows = [line.split() for line in lines[4:-4]]
  counted = sum(int(row[2].replace(',', '')) for row in rows)
  assert counted == _count(shapes['params'])
  # In the order in which they run.
  assert rows[0][:2] == ['encoder/conv1', '48x48x16']
  assert rows[-1][:2] == ['head4', '96x96x1']
