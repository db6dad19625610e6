"""Times a training step of the original network here and in Keras/TensorFlow.

```bash
python scripts/benchmark_train.py --cases=2x256,1x512 --steps=5
```

Needs requirements-dev.txt. Each side runs in a process of its own, so that the
peak of its memory is its own. Both take the same network (53.5 M parameters),
Adam, and binary cross-entropy over the four outputs, from uint8 batches in
memory; Keras' step is a compiled `train_on_batch`. Printed are the medians.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

SIDES = ('jax', 'keras')


def make_batch(batch: int, size: int) -> dict[str, np.ndarray]:
  """Returns random images with round masks."""
  rng = np.random.default_rng(0)
  y, x = np.mgrid[:size, :size] / size - 0.5
  disc = ((x**2 + y**2 < 0.1) * 255).astype(np.uint8)
  return {
    'image': rng.integers(0, 256, (batch, size, size, 3), np.uint8),
    'alpha': np.tile(disc[None, ..., None], (batch, 1, 1, 1)),
    'weight': np.ones(batch, np.float32),
  }


def make_jax_step(batch: int, size: int, dtype: str) -> Callable[[], float]:
  """Returns a function that takes a step and returns its loss."""
  from rmbg_jax import models, optimizers, state, train_step
  from rmbg_jax.preprocessing import make_preprocessing

  mesh = state.make_mesh()
  model = models.create_model({'name': 'unet'}, dtype=dtype)
  optimizer = optimizers.make_optimizer(
    1e-6, weight_decay=0.0, clip_norm=0.0, encoder_rate=1.0
  )
  train_state = state.create_train_state(
    state.create_variables(model, seed=0, size=(64, 64)), optimizer, mesh
  )
  step = train_step.make_train_step(
    model,
    optimizer,
    make_preprocessing('original', size=(size, size)),
    loss_weights={'bce': 1.0},
    output_weights=(1.0,) * 4,
  )
  data = make_batch(batch, size)

  def take_step():
    nonlocal train_state
    train_state, metrics = step(train_state, state.put_batch(data, mesh))
    return float(metrics['loss'])

  return take_step


def make_keras_step(batch: int, size: int, dtype: str) -> Callable[[], float]:
  """Returns a function that takes a step and returns its loss."""
  import keras

  from tests import keras_reference

  if dtype == 'bfloat16':
    keras.mixed_precision.set_global_policy('mixed_bfloat16')
  model = keras_reference.build_original(keras, size=(size, size))
  model.compile(keras.optimizers.Adam(1e-6), 'binary_crossentropy')
  data = make_batch(batch, size)

  def take_step():
    images = data['image'][..., ::-1].astype(np.float32) / 255
    alpha = np.repeat(data['alpha'].astype(np.float32) / 255, 4, axis=-1)
    return float(model.train_on_batch(images, alpha))

  return take_step


def measure(side: str, batch: int, size: int, dtype: str, steps: int) -> dict:
  """Returns seconds per step and peak memory of this process."""
  make = {'jax': make_jax_step, 'keras': make_keras_step}[side]
  began = time.perf_counter()
  take_step = make(batch, size, dtype)
  take_step()
  first = time.perf_counter() - began
  take_step()
  seconds = []
  for _ in range(steps):
    began = time.perf_counter()
    take_step()
    seconds.append(time.perf_counter() - began)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  return {
    'median': statistics.median(seconds),
    'fastest': min(seconds),
    'first': first,
    'peak_mb': peak,
  }


def run_side(side: str, case: str, dtype: str, steps: int) -> dict:
  """Measures in a process of its own."""
  output = subprocess.run(
    [sys.executable, __file__, f'--side={side}', f'--cases={case}']
    + [f'--dtype={dtype}', f'--steps={steps}'],
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  return json.loads(output.splitlines()[-1])


def main() -> None:
  """Prints the comparison."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--cases', default='2x256,1x512', help='BATCHxSIZE,...')
  parser.add_argument('--steps', type=int, default=5)
  parser.add_argument('--dtype', default='float32')
  parser.add_argument('--side', choices=SIDES, help='Measure one, here.')
  arguments = parser.parse_args()
  if arguments.side:
    batch, size = map(int, arguments.cases.split('x'))
    result = measure(
      arguments.side, batch, size, arguments.dtype, arguments.steps
    )
    print(json.dumps(result))
    return
  print(f'{platform.machine()}, {os.cpu_count()} cores, {arguments.dtype}')
  for case in arguments.cases.split(','):
    results = {
      side: run_side(side, case, arguments.dtype, arguments.steps)
      for side in SIDES
    }
    for side, result in results.items():
      print(
        f'{case} {side:6} {result["median"]:7.2f} s/step (fastest '
        f'{result["fastest"]:.2f}, first {result["first"]:.1f}), peak '
        f'{result["peak_mb"]:.0f} MB'
      )
    ours, theirs = results['jax'], results['keras']
    print(
      f'{case} ratio  {ours["median"] / theirs["median"]:7.2f} of the time, '
      f'{ours["peak_mb"] / theirs["peak_mb"]:.2f} of the memory',
      flush=True,
    )


if __name__ == '__main__':
  main()
