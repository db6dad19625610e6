"""Sums of metrics merge exactly and ignore padding."""

import jax.numpy as jnp
import numpy as np

from rmbg_jax.training import validation


def test_batches_of_any_size_merge_to_the_mean():
  values = np.arange(7.0)
  states = []
  for part in (values[:3], values[3:6], values[6:]):
    padded = jnp.asarray(np.pad(part, (0, 3 - len(part))) * 1.0)
    # What padding computes may be anything.
    padded = padded.at[len(part) :].set(jnp.nan)
    valid = jnp.asarray(np.arange(3) < len(part)) * 1.0
    states.append({'x': validation.sum_valid(padded, valid)})
  assert validation.merge_all(states) == {'x': values.mean()}


def test_iou_and_mae_of_known_pictures():
  probs = jnp.zeros((3, 2, 2, 1)).at[0, :, 0].set(1.0).at[1, 0, 0].set(0.6)
  alpha = jnp.zeros((3, 2, 2, 1)).at[0, 0].set(1.0)
  # Half of each overlaps: 1 of 3 pixels; nothing overlaps; both empty.
  np.testing.assert_allclose(
    validation.compute_iou(probs, alpha), [1 / 3, 0, 1], rtol=1e-6
  )
  np.testing.assert_allclose(
    validation.compute_mae(probs, alpha), [0.5, 0.15, 0], rtol=1e-6
  )
