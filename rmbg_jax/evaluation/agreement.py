"""Combines several networks' masks of a photo, and says how far they agree."""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from rmbg_jax.inference import remover

FIGURES = ('agreement', 'area', 'unsure')
# Beyond these logits, a network that is sure would outvote all others.
_SUREST = 4.6  # A probability of .99.


def combine(
  alphas: Sequence[Float[np.ndarray, 'h w']],
) -> tuple[Float[np.ndarray, 'h w'], dict[str, float]]:
  """Averages logits, so that sure networks count more than unsure ones.

  Args:
    alphas: Alpha in [0, 1] of at least two networks, all of one size.

  Returns:
    Their alpha together, in [0, 1], and by the names of `FIGURES`: the lowest
    intersection over union of two networks' masks at 1/2, in [0, 1]; the share
    of the photo's pixels above 1/2; and the pixels between .1 and .9, as a
    share of those above 1/2.
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
  agreement = min(
    np.count_nonzero(first & second) / max(np.count_nonzero(first | second), 1)
    for first, second in itertools.combinations(found, 2)
  )
  figures = agreement, foreground / alpha.size, unsure / max(foreground, 1)
  return alpha, dict(zip(FIGURES, figures, strict=True))
