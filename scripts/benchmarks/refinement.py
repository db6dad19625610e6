r"""Compares ways to refine: their errors and their time.

```bash
python -m scripts.benchmarks.refinement --cases=errors --data=ALPHAS \
  --refiners=runs/fold0,runs/fold1,runs/fold2,runs/fold3
python -m scripts.benchmarks.refinement --cases=seconds --methods=none,guided
```

errors: on photos with true alpha, as `rmbg_jax.evaluate --metrics=matting` has
  them: of the whole photo and within 20 pixels of the true edge, with 95 %
  intervals of the change against no refinement (bootstrap over photos). With
  several refiners, each is used for the photos that its training held out
  (`config.data.fold`): every fourth of four, in the order of the data set.
seconds: of a photo of 12 megapixels, and of the foreground's colours after it.
"""

import functools
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tqdm
from absl import flags
from PIL import Image, ImageOps

from data_pipelines import cli
from data_pipelines.datasets import decoding, records
from data_pipelines.datasets import folder as folder_lib
from rmbg_jax.evaluation import matting, results
from rmbg_jax.inference import foreground, photos, refinement, remover
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

_DATA = cli.define_path('data', '', 'Folder of photos with true alpha.')
_REFINERS = cli.define_paths('refiners', ['refiner'], 'One, or one per fold.')
_CHECKPOINT = flags.DEFINE_string('checkpoint', 'released', 'The network.')
_SIZES = flags.DEFINE_list('sizes', ['640', '0'], 'Longest sides; 0: as it is.')
_METHODS = flags.DEFINE_list(
  'methods', ['none', 'guided', 'matting', 'learned'], 'Refinements.'
)


def make_ways(
  network: remover.BackgroundRemover,
) -> dict[str, list[remover.BackgroundRemover]]:
  """Returns the network with each method, with all refiners if it has them."""
  return {
    method: [
      network.with_refinement(
        refinement.Refinement(method=method, refiner=path)
      )
      for path in _REFINERS.value[: None if method == 'learned' else 1]
    ]
    for method in _METHODS.value
  }


def measure_size(pairs: Sequence[records.Pair], size: int) -> None:
  """Prints the table of a size."""
  network = remover.BackgroundRemover.from_checkpoint(_CHECKPOINT.value)
  ways = make_ways(network)
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
  title = f'{len(pairs)} photos, {side}'
  common.print_head(title, *_COLUMNS.values(), 's of processor')
  base = np.asarray(rows['none'])
  weights = np.concatenate(list(results.make_weights(len(pairs))))
  for method, values in rows.items():
    table = np.asarray(values)
    changes = weights @ table / (weights @ base) - 1
    low, high = np.percentile(changes, (2.5, 97.5), axis=0)
    means = table.mean(0)
    common.print_row(
      method,
      *(
        f'{mean:.4g} ({change:+.0%}, {least:+.0%} to {most:+.0%})'
        for mean, change, least, most in zip(
          means, means / base.mean(0) - 1, low, high, strict=True
        )
      ),
      seconds[method] / len(pairs),
    )


def measure_errors(_: Path) -> None:
  """Prints a table per size."""
  pairs = folder_lib.read_folder(_DATA.value)
  for size in map(int, _SIZES.value):
    measure_size(pairs, size)


def measure_seconds(folder: Path) -> None:
  """Prints the time of each refinement and of the colours after it."""
  common.make_photos(folder / 'photos', 1, (4000, 3000))
  network = remover.BackgroundRemover.from_checkpoint(_CHECKPOINT.value)
  photo = photos.read_photo(str(folder / 'photos/00000.jpg')).seen
  seen, pixels = photos.read_photo(photo), np.asarray(photo)
  probs = network.predict(network.resize([photo]))[0]
  calls = {}
  for method, (way, *_) in make_ways(network).items():
    alpha = way.refine(probs, seen)
    mixed = ((alpha > 1 / 255) & (alpha < 254 / 255)).mean()
    name = f'colours after it, {mixed:.0%} of the pixels mixed'
    calls[method] = functools.partial(way.refine, probs, seen)
    calls[f'{method}: {name}'] = functools.partial(
      foreground.estimate_foreground, pixels, alpha
    )
  common.compare('a photo of 4000x3000', calls)


if __name__ == '__main__':
  common.run({'errors': measure_errors, 'seconds': measure_seconds})
