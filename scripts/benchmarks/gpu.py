r"""Measures all that needs a GPU, in one run of eight minutes into one file.

```bash
python -m scripts.benchmarks.gpu --report=gpu.md
python -m scripts.benchmarks.gpu --report=cpu.md --case=1x64 --dtype=float32 \
  --count=64   # A rehearsal, on any machine
```

Every part runs in a process of its own, and what it found is in the file before
the next one begins: a run that is stopped loses the part under way alone.

- training: a step of the original network here and in PyTorch, compiled; images
  a second, utilisation, memory (`scripts/benchmarks/train.py`).
- loader: images a second of the loader, for the step above to be held against
  (`scripts/benchmarks/data.py`).
- exact: two trainings with `--config.deterministic=True` have the same history,
  and the checkpoint predicts the same on the CPU.
- export: a StableHLO file gives the masks that it gives on the CPU; how fast.
- algorithms: a GPU's program has none of the algorithms that are for a CPU.
"""

import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import flags

from data_pipelines import cli
from data_pipelines.io import files, parallel
from scripts.benchmarks import common

_REPORT = cli.define_path('report', None, 'Markdown file to write.')
_SECONDS = flags.DEFINE_float(
  'seconds', 470.0, 'Nothing goes on for longer than this, all parts together.'
)
_CASE = flags.DEFINE_string('case', '64x512', 'BATCHxSIZE of the training.')
_DTYPE = flags.DEFINE_enum(
  'dtype', 'bfloat16', ['float32', 'bfloat16'], 'Of the training.'
)
_COUNT = flags.DEFINE_integer('count', 2048, 'Images to read, to train with.')
_PARTS = flags.DEFINE_list('parts', None, 'Parts to measure; all if not given.')

_PHOTOS = 8  # For the parts that compare masks.
_COMPARED = ('loss', 'val_loss', 'val_mae', 'val_iou', 'grad_norm')
_CPU = {'JAX_PLATFORMS': 'cpu'}


def run_module(module: str, *options: str, seconds: float) -> str:
  """Returns the output of a module, with its error if it failed."""
  try:
    process = common.run_python('-m', module, *options, seconds=seconds)
  except subprocess.TimeoutExpired as error:
    return f'{error.stdout}stopped after {seconds:.0f} s\n'
  if process.returncode:
    words = process.stderr.strip().splitlines()[-1:] or ['no message']
    return f'{process.stdout}failed: {words[0][:300]}\n'
  return process.stdout


def measure_training(folder: Path, seconds: float) -> str:
  """Returns the output of `scripts/benchmarks/train.py` for both sides."""
  del folder
  return run_module(
    'scripts.benchmarks.train',
    *('--sides=jax,torch', f'--dtype={_DTYPE.value}', '--steps=10'),
    f'--cases={_CASE.value}',
    seconds=seconds,
  )


def measure_loader(folder: Path, seconds: float) -> str:
  """Returns the loader's images per second, without and with augmentation."""
  from scripts.benchmarks import data

  began = time.perf_counter()
  data.make_pairs(folder / 'pairs', count=64)
  lines = ''
  for side in ('loader', 'augmented'):
    measured = common.call_apart(
      data.measure,
      *(side, folder / 'pairs', _COUNT.value),
      seconds=seconds - (time.perf_counter() - began),
      environment=_CPU,
    )
    lines += f'{side}: {measured}\n'
  return lines


def check_exactness(folder: Path, seconds: float) -> str:
  """Returns whether trainings repeat, and a checkpoint serves on the CPU."""
  began = time.perf_counter()
  rows = []
  for run in ('first', 'second'):
    workdir = folder / run
    printed = run_module(
      'rmbg_jax.main',
      f'--config={common.ROOT / "configs/demo.py"}',
      *('--config.data.loader=device', '--config.data.augment.jpeg=0'),
      *('--config.deterministic=True', '--config.train.tensorboard=False'),
      *('--config.train.epochs=1', f'--config.data.demo.count={_COUNT.value}'),
      *(f'--config.data.dir={folder / "demo"}', f'--workdir={workdir}'),
      seconds=seconds - (time.perf_counter() - began),
    )
    try:
      lines = (workdir / 'log.jsonl').read_text().splitlines()
    except FileNotFoundError:
      return printed
    rows.append(json.loads(lines[-1]))
  unequal = [key for key in _COMPARED if rows[0][key] != rows[1][key]]
  found = 'equal to the last digit'
  if unequal:
    found = f'different in {", ".join(unequal)}'
  left = seconds - (time.perf_counter() - began)
  return f'{", ".join(_COMPARED)} of two trainings: {found}\n' + compare_sides(
    'the checkpoint', predict_checkpoint, folder, left
  )


def check_export(folder: Path, seconds: float) -> str:
  """Returns how a StableHLO file's masks here are those of the CPU."""
  return compare_sides('the StableHLO file', predict_exported, folder, seconds)


def check_algorithms(folder: Path, seconds: float) -> str:
  """Returns which algorithms for a CPU this device's programs call."""
  del folder
  return json.dumps(common.call_apart(list_algorithms, seconds=seconds))


def compare_sides(
  name: str, predict: Callable[[str], dict], folder: Path, seconds: float
) -> str:
  """Returns `compare_masks` of the CPU and of this device."""
  sides = [
    common.call_apart(
      predict, folder, environment=environment, seconds=seconds / 2
    )
    for environment in (_CPU, {})
  ]
  return compare_masks(name, *sides)


def compare_masks(name: str, there: dict, here: dict) -> str:
  """Returns a line on the difference of masks, and the time they took."""
  difference = np.abs(np.asarray(here['masks']) - np.asarray(there['masks']))
  return (
    f'{name} on {here["device"]} against the CPU: masks differ by '
    f'{difference.max():.1e} at most, {difference.mean():.1e} on average; '
    f'{_PHOTOS} photos in {here["seconds"] * 1000:.1f} ms, on the CPU in '
    f'{there["seconds"] * 1000:.1f} ms\n'
  )


def draw_photos(size: tuple[int, int]) -> np.ndarray:
  """Returns a batch (b, h, w, 3) of uint8 figures before backgrounds."""
  from data_pipelines.datasets import demo

  rng = np.random.default_rng(3)
  return np.stack([demo.draw_pair(rng, size)[0] for _ in range(_PHOTOS)])


def describe_masks(predict: Callable[[], np.ndarray]) -> dict:
  """Returns masks, thinned out, the seconds of a call, and the device."""
  import jax

  masks = predict()  # Compiles.
  seconds = min(common.time_call(predict) for _ in range(5))
  return {
    'masks': np.asarray(masks)[:, ::4, ::4].round(7).tolist(),
    'seconds': seconds,
    'device': jax.devices()[0].device_kind,
  }


def predict_checkpoint(folder: str) -> dict:
  """Returns the masks of the training's checkpoint on this device."""
  from rmbg_jax import BackgroundRemover, load_model

  loaded = load_model(Path(folder) / 'first')
  remover = BackgroundRemover(loaded, batch_size=_PHOTOS)
  photos = draw_photos(loaded.preprocessing.size)
  return describe_masks(lambda: remover.predict(photos))


def predict_exported(folder: str) -> dict:
  """Returns the masks of an exported file, made if it is not there."""
  from jax import export

  from rmbg_jax.export import stablehlo
  from rmbg_jax.weights import load

  loaded = load.load_model('small')
  path = Path(folder) / 'small.zip'
  if not path.exists():
    stablehlo.save_stablehlo(path, loaded)
  with zipfile.ZipFile(path) as file:
    program = file.read(stablehlo.PROGRAM)
  photos = draw_photos(loaded.preprocessing.size)
  call = export.deserialize(bytearray(program)).call
  return describe_masks(lambda: np.asarray(call(photos)))


def list_algorithms() -> dict:
  """Returns how often programs for this device call a CPU's algorithms."""
  from unittest import mock

  import jax

  from rmbg_jax import models
  from rmbg_jax.models import convolution, winograd
  from rmbg_jax.training import state

  found = {'device': jax.devices()[0].device_kind}
  for name in ('unet', 'u2net'):
    model = models.create_model({'name': name})
    variables = state.create_variables(model, seed=0, size=(64, 64))
    with (
      mock.patch.object(
        convolution, '_convolve_same', wraps=convolution._convolve_same
      ) as products,
      mock.patch.object(
        winograd, 'convolve_transformed', wraps=winograd.convolve_transformed
      ) as transformed,
    ):
      images = np.zeros((1, 64, 64, 3), np.float32)
      jax.jit(model.apply).lower(variables, images)
    found[name] = {
      'matrix_products': products.call_count,
      'winograd': transformed.call_count,
    }
  return found


# Parts by name: each measures in a folder, within so many seconds.
PARTS = {
  'training': measure_training,
  'exact': check_exactness,
  'export': check_export,
  'algorithms': check_algorithms,
  'loader': measure_loader,
}


def measure(report: Path, parts: list[str], seconds: float) -> None:
  """Writes the report anew after each part."""
  began = time.perf_counter()
  machine = f'{parallel.name_processor()}, {parallel.count_cores()} cores'
  text = f'# {time.strftime("%Y-%m-%d")}, {machine}\n'
  with tempfile.TemporaryDirectory() as folder:
    for name in parts:
      left = seconds - (time.perf_counter() - began)
      start = time.perf_counter()
      try:
        found = PARTS[name](Path(folder), left) if left > 0 else 'no time left'
      # A part that fails is no reason to lose the others.
      except (Exception, SystemExit) as error:  # noqa: BLE001
        found = f'failed: {error}'
      took = time.perf_counter() - start
      section = f'\n## {name} ({took:.0f} s)\n\n{found.rstrip()}\n'
      print(section, flush=True)
      text += section
      files.write_text(report, text)


def main() -> None:
  """Writes the report."""
  common.begin()
  if _REPORT.value is None:
    sys.exit('Pass --report=FILE.md, where to write what is measured.')
  parts = _PARTS.value or list(PARTS)
  if unknown := [name for name in parts if name not in PARTS]:
    sys.exit(f'--parts={",".join(unknown)}: choose from {", ".join(PARTS)}.')
  measure(Path(_REPORT.value), parts, _SECONDS.value)


if __name__ == '__main__':
  cli.run(main, __name__)
