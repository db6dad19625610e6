"""Times prediction, each figure beside what it is compared with.

```bash
python scripts/benchmark_predict.py --cases=network,folder,start,memory
python scripts/benchmark_predict.py --cases=lite --u2netp=u2netp.onnx
```

network: the original network at 512x512, one image at a time, here and in
  Keras/TensorFlow with the same weights, in turn; the masks' difference.
folder: 24 photos of 1500x1000 to side-by-side pictures with that network, by
  `rmbg_jax.predict` and by the original notebook's loop.
lite: the `lite` network at its own size and U2-Net-p in onnxruntime at 320.
start: one photo in a new process with `lite`, the second time.
memory: the peak of a process that does 200 photos, and one that does 2,000.

Needs requirements-dev.txt. Weights are random: they do not change the time.
"""

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')


def time_in_turn(
  functions: dict[str, Callable[[], object]], repeats: int
) -> dict[str, float]:
  """Returns each function's median seconds; they take turns."""
  seconds = {name: [] for name in functions}
  for function in functions.values():
    function()  # Compiles.
  for _ in range(repeats):
    for name, function in functions.items():
      began = time.perf_counter()
      function()
      seconds[name].append(time.perf_counter() - began)
  return {name: statistics.median(values) for name, values in seconds.items()}


def make_keras_model(path: Path):
  """Saves the original network with random weights; returns it in Keras."""
  import keras

  from tests import keras_reference

  keras.utils.set_random_seed(0)
  model = keras_reference.build_original(keras, size=(512, 512))
  model.save(path)
  return model


def make_photos(folder: Path, count: int, size: tuple[int, int]) -> None:
  """Writes JPEGs of (width, height) with some structure in them."""
  folder.mkdir()
  rng = np.random.default_rng(0)
  for index in range(count):
    coarse = rng.integers(0, 256, (12, 18, 3), np.uint8)
    photo = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    noisy = np.asarray(photo) + rng.normal(0, 6, (size[1], size[0], 1))
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(
      folder / f'{index:05}.jpg', quality=90
    )


def save_lite(path: Path) -> None:
  """Writes a release of the lite network with random weights."""
  import jax

  from configs import lite
  from rmbg_jax import build, state
  from rmbg_jax.pretrained import release

  config = lite.get_config()
  model = build.make_model(config)
  variables = state.create_variables(model, seed=0, size=(64, 64))
  description = build.describe(config)
  release.save_release(path, jax.tree.map(np.asarray, variables), description)


def run_predict(*flags: str) -> tuple[float, int]:
  """Runs the command line; returns its seconds and peak memory in MB."""
  began = time.perf_counter()
  before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
  code = (
    'import resource, sys; from absl import app; from rmbg_jax import predict;'
    'sys.argv = ["predict", *sys.argv[1:]]\n'
    'try:\n  predict.run()\n'
    'finally:\n'
    '  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n'
    '  print(peak // 1024)'
  )
  del before
  output = subprocess.run(
    [sys.executable, '-c', code, *flags],
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  return time.perf_counter() - began, int(output.split()[-1])
