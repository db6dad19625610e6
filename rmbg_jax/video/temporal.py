"""Steadies a mask over time where the picture does not change."""

import dataclasses

import numpy as np
from jaxtyping import Float, UInt8

# Difference of colours in [0, 1] that counts as movement. Noise in good clips
# is well below, movement well above.
_SIGMA = 0.04
_RADIUS = 2  # Pixels of the network's input that decide together.
_MOST = 0.95  # Largest weight of earlier frames.


@dataclasses.dataclass
class Steadier:
  """Averages masks over time, as motion-adaptive noise filters do pictures.

  A recursive filter whose weight falls with the difference between the frame
  and what came before (Dubois and Sabri, IEEE Trans. Communications 1984, less
  the motion compensation): where the picture stands still, alpha is averaged;
  where it moves or is cut, alpha is the network's alone. The picture before is
  averaged by the same weights, so slow movements add up until they count.

  Attributes:
    strength: 0 for nothing to 1.
    last: The last steadied mask, and the picture that it belongs to, RGB in
      [0, 1]; None before the first, and where the strength is 0.
  """

  strength: float
  last: tuple[Float[np.ndarray, 'h w'], Float[np.ndarray, 'h w 3']] | None = (
    None
  )

  def steady(
    self,
    probs: Float[np.ndarray, 'h w'],
    seen: UInt8[np.ndarray, 'h w 3'],
  ) -> Float[np.ndarray, 'h w']:
    """Returns the mask of the next frame, of the network's and what it saw."""
    if not self.strength:
      return probs
    from scipy import ndimage  # Late, as it takes a third of a second.

    picture = seen.astype(np.float32) / 255
    if self.last is None:
      self.last = probs, picture
      return probs
    before, guide = self.last
    difference = np.abs(picture - guide).max(axis=-1)
    # The mean of a window, so that noise does not count; its maximum, so that
    # what moves takes its surroundings along.
    size = 2 * _RADIUS + 1
    difference = ndimage.uniform_filter(difference, size, mode='nearest')
    difference = ndimage.maximum_filter(difference, size, mode='nearest')
    weight = self.strength * _MOST * np.exp(-((difference / _SIGMA) ** 2))
    probs = (probs + weight * (before - probs)).astype(np.float32)
    weight = weight[..., None]
    guide = (picture + weight * (guide - picture)).astype(np.float32)
    self.last = probs, guide
    return probs
