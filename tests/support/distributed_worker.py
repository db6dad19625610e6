"""One of several processes that take a training step together.

Run by `test_distributed.py`: coordinator, number, count, data, output file.
"""

import sys

import jax
import numpy as np
import optax

from rmbg_jax.training import setup, state
from tests.support import helpers


def take_step(data_dir):
  """Returns loss and gradient of a step on the first batch of all hosts."""
  mesh = state.make_mesh()
  config = helpers.make_config(data_dir)
  components = setup.make_components(config)
  step, train_state = helpers.make_step(
    components.model, components.preprocessing, optax.sgd(1.0), mesh
  )
  loss, gradient, _ = helpers.take_gradient_step(
    step, train_state, next(components.data.train_batches), mesh
  )
  return loss, gradient


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
