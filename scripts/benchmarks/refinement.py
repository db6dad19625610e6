"""Compares ways to refine on photos with true alpha.

```bash
python -m scripts.benchmarks.refinement --data=ALPHAS \
  --refiners=runs/fold0,runs/fold1,runs/fold2,runs/fold3
```

With several refiners, each is used for the photos that its training held out
(`config.data.fold`): every fourth of four, in the order of the data set. Errors
are those of `rmbg_jax.evaluate --metrics=matting`, of the whole photo and
within 20 pixels of the true edge, with 95 % intervals of the change against no
refinement (bootstrap over photos).
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tqdm
from absl import flags
from PIL import Image, ImageOps

from data_pipelines import cli
from data_pipelines.datasets import decoding, folder, records
from rmbg_jax.evaluation import matting, results
from rmbg_jax.inference import photos, refinement, remover
from scripts.benchmarks import common

_RADIUS = 20  # Of the band around the true edge, in pixels.
_COLUMNS = {
  'sad_whole_thousands': 'SAD / 1000',
  'mse_whole': 'MSE',
  'gradient_whole_thousands': 'gradient / 1000',
  'connectivity_whole_thousands': 'connectivity / 1000',
  'mad_unknown': 'MAE at edges',
  'gradient_unknown_thousands': 'gradient at edges / 1000',
}

_DATA = cli.define_path(
  'data', None, 'Folder of photos with true alpha.', required=True
)
_REFINERS = cli.define_paths('refiners', ['refiner'], 'One, or one per fold.')
_CHECKPOINT = flags.DEFINE_string('checkpoint', 'released', 'The network.')
_SIZES = flags.DEFINE_list('sizes', ['640', '0'], 'Longest sides; 0: as it is.')
_METHODS = flags.DEFINE_list(
  'methods', ['none', 'guided', 'matting', 'learned'], 'Refinements.'
)


def measure_size(pairs: Sequence[records.Pair], size: int) -> None:
  """Prints the table of a size."""
  network = remover.BackgroundRemover.from_checkpoint(_CHECKPOINT.value)
  ways = {
    method: [
      network.with_refinement(
        refinement.Refinement(method=method, refiner=path)
      )
      for path in _REFINERS.value[: None if method == 'learned' else 1]
    ]
    for method in _METHODS.value
  }
  rows = {method: [] for method in ways}
  seconds = dict.fromkeys(ways, 0.0)
  for number, pair in enumerate(tqdm.tqdm(pairs)):
    photo, mask = decoding.read_pair(pair, allow_empty=True)
    if size:
      photo, mask = (
        ImageOps.contain(image, (size, size), Image.Resampling.LANCZOS)
        for image in (photo, mask)
      )
    truth = np.asarray(mask, np.float32) / 255
    band = matting.make_unknown_band(truth, radius=_RADIUS)
    seen = photos.read_photo(photo)
    probs = network.predict(network.resize([photo]))[0]
    for method, folds in ways.items():
      began = time.process_time()
      alpha = folds[number % len(folds)].refine(probs, seen)
      seconds[method] += time.process_time() - began
      found = matting.compute_matting(alpha, truth, band)
      rows[method].append([found[key] for key in _COLUMNS])
  side = f'longest side {size}' if size else 'as they are'
  print(f'\n{len(pairs)} photos, {side}\n')
  common.print_head('', *_COLUMNS.values(), 's of processor')
  base = np.asarray(rows['none'])
  weights = np.concatenate(list(results.make_weights(len(pairs))))
  for method, values in rows.items():
    table = np.asarray(values)
    cells = []
    for mean, before, drawn in zip(
      table.mean(0),
      base.mean(0),
      (weights @ table / (weights @ base) - 1).T,
      strict=True,
    ):
      cell = f'{mean:.4f}' if mean < 1 else f'{mean:.2f}'
      if method != 'none':
        low, high = np.percentile(drawn, (2.5, 97.5))
        cell += f' ({mean / before - 1:+.0%}, {low:+.0%} to {high:+.0%})'
      cells.append(cell)
    common.print_row(method, *cells, f'{seconds[method] / len(pairs):.2f}')


def measure(place: Path) -> None:
  """Prints a table per size."""
  del place
  pairs = folder.read_folder(_DATA.value)
  for size in map(int, _SIZES.value):
    measure_size(pairs, size)


if __name__ == '__main__':
  common.run(measure)
