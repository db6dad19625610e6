"""The metrics of binary truths against PySODMetrics and naive twins."""

import numpy as np
import py_sod_metrics
import pytest
from scipy import ndimage

from rmbg_jax.evaluation import results as results_lib
from rmbg_jax.evaluation import saliency


def _make_pairs(rng, count):
  """Blurred, noisy predictions of discs, and the discs, 8-bit."""
  pairs = []
  for index in range(count):
    size = rng.integers(20, 60, 2)
    y, x = np.mgrid[: size[0], : size[1]]
    centre, radius = size * rng.uniform(0.3, 0.7, 2), size.min() * 0.3
    truth = np.hypot(y - centre[0], x - centre[1]) < radius
    blurred = ndimage.gaussian_filter(truth * 1.0, 1 + index)
    noisy = np.clip(blurred + rng.normal(0, 0.1, truth.shape), 0.02, 0.9)
    pairs.append(((noisy * 255).astype(np.uint8), truth * np.uint8(255)))
  return pairs


@pytest.mark.parametrize('normalize', [True, False])
def test_a_set_scores_as_with_pysodmetrics(rng, normalize):
  """PySODMetrics over the set, against averages of ours per image."""
  metrics = {
    'mae': py_sod_metrics.MAE(),
    's': py_sod_metrics.Smeasure(),
    'e': py_sod_metrics.Emeasure(),
    'wf': py_sod_metrics.WeightedFmeasure(),
    'f': py_sod_metrics.FmeasureV2(
      {
        'f': py_sod_metrics.FmeasureHandler(True, True),
        'iou': py_sod_metrics.IOUHandler(False, False, with_binary=True),
        'dice': py_sod_metrics.DICEHandler(False, False, with_binary=True),
      }
    ),
  }
  rows, curves = [], []
  for prediction, truth in _make_pairs(rng, 5):
    for metric in metrics.values():
      if normalize:
        metric.step(prediction, truth)
      else:
        metric.step(prediction / 255, truth > 128, normalize=False)
    alpha = prediction / 255
    found = saliency.compute_saliency(
      saliency.stretch(alpha) if normalize else alpha, truth > 128
    )
    rows.append({f'{key}_raw': value for key, value in found[0].items()})
    curves.append({f'{key}_raw': value for key, value in found[1].items()})
  averages = results_lib.Results(
    system='',
    data_set='',
    images=[{}] * 5,
    values={key: np.array([row[key] for row in rows]) for key in rows[0]},
    curves={key: np.array([c[key] for c in curves]) for key in curves[0]},
  ).average()
  found = {key: metric.get_results() for key, metric in metrics.items()}
  f, e = found['f'], found['e']['em']
  expected = {
    'mae': found['mae']['mae'],
    's': found['s']['sm'],
    'weighted_f': found['wf']['wfm'],
    'max_f': f['f']['dynamic'].max(),
    'mean_f': f['f']['dynamic'].mean(),
    'adaptive_f': f['f']['adaptive'],
    'max_e': e['curve'].max(),
    'mean_e': e['curve'].mean(),
    'adaptive_e': e['adp'],
    'iou': f['iou']['binary'],
    'dice': f['dice']['binary'],
  }
  assert len(averages) == len(expected) + 1  # And boundary IoU.
  for key, value in expected.items():
    np.testing.assert_allclose(averages[f'{key}_raw'], value, rtol=1e-9)


def test_values_of_a_known_picture():
  """Half of the object is found, and as much beside it: all by hand."""
  truth = np.zeros((4, 6), bool)
  truth[1:3, 1:3] = True
  alpha = np.zeros((4, 6))
  alpha[1:3, 2:4] = 1.0
  values, curves = saliency.compute_saliency(alpha, truth)
  assert values['mae'] == pytest.approx(4 / 24)
  assert values['iou'] == pytest.approx(2 / 6)
  assert values['dice'] == pytest.approx(4 / 8)
  # Precision and recall are both .5, whatever beta is.
  assert values['max_f'] == values['adaptive_f'] == pytest.approx(0.5)
  assert curves['recall'][-1] == 1
  assert curves['precision'][-1] == pytest.approx(4 / 24)


def test_stretching_leaves_a_constant():
  np.testing.assert_allclose(
    saliency.stretch(np.array([[0.2, 0.4, 0.3]])), [[0, 1, 0.5]]
  )
  assert (saliency.stretch(np.full((2, 2), 0.3)) == 0.3).all()


def test_boundary_iou_of_known_squares():
  # 30x40 has a diagonal of 50: boundaries of one pixel.
  truth = np.zeros((30, 40), bool)
  truth[10:20, 10:20] = True
  assert saliency.compute_boundary_iou(truth, truth) == 1
  larger = np.zeros_like(truth)
  larger[9:21, 9:21] = True
  # Two rings that do not touch, though the IoU is 100 / 144.
  assert saliency.compute_boundary_iou(larger, truth) == 0
  shifted = np.roll(truth, 1, axis=1)
  # 36 pixels each; in common: two rows of 9 without the corners' columns.
  assert saliency.compute_boundary_iou(shifted, truth) == 18 / (72 - 18)
  nothing = np.zeros_like(truth)
  assert saliency.compute_boundary_iou(nothing, nothing) == 1
  assert saliency.compute_boundary_iou(nothing, truth) == 0
  # Where the image ends, the object ends.
  everything = np.ones_like(truth)
  edge = np.zeros_like(truth)
  edge[[0, -1]] = edge[:, [0, -1]] = True
  assert saliency.compute_boundary_iou(everything, edge) == 1


def _erode_slowly(mask, times):
  for _ in range(times):
    padded = np.pad(mask, 1)
    mask = np.array(
      [
        [padded[y : y + 3, x : x + 3].all() for x in range(mask.shape[1])]
        for y in range(mask.shape[0])
      ]
    )
  return mask


def test_boundary_iou_erodes_step_by_step(rng):
  shape = (72, 96)  # A diagonal of 120: two steps.
  truth, predicted = (
    ndimage.gaussian_filter(rng.random(shape), 3) > 0.5 for _ in range(2)
  )
  inner = [mask & ~_erode_slowly(mask, 2) for mask in (predicted, truth)]
  expected = (inner[0] & inner[1]).sum() / (inner[0] | inner[1]).sum()
  assert saliency.compute_boundary_iou(predicted, truth) == expected
