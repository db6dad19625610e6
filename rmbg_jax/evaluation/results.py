"""Holds one system's scores on a data set: averages, intervals, files."""

import csv
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from data_pipelines.io import errors, files
from rmbg_jax.evaluation import metrics, scoring

RESAMPLES = 1000
_CHUNK = 100  # Resamples at a time, to bound the memory.
_INFO = ('name', 'source', 'category', 'photo', 'truth', 'prediction')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
  """Scores of images, with their averages.

  Attributes:
    system: Name of the predicting system, as in tables.
    data_set: Name of the data set.
    images: `name`, `source`, `category` and the paths `photo`, `truth`,
      `prediction` of each image.
    values: Arrays (n,) by metric key; NaN where an image has no value.
    curves: Arrays (n, 256) by name.
    empty: Images whose truth is empty, with their values; in no average.
    failed: Error messages by image name.
    resized: Predictions that were not of their truth's size.
  """

  system: str
  data_set: str
  images: list[dict[str, str]]
  values: dict[str, np.ndarray]
  curves: dict[str, np.ndarray]
  empty: list[dict[str, str | float]] = dataclasses.field(default_factory=list)
  failed: dict[str, str] = dataclasses.field(default_factory=dict)
  resized: int = 0

  @property
  def metrics(self) -> list[metrics.Metric]:
    """The metrics that these results have."""
    return [c for c in metrics.METRICS if c.key in self.values]

  def take(self, chosen: np.ndarray) -> 'Results':
    """Returns the scores of some images, by index or as a mask."""
    order = np.arange(len(self.images))[chosen]
    return dataclasses.replace(
      self,
      images=[self.images[index] for index in order],
      values={key: array[order] for key, array in self.values.items()},
      curves={key: array[order] for key, array in self.curves.items()},
    )

  def average(self, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Returns the metrics' values over the images.

    A maximum over thresholds is that of the mean curve, as in papers: one
    threshold for all images.

    Args:
      weights: (r, n), how often each image counts; None: once, r is 1.

    Returns:
      By metric key, (r,).
    """
    if weights is None:
      weights = np.ones((1, len(self.images)))
    averages = {}
    for metric in self.metrics:
      if metric.curve:
        mean = weights @ self.curves[metric.curve]
        # Here the sum over the images becomes their mean.
        averages[metric.key] = mean.max(axis=1) / weights.sum(axis=1)
      else:
        values = self.values[metric.key]
        valid = np.isfinite(values)
        count = weights @ valid
        averages[metric.key] = np.divide(
          weights @ np.where(valid, values, 0),
          count,
          out=np.full(len(weights), np.nan),
          where=count > 0,
        )
    return averages


def make_weights(count: int) -> Iterator[np.ndarray]:
  """Yields the bootstrap's resamples of `count` images as weights (r, n)."""
  # A fixed seed: every run has the same intervals.
  rng = np.random.default_rng(0)
  shares = np.full(count, 1 / count)
  for _ in range(RESAMPLES // _CHUNK):
    # How often each image is drawn, with replacement.
    yield rng.multinomial(count, shares, size=_CHUNK).astype(float)


def compute_intervals(
  average: Callable[[np.ndarray], dict[str, np.ndarray]], count: int
) -> dict[str, tuple[float, float]]:
  """Returns 95 % percentile intervals of averages over `count` images.

  `average` is as `Results.average`.
  """
  chunks = [average(weights) for weights in make_weights(count)]
  intervals = {}
  for key in chunks[0]:
    values = np.concatenate([chunk[key] for chunk in chunks])
    values = values[np.isfinite(values)]
    low, high = float('nan'), float('nan')
    if len(values):
      low, high = np.quantile(values, (0.025, 0.975)).tolist()
    intervals[key] = low, high
  return intervals


def collect(
  scores: Iterable[scoring.Score], *, system: str, data_set: str
) -> Results:
  """Returns the results that scores make up."""
  scores = list(scores)
  scored = [one for one in scores if not one.error and not one.empty]
  return Results(
    system=system,
    data_set=data_set,
    images=[one.image for one in scored],
    values=_stack([one.values for one in scored]),
    curves=_stack([one.curves for one in scored]),
    empty=[{**one.image, **one.values} for one in scores if one.empty],
    failed={one.image['name']: one.error for one in scores if one.error},
    resized=sum(one.resized for one in scores),
  )


def save_results(results: Results, directory: Path) -> None:
  """Writes `images.csv` and `curves.npz`; `load_results` reads them."""
  keys = [metric.key for metric in results.metrics]
  header = [*_INFO, 'truth_is_empty', *keys]
  if 'mae_raw' not in keys:  # Empty truths have it.
    header.append('mae_raw')
  rows: list[dict[str, object]] = [
    {
      **info,
      'truth_is_empty': 0,
      **{key: float(results.values[key][index]) for key in keys},
    }
    for index, info in enumerate(results.images)
  ]
  rows += [{**row, 'truth_is_empty': 1} for row in results.empty]
  rows += [{'name': n, 'error': error} for n, error in results.failed.items()]
  files.write_csv(
    directory / 'images.csv', [*header, 'area_raw', 'error'], rows
  )
  with (
    files.write_atomically(directory / 'curves.npz') as partial,
    partial.open('wb') as file,
  ):
    # Half the bytes: six digits of a curve are enough.
    curves = {k: v.astype(np.float32) for k, v in results.curves.items()}
    np.savez_compressed(file, allow_pickle=False, **curves)


def load_results(directory: Path) -> Results:
  """Reads what `save_results` wrote; the folders name system and data set.

  Raises:
    MissingFileError: if nothing was written there.
    UserError: if it is not as it was written.
  """
  path = directory / 'images.csv'
  if not path.exists():
    raise errors.MissingFileError(
      f'{path}: no results. Pass what --output was.'
    )
  # Names need not be UTF-8.
  with path.open(
    newline='', encoding='utf-8', errors='surrogateescape'
  ) as file:
    rows = [row for row in csv.DictReader(file) if not row['error']]
  scored = [row for row in rows if row['truth_is_empty'] == '0']
  keys = [c.key for c in metrics.METRICS if scored and scored[0].get(c.key)]
  with np.load(directory / 'curves.npz') as stored:
    curves = {key: stored[key] for key in stored.files}
  if any(len(curve) != len(scored) for curve in curves.values()):
    raise errors.UserError(
      f'{directory}: curves.npz and images.csv are not of the same evaluation. '
      'Evaluate again.'
    )
  return Results(
    system=directory.parent.name,
    data_set=directory.name,
    images=[{key: row[key] for key in _INFO} for row in scored],
    values={k: np.array([float(row[k]) for row in scored]) for k in keys},
    curves=curves,
  )


def _stack(rows: list[dict]) -> dict[str, np.ndarray]:
  keys = rows[0] if rows else ()
  return {key: np.array([row[key] for row in rows]) for key in keys}
