"""Draws curves over the threshold."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use('Agg')  # No screen is needed.
import numpy as np
from matplotlib import pyplot as plt

from data_pipelines.io import files, words
from rmbg_jax.evaluation import results as results_lib

# From high to low, as PySODMetrics' curves are.
_THRESHOLDS = np.arange(255, -1, -1) / 255


def save_curves(results: Sequence[results_lib.Results], path: Path) -> None:
  """Writes a PNG of precision-recall, F and E, of stretched masks.

  The results are those of several systems on one data set.
  """
  figure, axes = plt.subplots(1, 3, figsize=(15, 4.5), layout='constrained')
  for part in results:
    precision, recall, f, e = (
      part.curves[f'{key}_stretched'].mean(axis=0)
      for key in ('precision', 'recall', 'f', 'e')
    )
    axes[0].plot(recall, precision, label=part.system)
    axes[1].plot(_THRESHOLDS, f, label=f'{part.system}, max {f.max():.3f}')
    axes[2].plot(_THRESHOLDS, e, label=f'{part.system}, max {e.max():.3f}')
  axes[0].set(xlabel='Recall', ylabel='Precision')
  axes[1].set(xlabel='Threshold', ylabel='F (beta^2 = 0.3)')
  axes[2].set(xlabel='Threshold', ylabel='E')
  for axis in axes:
    axis.set(xlim=(0, 1), ylim=(0, 1.01))
    axis.grid(alpha=0.3)
    axis.legend(fontsize='small', loc='lower left')
  images = words.count(len(results[0].images), 'image')
  figure.suptitle(f'{results[0].data_set}, {images}')
  with files.write_atomically(path) as partial:
    figure.savefig(partial, dpi=100, format='png')
  plt.close(figure)
