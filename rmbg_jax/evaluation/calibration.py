"""Chooses the temperature that a network's logits are divided by.

Networks are trained on soft labels and with regularisation, so they are less
sure than they are right. The rule: of the temperatures at which no group loses
more than `MOST_LOST` of S against a temperature of 1, the one of the lowest
MAE, the groups' mean.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import py_sod_metrics
import tqdm

from data_pipelines.datasets import decoding, records
from data_pipelines.io import errors
from rmbg_jax.evaluation import benchmarks, scoring
from rmbg_jax.inference import photos
from rmbg_jax.inference import remover as remover_lib

TEMPERATURES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
MOST_LOST = 0.003
# Alpha between these is unsure.
_UNSURE = (0.1, 0.9)


class Figures(NamedTuple):
  """Means over a group's photos at one temperature.

  Attributes:
    photos: Number of photos.
    mae: Mean absolute error of alpha.
    s: Structure measure (Fan et al., ICCV 2017) against truth > .5.
    unsure: Share of pixels whose alpha is neither near 0 nor near 1.
  """

  photos: int
  mae: float
  s: float
  unsure: float


# By group, then by temperature.
Table = Mapping[str, Mapping[float, Figures]]


def measure(
  remover: remover_lib.BackgroundRemover,
  data_sets: Sequence[benchmarks.DataSet],
) -> tuple[Table, list[str]]:
  """Returns the figures of each category, soft mattes apart, and temperature.

  Photos without foreground say nothing. What is wrong with those that had to be
  left out is returned, too.
  """
  values = collections.defaultdict(lambda: collections.defaultdict(list))
  problems = [problem for one in data_sets for problem in one.problems]
  jobs = [(pair, one.binarize) for one in data_sets for pair in one.pairs]
  for pair, binarize in tqdm.tqdm(jobs, unit='photo'):
    try:
      scores = _measure_pair(remover, pair, binarize=binarize)
    except (OSError, ValueError) as error:
      problems.append(str(error))
      continue
    group = 'soft mattes' if pair.label == 'alpha' else pair.category or 'all'
    for temperature, score in scores.items():
      values[group][temperature].append(score)
  table = {
    group: {
      t: Figures(len(own), *np.mean(own, axis=0)) for t, own in by.items()
    }
    for group, by in values.items()
  }
  return table, problems


def _measure_pair(
  remover: remover_lib.BackgroundRemover, pair: records.Pair, *, binarize: bool
) -> dict[float, Sequence[float]]:
  """Returns a photo's scores by temperature, {} if it has no foreground."""
  photo = photos.read_photo(pair.image_path)
  truth = scoring.read_truth(pair, binarize=binarize) / np.float32(255)
  if problem := decoding.compare_sizes(pair, photo.rgb.size[::-1], truth.shape):
    raise errors.UserError(f'{problem}. Repair or remove the pair.')
  if truth.max() <= 0.5:
    return {}
  # The network once for all temperatures, which only divide its logits.
  logits = remover.predict_logits(remover.resize([photo.seen]))[0]
  scores = {}
  for temperature in TEMPERATURES:
    probs = remover_lib.compute_probs(logits, temperature)
    alpha = photo.hide_transparent(remover.refine(probs, photo))
    structure = py_sod_metrics.Smeasure()
    structure.step(alpha, truth > 0.5, normalize=False)
    scores[temperature] = (
      float(np.abs(alpha - truth).mean()),
      float(structure.get_results()['sm']),
      float(((alpha > _UNSURE[0]) & (alpha < _UNSURE[1])).mean()),
    )
  return scores


def choose(table: Table) -> float:
  """Returns the temperature that the rule of this module chooses."""

  def is_kept(temperature):
    return all(
      figures[1.0].s - figures[temperature].s <= MOST_LOST
      for figures in table.values()
    )

  def find_mae(temperature):
    return np.mean([figures[temperature].mae for figures in table.values()])

  # On ties the first, which is nearest to 1.
  return min(filter(is_kept, TEMPERATURES), key=find_mae)


def format_table(table: Table, chosen: float) -> str:
  """Returns a row per group and temperature, the chosen one marked."""
  lines = [
    '| group | photos | temperature | MAE | S | unsure |',
    '|---|---:|---:|---:|---:|---:|',
  ]
  for group, figures in table.items():
    for temperature, one in figures.items():
      mark = ' *' if temperature == chosen else ''
      lines.append(
        f'| {group} | {one.photos} | {temperature}{mark} | {one.mae:.4f} | '
        f'{one.s:.4f} | {one.unsure:.2%} |'
      )
  return '\n'.join(lines)
