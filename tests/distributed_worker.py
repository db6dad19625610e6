"""One of several processes that take a training step together.

Run by `test_distributed.py`: coordinator, number, count, data, output file.
"""

import sys

import jax
import numpy as np
import optax

from rmbg_jax import inputs, state, train
from rmbg_jax.preprocessing import make_preprocessing
from tests import helpers


def take_step(data_dir):
  """Returns loss and gradient of a step on the first batch of all hosts.

  A plain gradient step of size 1 shows the gradient.
  """
  mesh = state.make_mesh()
  config = helpers.make_config(data_dir)
  _, model = train.create_model(config.model)
  preprocessing = make_preprocessing('keras', size=config.data.size)
  data = inputs.make_inputs(config, size=preprocessing.size)
  optimizer = optax.sgd(1.0)
  train_state = state.create_train_state(
    state.create_variables(model, seed=0, size=preprocessing.size),
    optimizer,
    mesh,
  )
  step = train.make_train_step(
    model,
    optimizer,
    preprocessing,
    loss_weights={'bce': 1.0},
    output_weights=(1.0,) * 4,
  )
  before = jax.device_get(train_state.params)
  batch = state.put_batch(next(data.train_batches), mesh)
  assert batch['image'].shape[0] == config.data.batch_size
  train_state, metrics = step(train_state, batch)
  after = jax.device_get(train_state.params)
  gradient = jax.tree.map(lambda old, new: old - new, before, after)
  return float(metrics['loss']), gradient


def main():
  """Joins the others, takes the step, and writes it if this is process 0."""
  coordinator, index, count, data_dir, output = sys.argv[1:]
  jax.distributed.initialize(coordinator, int(count), int(index))
  assert jax.device_count() == 4
  assert jax.local_device_count() == 2
  loss, gradient = take_step(data_dir)
  if jax.process_index() == 0:
    np.savez(output, *jax.tree.leaves(gradient), loss=loss)


if __name__ == '__main__':
  main()
