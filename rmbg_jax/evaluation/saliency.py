"""Metrics of a prediction against a binary truth.

PySODMetrics, the field's reference, computes what it has; boundary IoU is
here. F is with beta^2 = .3 (Achanta et al., "Frequency-tuned salient region
detection", CVPR 2009), weighted F with beta^2 = 1 (Margolin et al., "How to
evaluate foreground maps?", CVPR 2014), S with alpha = .5 (Fan et al.,
"Structure-measure", ICCV 2017), E of Fan et al., "Enhanced-alignment measure",
IJCAI 2018.
"""

import numpy as np
import py_sod_metrics
from jaxtyping import Bool, Float
from scipy import ndimage

# Width of boundary IoU's band, as a share of the diagonal.
_BOUNDARY_SHARE = 0.02


def stretch(alpha: Float[np.ndarray, 'h w']) -> Float[np.ndarray, 'h w']:
  """Returns alpha with its smallest value at 0 and its largest at 1.

  A constant one stays as it is, as in PySODMetrics.
  """
  low, high = alpha.min(), alpha.max()
  return alpha if low == high else (alpha - low) / (high - low)


def compute_saliency(
  alpha: Float[np.ndarray, 'h w'], truth: Bool[np.ndarray, 'h w']
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
  """Returns an image's values and its curves.

  Args:
    alpha: The prediction, in [0, 1].
    truth: True mask with some foreground; F of an empty truth means nothing.

  Returns:
    The values by name, and over the thresholds 255/255, 254/255, ... 0 the
    `precision`, `recall`, `f` and `e`, each (256,). IoU, Dice and boundary IoU
    are at > 0.5.
  """
  # First whether with a curve, then whether with an adaptive threshold.
  handlers = {
    'f': py_sod_metrics.FmeasureHandler(True, True, beta=0.3),
    'precision': py_sod_metrics.PrecisionHandler(True, False),
    'recall': py_sod_metrics.RecallHandler(True, False),
    'iou': py_sod_metrics.IOUHandler(False, False, with_binary=True),
    'dice': py_sod_metrics.DICEHandler(False, False, with_binary=True),
  }
  metrics = {
    'mae': py_sod_metrics.MAE(),
    's': py_sod_metrics.Smeasure(),
    'em': py_sod_metrics.Emeasure(),
    'wfm': py_sod_metrics.WeightedFmeasure(),
    'fm': py_sod_metrics.FmeasureV2(handlers),
  }
  results = {}
  for name, metric in metrics.items():
    # `stretch` does what papers do; here alpha is taken as it is.
    metric.step(alpha, truth, normalize=False)
    results[name] = metric.get_results()
  counted, em = results['fm'], results['em']['em']
  curves = {
    key: np.asarray(counted[key]['dynamic'])
    for key in ('precision', 'recall', 'f')
  }
  curves['e'] = np.asarray(em['curve'])
  values = {
    'mae': results['mae']['mae'],
    'max_f': curves['f'].max(),
    'mean_f': curves['f'].mean(),
    'adaptive_f': counted['f']['adaptive'],
    'weighted_f': results['wfm']['wfm'],
    's': results['s']['sm'],
    'max_e': curves['e'].max(),
    'mean_e': curves['e'].mean(),
    'adaptive_e': em['adp'],
    'iou': counted['iou']['binary'],
    'dice': counted['dice']['binary'],
    'boundary_iou': compute_boundary_iou(alpha > 0.5, truth),
  }
  return {key: float(value) for key, value in values.items()}, curves


def compute_boundary_iou(
  predicted: Bool[np.ndarray, 'h w'], truth: Bool[np.ndarray, 'h w']
) -> float:
  """Returns the IoU of the two masks' inner boundaries.

  They are as wide as 2 % of the image's diagonal, in steps to any of the eight
  neighbours; what is outside the image is background. 1 if both are empty.
  Cheng et al., "Boundary IoU", CVPR 2021.
  """
  width = max(1, round(_BOUNDARY_SHARE * float(np.hypot(*truth.shape))))
  first, second = _find_boundary(predicted, width), _find_boundary(truth, width)
  union = np.count_nonzero(first | second)
  return np.count_nonzero(first & second) / union if union else 1.0


def _find_boundary(mask: np.ndarray, width: int) -> np.ndarray:
  # The filter is separable, so a square is the sum of `width` small ones.
  inner = ndimage.minimum_filter(
    mask.astype(np.uint8), size=2 * width + 1, mode='constant', cval=0
  )
  return mask & (inner == 0)
