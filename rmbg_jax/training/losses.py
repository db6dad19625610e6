"""Losses on logits, as pure functions of arrays, one value per image.

Everything is computed in float32 from logits: log(sigmoid(x)) is exact where
sigmoid(x) has already rounded to 0 or 1. The truth, alpha in [0, 1], may be
soft.
"""

import functools
import operator
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from data_pipelines.io import errors
from rmbg_jax.models import flax_network

Maps = Float[Array, 'b h w 1']
PerImage = Float[Array, 'b']

_PIXELS = (1, 2, 3)
# F3Net weighs a pixel by how much its neighbourhood of this size differs.
_STRUCTURE_WINDOW = 31
_STRUCTURE_GAIN = 5.0
# SSIM's constants for values in [0, 1], and its Gaussian window.
_SSIM_C1, _SSIM_C2 = 0.01**2, 0.03**2
_SSIM_WINDOW, _SSIM_SIGMA = 11, 1.5
_PYRAMID_TAPS = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
_PYRAMID_LEVELS = 4  # Input sizes are multiples of 16: they halve four times.


def compute_bce(logits: Maps, alpha: Maps) -> PerImage:
  """Returns the mean binary cross-entropy: the Keras project's loss."""
  return jnp.mean(_bce(logits, alpha), axis=_PIXELS)


def compute_iou_loss(logits: Maps, alpha: Maps) -> PerImage:
  """Returns 1 - soft intersection over union.

  Rahman and Wang, "Optimizing Intersection-Over-Union in Deep Neural Networks
  for Image Segmentation", ISVC 2016. One pixel is added on both sides of the
  fraction, so that an empty truth with an empty prediction costs nothing.
  """
  return _iou_loss(_probs(logits), alpha, jnp.ones_like(alpha))


def compute_structure_loss(logits: Maps, alpha: Maps) -> PerImage:
  """Returns weighted BCE + weighted IoU loss; pixels at edges weigh more.

  Wei et al., "F3Net: Fusion, Feedback and Focus for Salient Object Detection",
  AAAI 2020, arXiv:1911.11445, equations 6 to 9: weight 1 + 5 |mean of the truth
  over 31x31 - truth|, zeros beyond the image's border.
  """
  taps = (1 / _STRUCTURE_WINDOW,) * _STRUCTURE_WINDOW
  local_mean = _blur(alpha, taps, edge='constant')
  weight = 1 + _STRUCTURE_GAIN * jnp.abs(local_mean - alpha)
  bce = jnp.sum(weight * _bce(logits, alpha), axis=_PIXELS)
  bce = bce / jnp.sum(weight, axis=_PIXELS)
  return bce + _iou_loss(_probs(logits), alpha, weight)


def compute_ssim_loss(logits: Maps, alpha: Maps) -> PerImage:
  """Returns 1 - structural similarity.

  Wang et al., "Image quality assessment: from error visibility to structural
  similarity", IEEE TIP 2004; as a loss in Qin et al., "BASNet", CVPR 2019.
  Gaussian window of 11 pixels, sigma 1.5, zeros beyond the image's border.
  """
  offsets = np.arange(_SSIM_WINDOW) - _SSIM_WINDOW // 2
  taps = np.exp(-(offsets**2) / (2 * _SSIM_SIGMA**2))
  taps = tuple((taps / taps.sum()).tolist())

  def mean(x):
    return _blur(x, taps, edge='constant')

  probs = _probs(logits)
  mean_p, mean_a = mean(probs), mean(alpha)
  # In each window: var x = E x^2 - (E x)^2, and so for the covariance.
  var_p = mean(probs**2) - mean_p**2
  var_a = mean(alpha**2) - mean_a**2
  covariance = mean(probs * alpha) - mean_p * mean_a
  similarity = (
    (2 * mean_p * mean_a + _SSIM_C1)
    * (2 * covariance + _SSIM_C2)
    / ((mean_p**2 + mean_a**2 + _SSIM_C1) * (var_p + var_a + _SSIM_C2))
  )
  return 1 - jnp.mean(similarity, axis=_PIXELS)


def compute_l1_loss(logits: Maps, alpha: Maps) -> PerImage:
  """Returns the mean absolute error of the probabilities."""
  return jnp.mean(jnp.abs(_probs(logits) - alpha), axis=_PIXELS)


def compute_laplacian_loss(logits: Maps, alpha: Maps) -> PerImage:
  """Returns the L1 distance of Laplacian pyramids, level k weighted by 2^k.

  Hou and Liu, "Context-Aware Image Matting for Simultaneous Foreground and
  Alpha Estimation", ICCV 2019, arXiv:1909.09725, equation 2, with four levels.
  """
  # A pyramid is linear: that of the difference is the difference of both.
  current = _probs(logits) - alpha
  total = jnp.zeros(current.shape[0])
  for level in range(_PYRAMID_LEVELS):
    # Between the pixels, where `upsample_bilinear` has the centres: every
    # second pixel would be half a pixel off, to the other side if mirrored.
    b, h, w, c = current.shape
    blocks = _blur(current, _PYRAMID_TAPS, edge='edge').reshape(
      b, h // 2, 2, w // 2, 2, c
    )
    coarser = blocks.mean(axis=(2, 4))
    detail = current - flax_network.upsample_bilinear(coarser, factor=2)
    total = total + 2**level * jnp.mean(jnp.abs(detail), axis=_PIXELS)
    current = coarser
  return total


LOSSES = {
  'bce': compute_bce,
  'iou': compute_iou_loss,
  'structure': compute_structure_loss,
  'ssim': compute_ssim_loss,
  'l1': compute_l1_loss,
  'laplacian': compute_laplacian_loss,
}


def check_weights(
  weights: Mapping[str, float], output_weights: Sequence[float]
) -> None:
  """Checks `config.loss`.

  Raises:
    UserError: for an unknown loss, negative weights, or none above 0.
  """
  unknown = sorted(set(weights) - set(LOSSES))
  if unknown:
    raise errors.UserError(
      f'Unknown loss {", ".join(unknown)} in config.loss.weights; choose from '
      f'{", ".join(sorted(LOSSES))}.'
    )
  for name, values in (
    ('config.loss.weights', tuple(weights.values())),
    ('config.loss.outputs', tuple(output_weights)),
  ):
    if min(values, default=0) < 0 or sum(values) <= 0:
      raise errors.UserError(
        f'{name} (={values}) must not be negative, and at least one must be '
        'above 0.'
      )


def compute_loss(
  outputs: Sequence[Maps],
  alpha: Maps,
  *,
  weights: Mapping[str, float],
  output_weights: Sequence[float],
) -> PerImage:
  """Returns the weighted sum of losses, averaged over the outputs.

  Args:
    outputs: The network's logits, coarse to fine.
    alpha: The truth in [0, 1].
    weights: Weight of each loss by its name in `LOSSES`; those with weight 0
      are not computed. `{'bce': 1.0}` with equal output weights is the
      original's loss.
    output_weights: Weight of each output in the average.

  Raises:
    UserError: if there are not as many output weights as outputs.
  """
  if len(output_weights) != len(outputs):
    raise errors.UserError(
      f'config.loss.outputs has {len(output_weights)} weights, but the network '
      f'has {len(outputs)} outputs. Pass one for each, coarse to fine.'
    )
  total = jnp.zeros(alpha.shape[0])
  for logits, output_weight in zip(outputs, output_weights, strict=True):
    for name, weight in weights.items():
      if weight and output_weight:
        loss = LOSSES[name](logits, alpha)
        total = total + output_weight * weight * loss
  return total / sum(output_weights)


def _probs(logits: Maps) -> Maps:
  return jax.nn.sigmoid(logits.astype(jnp.float32))


def _bce(logits: Maps, alpha: Maps) -> Maps:
  return optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), alpha)


def _iou_loss(probs: Maps, alpha: Maps, weight: Maps) -> PerImage:
  intersection = jnp.sum(weight * probs * alpha, axis=_PIXELS)
  union = jnp.sum(weight * (probs + alpha - probs * alpha), axis=_PIXELS)
  return 1 - (intersection + 1) / (union + 1)


def _blur(x: Maps, taps: Sequence[float], *, edge: str) -> Maps:
  """Convolves rows and columns with an odd number of taps.

  Sums of shifted views: XLA's convolutions are slow for a single channel.
  """
  reach = len(taps) // 2
  for axis in (1, 2):
    size = x.shape[axis]
    padding = [(0, 0)] * 4
    padding[axis] = (reach, reach)
    padded = jnp.pad(x, padding, mode=edge)
    views = [
      tap * jax.lax.slice_in_dim(padded, shift, shift + size, axis=axis)
      for shift, tap in enumerate(taps)
    ]
    x = functools.reduce(operator.add, views)
  return x
