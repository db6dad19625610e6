"""Combines several networks' masks of a photo, and says how far they agree."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from rmbg_jax.inference import remover

# Beyond these logits, a network that is sure would outvote all others.
_SUREST = 4.6  # A probability of .99.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Label:
  """A mask that several networks have made together.

  Attributes:
    alpha: Share of the foreground in each pixel, in [0, 1].
    agreement: Lowest intersection over union of two networks' masks at 1/2, in
      [0, 1].
    area: Share of the photo's pixels above 1/2.
    unsure: Pixels between .1 and .9, as a share of those above 1/2.
  """

  alpha: Float[np.ndarray, 'h w']
  agreement: float
  area: float
  unsure: float


def combine(alphas: Sequence[Float[np.ndarray, 'h w']]) -> Label:
  """Averages logits, so that sure networks count more than unsure ones.

  Args:
    alphas: Alpha in [0, 1] of at least two networks, all of one size.
  """
  edge = 1 / (1 + np.exp(_SUREST))
  clipped = np.clip(alphas, edge, 1 - edge)
  logits = np.mean(np.log(clipped / (1 - clipped)), axis=0)
  alpha = remover.compute_probs(logits, temperature=1.0)
  # Where all are as sure as can be, nothing is left to be undecided about.
  alpha = np.clip((alpha - edge) / (1 - 2 * edge), 0, 1).astype(np.float32)
  found = [np.asarray(one) > 0.5 for one in alphas]
  foreground = np.count_nonzero(alpha > 0.5)
  unsure = np.count_nonzero((alpha > 0.1) & (alpha < 0.9))
  return Label(
    alpha=alpha,
    agreement=min(
      np.count_nonzero(first & second)
      / max(np.count_nonzero(first | second), 1)
      for first, second in itertools.combinations(found, 2)
    ),
    area=foreground / alpha.size,
    unsure=unsure / max(foreground, 1),
  )
