"""What several networks' masks become together."""

import numpy as np
import pytest

from rmbg_jax.evaluation import agreement


def test_equal_masks_stay_what_they_are():
  alpha = np.linspace(0, 1, 200, dtype=np.float32).reshape(10, 20)
  label = agreement.combine([alpha, alpha])
  np.testing.assert_allclose(label.alpha, alpha, atol=0.011)
  assert label.alpha.min() == 0 and label.alpha.max() == 1
  assert (label.agreement, label.area) == (1, 0.5)
  assert label.unsure == pytest.approx(1.6, abs=0.1)


def test_the_surer_network_decides():
  sure, unsure = np.full((1, 1), 0.97), np.full((1, 1), 0.3)
  assert agreement.combine([sure, unsure]).alpha[0, 0] > 0.7
  # However sure, one does not outvote two.
  label = agreement.combine([np.zeros((1, 1)), *[np.full((1, 1), 0.98)] * 2])
  assert label.alpha[0, 0] > 0.5


def test_the_two_that_differ_most_count():
  masks = np.zeros((3, 4, 10))
  masks[0, :, :4] = masks[1, :, :4] = masks[2, :, :5] = 1
  label = agreement.combine(list(masks))
  assert label.agreement == pytest.approx(0.8)
  assert label.area == pytest.approx(0.4)
  assert agreement.combine([np.zeros((3, 3))] * 2).agreement == 0
