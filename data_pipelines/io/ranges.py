"""Finds the range of grey pictures' values, and converts them to 8 bits."""

import numpy as np
from PIL import Image

from data_pipelines.io.errors import UserError


def find_extremes(values: np.ndarray) -> tuple[float, float]:
  """Returns (smallest, largest) of an image's values, and of 0.

  Raises:
    UserError: if there are infinite values, or such that are no numbers.
  """
  low, high = values.min(initial=0), values.max(initial=0)
  if not (np.isfinite(low) and np.isfinite(high)):
    raise UserError('it has values that are infinite or not numbers')
  return float(low), float(high)


def find_scale(low: float, high: float, *, floats: bool) -> int:
  """Returns the value of full foreground among values from `low` to `high`.

  Of one image or, better, of many.

  Returns:
    1, 255 or 65535.

  Raises:
    UserError: if it is unclear.
  """
  if floats:
    # Interpolation overshoots.
    # The smallest that fits: a larger one must be used beyond its half.
    for scale in (1, 255, 65535):
      least = 0 if scale == 1 else scale / 2
      if -0.1 * scale <= low and least <= high <= 1.1 * scale:
        return scale
    remedy = 'store floats from 0 to 1'
  else:
    if low >= 0 and high <= 255:
      return 1 if high <= 1 else 255
    if low >= 0 and 32768 <= high <= 65535:
      return 65535
    remedy = 'store 8 bits, or all of 16 bits'
  raise UserError(
    f'its values are from {low:g} to {high:g}, an unclear range; {remedy}'
  )


def is_wide(image: Image.Image) -> bool:
  """Returns whether an image is grey with more than 8 bits."""
  return image.mode.startswith('I') or image.mode == 'F'


def to_8_bit(values: np.ndarray, scale: int) -> np.ndarray:
  """Returns values from 0 to `scale` as uint8."""
  if scale == 255 and values.dtype.kind != 'f':
    return values.astype(np.uint8, copy=False)
  scaled = values.astype(np.float32) * np.float32(255 / scale)
  return np.clip(scaled.round(), 0, 255).astype(np.uint8)
