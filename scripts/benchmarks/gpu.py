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
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import flags

from data_pipelines import cli
from data_pipelines.io import files
from scripts.benchmarks import common

_REPORT = cli.define_path('report', None, 'Markdown file.', required=True)
_SECONDS = flags.DEFINE_float(
  'seconds', 470.0, 'Nothing goes on for longer than this, all parts together.'
)
_CASE = flags.DEFINE_string('case', '64x512', 'BATCHxSIZE of the training.')
_DTYPE = flags.DEFINE_enum(
  'dtype', 'bfloat16', ['float32', 'bfloat16'], 'Of the training.'
)
_COUNT = flags.DEFINE_integer('count', 2048, 'Images to read, to train with.')

_PHOTOS = 8  # For the parts that compare masks.
_COMPARED = ('loss', 'val_loss', 'val_mae', 'val_iou', 'grad_norm')
_CPU = {'JAX_PLATFORMS': 'cpu'}


def measure_training(folder: Path, seconds: float) -> str:
  """Returns the output of `scripts/benchmarks/train.py` for both sides."""
  del folder
  return common.run_process(
    *(sys.executable, '-m', 'scripts.benchmarks.train', '--sides=jax,torch'),
    *(f'--dtype={_DTYPE.value}', '--steps=10', f'--cases={_CASE.value}'),
    seconds=seconds,
  )


def measure_loader(folder: Path, seconds: float) -> str:
  """Returns the output of `scripts/benchmarks/data.py` for the loader."""
  del folder
  return common.run_process(
    *(sys.executable, '-m', 'scripts.benchmarks.data', '--rounds=1'),
    *('--sides=loader,augmented', f'--images={_COUNT.value}'),
    seconds=seconds,
    environment=_CPU,
  )


def check_exactness(folder: Path, seconds: float) -> str:
  """Returns whether trainings repeat, and a checkpoint serves on the CPU."""
  ends = time.perf_counter() + seconds
  rows = []
  for run in ('first', 'second'):
    common.run_process(
      *(sys.executable, '-m', 'rmbg_jax.main'),
      f'--config={common.ROOT / "configs/demo.py"}',
      *('--config.data.loader=device', '--config.data.augment.jpeg=0'),
      *('--config.deterministic=True', '--config.train.tensorboard=False'),
      *('--config.train.epochs=1', f'--config.data.demo.count={_COUNT.value}'),
      *(f'--config.data.dir={folder / "demo"}', f'--workdir={folder / run}'),
      seconds=ends - time.perf_counter(),
    )
    lines = (folder / run / 'log.jsonl').read_text().splitlines()
    rows.append(json.loads(lines[-1]))
  unequal = [key for key in _COMPARED if rows[0][key] != rows[1][key]]
  found = 'equal to the last digit'
  if unequal:
    found = f'different in {", ".join(unequal)}'
  return f'{", ".join(_COMPARED)} of two trainings: {found}\n' + compare_sides(
    'the checkpoint', predict_checkpoint, folder, ends - time.perf_counter()
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


def describe_masks(
  size: tuple[int, int], predict: Callable[[np.ndarray], np.ndarray]
) -> dict:
  """Returns masks, thinned out, the seconds of a call, and the device.

  The photos (b, h, w, 3) are uint8 figures of a (height, width).
  """
  import jax

  from data_pipelines.datasets import demo

  rng = np.random.default_rng(3)
  photos = np.stack([demo.draw_pair(rng, size)[0] for _ in range(_PHOTOS)])
  masks = np.asarray(predict(photos))  # Compiles.
  seconds = min(
    common.time_call(lambda: np.asarray(predict(photos))).clock
    for _ in range(5)
  )
  return {
    'masks': masks[:, ::4, ::4].round(7).tolist(),
    'seconds': seconds,
    'device': jax.devices()[0].device_kind,
  }


def predict_checkpoint(folder: str) -> dict:
  """Returns the masks of the training's checkpoint on this device."""
  from rmbg_jax import BackgroundRemover, load_model

  loaded = load_model(Path(folder) / 'first')
  remover = BackgroundRemover(loaded, batch_size=_PHOTOS)
  return describe_masks(loaded.preprocessing.size, remover.predict)


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
  call = export.deserialize(bytearray(program)).call
  return describe_masks(loaded.preprocessing.size, call)


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
_PARTS = flags.DEFINE_list('parts', list(PARTS), 'Parts to measure.')


def write_report(
  report: Path, parts: dict[str, Callable[[Path, float], str]], seconds: float
) -> None:
  """Writes the report anew after each part."""
  ends = time.perf_counter() + seconds
  text = f'# {time.strftime("%Y-%m-%d")}, {common.name_machine()}\n'
  with tempfile.TemporaryDirectory() as folder:
    for name, measure_part in parts.items():
      start = time.perf_counter()
      found = 'no time left'
      try:
        if start < ends:
          found = measure_part(Path(folder), ends - start)
      # A part that fails is no reason to lose the others.
      except (Exception, SystemExit) as error:  # noqa: BLE001
        found = f'failed: {error}'
      took = time.perf_counter() - start
      section = f'\n## {name} ({took:.0f} s)\n\n{found.rstrip()}\n'
      print(section, flush=True)
      text += section
      files.write_text(report, text)


def measure(folder: Path) -> None:
  """Writes the report."""
  del folder
  parts = common.choose(_PARTS, PARTS)
  write_report(Path(_REPORT.value), parts, _SECONDS.value)


if __name__ == '__main__':
  common.run(measure)
