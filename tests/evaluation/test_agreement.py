"""What several networks' masks become together."""

import numpy as np
import pytest

from rmbg_jax.evaluation import agreement


def test_equal_masks_stay_what_they_are():
  alpha = np.linspace(0, 1, 200, dtype=np.float32).reshape(10, 20)
  both, figures = agreement.combine([alpha, alpha])
  np.testing.assert_allclose(both, alpha, atol=0.011)
  assert both.min() == 0 and both.max() == 1
  assert (figures['agreement'], figures['area']) == (1, 0.5)
  assert figures['unsure'] == pytest.approx(1.6, abs=0.1)


def test_the_surer_network_decides():
  sure, unsure = np.full((1, 1), 0.97), np.full((1, 1), 0.3)
  assert agreement.combine([sure, unsure])[0][0, 0] > 0.7
  # However sure, one does not outvote two.
  alphas = [np.zeros((1, 1)), *[np.full((1, 1), 0.98)] * 2]
  assert agreement.combine(alphas)[0][0, 0] > 0.5


def test_the_two_that_differ_most_count():
  masks = np.zeros((3, 4, 10))
  masks[0, :, :4] = masks[1, :, :4] = masks[2, :, :5] = 1
  _, figures = agreement.combine(list(masks))
  assert figures['agreement'] == pytest.approx(0.8)
  assert figures['area'] == pytest.approx(0.4)
  _, figures = agreement.combine([np.zeros((3, 3))] * 2)
  assert figures['agreement'] == 0
