"""Frozen stages of an encoder stay as they are, and cost nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from data_pipelines.io import errors
from rmbg_jax import models
from rmbg_jax.training import optimizers, settings, setup

SMALL = {'bridge': {'filters': 4, 'rates': [1]}, 'decoder': {'filters': [4, 4]}}
NETWORKS = {
  'resnet50': {
    'name': 'unet',
    'encoder': {'stage_sizes': [2, 1, 1], 'width': 4},
    **SMALL,
  },
  'efficientnet_lite0': {
    'name': 'unet',
    'encoder': {'name': 'efficientnet_lite0'},
    **SMALL,
  },
  'u2net': {
    'name': 'u2net',
    'encoder': {'mid': [2] * 6, 'filters': [3] * 6},
    'decoder': {'mid': [2] * 5, 'filters': [3] * 5},
  },
}


@pytest.mark.parametrize('name', NETWORKS)
def test_they_stay_and_the_others_move(name):
  """Slow: each of the networks is compiled with its gradient."""
  model = models.create_model(NETWORKS[name])
  images = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
  shapes = jax.eval_shape(model.init, jax.random.key(0), images)
  rng = np.random.default_rng(0)  # Any weights do; these need no compilation.
  variables = {
    'params': jax.tree.map(
      lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32),
      shapes['params'],
    ),
    'batch_stats': jax.tree.map(
      lambda leaf: rng.uniform(0.5, 1, leaf.shape).astype(np.float32),
      shapes['batch_stats'],
    ),
  }
  optimizer = optimizers.make_optimizer(
    weight_decay=0.1,
    clip_norm=1.0,
    encoder_rate=0.5,
    is_frozen=lambda child: model.network.find_stage(child) <= 2,
  )
  opt_state = optimizer.init(variables['params'])

  @jax.jit
  def step(variables, opt_state):
    def compute_loss(params):
      outputs, updates = model.apply(
        {**variables, 'params': params},
        images,
        train=True,
        frozen_stages=2,
        mutable=['batch_stats'],
      )
      return sum(jnp.sum(x**2) for x in outputs), updates['batch_stats']

    grads, batch_stats = jax.grad(compute_loss, has_aux=True)(
      variables['params']
    )
    updates, _ = optimizer.update(
      grads, opt_state, variables['params'], learning_rate=0.1
    )
    params = jax.tree.map(jnp.add, variables['params'], updates)
    return {'params': params, 'batch_stats': batch_stats}, grads

  after, grads = jax.device_get(step(variables, opt_state))
  before = jax.device_get(variables)
  stages = {}
  for tree in ('params', 'batch_stats'):
    for child, old in before[tree]['encoder'].items():
      stage = model.network.find_stage(child)
      stages.setdefault(stage, []).append(
        _differ(old, after[tree]['encoder'][child])
      )
      if tree == 'params' and stage <= 2:
        assert not any(
          np.any(g) for g in jax.tree.leaves(grads['encoder'][child])
        )
  assert sorted(stages) == list(range(1, models.ENCODER_STAGES[name] + 1))
  for stage, moved in stages.items():
    assert any(moved) == (stage > 2), stage
  # Two moments of every parameter that moves, and none of the others.
  moving = [
    leaf.size
    for part, children in before['params'].items()
    for child, tree in children.items()
    if part != 'encoder' or model.network.find_stage(child) > 2
    for leaf in jax.tree.leaves(tree)
  ]
  kept = sum(leaf.size for leaf in jax.tree.leaves(opt_state) if leaf.ndim)
  assert kept == 2 * sum(moving)


def _differ(old, new):
  return any(
    np.any(a != b)
    for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True)
  )


def test_the_setting_reaches_the_training():
  config = default.get_config()
  assert setup.count_frozen(config) == 0
  config.model.encoder.frozen_stages = 2
  assert setup.count_frozen(config) == 2
  config.optimizer.encoder_rate = 0.0
  assert setup.count_frozen(config) == 4
  architecture, _ = setup.create_model(config)
  assert 'frozen_stages' not in architecture['encoder']
  config.model.encoder.frozen_stages = 5
  with pytest.raises(errors.UserError, match='at most 4, the stages of resnet'):
    settings.check_config(config)
