"""Measures size, speed and agreement of a network's exported formats.

```bash
python -m scripts.benchmarks.export --checkpoints=released,lite
```

One photo at a time, all runtimes in turn, medians. Needs requirements-dev.txt.
"""

import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import flags

from data_pipelines import cli
from scripts.benchmarks import common

_CHECKPOINTS = cli.define_paths(
  'checkpoints',
  ['small'],
  'What `load_model` loads; or "original" for the original network with random '
  'weights, which do not change the time.',
)
_REPEATS = flags.DEFINE_integer('repeats', 9, 'Timed calls of each.')

Predict = Callable[[np.ndarray], np.ndarray]


def make_onnx_call(path: Path) -> Predict:
  """Returns a function from photos to alpha, in onnxruntime."""
  session = common.open_onnx(path)
  return lambda photos: session.run(['alpha'], {'photos': photos})[0]


def make_openvino_call(path: Path) -> Predict:
  """Returns a function from photos to alpha, in OpenVINO on the CPU."""
  import openvino

  # By itself, it computes in bfloat16 where the processor can.
  options = {'INFERENCE_PRECISION_HINT': 'f32'}
  model = openvino.Core().compile_model(str(path), 'CPU', options)
  return lambda photos: model({'photos': photos})['alpha'].copy()


def make_stablehlo_call(path: Path) -> Predict:
  """Returns a function from photos to alpha, in JAX."""
  import jax
  import jax.export

  with zipfile.ZipFile(path) as file:
    program = jax.export.deserialize(file.read('program'))
  predict = jax.jit(program.call)
  return lambda photos: np.asarray(predict(photos))


def make_keras_call(path: Path) -> Predict:
  """Returns a function from photos to alpha, in Keras 3 with TensorFlow."""
  import keras

  model = keras.models.load_model(path, compile=False)

  def predict(photos):
    inputs = photos[..., ::-1].astype(np.float32) / 255
    # `predict` would add its own 30 ms and more to every call.
    return np.asarray(model.predict_on_batch(inputs))[..., -1]

  return predict


# What runs it, the file's ending, and how.
CALLS = {
  'onnxruntime': ('.onnx', make_onnx_call),
  'OpenVINO': ('.onnx', make_openvino_call),
  'JAX': ('.stablehlo', make_stablehlo_call),
  'Keras 3, TensorFlow': ('.h5', make_keras_call),
}


def measure(checkpoint: str, folder: Path) -> None:
  """Prints a table of one network."""
  from data_pipelines.io import errors
  from rmbg_jax import BackgroundRemover, export, load_model

  if checkpoint == 'original':
    checkpoint = folder / 'original.h5'
    common.make_keras_model(checkpoint)
  loaded = load_model(checkpoint)
  remover = BackgroundRemover(loaded, scales=(1.0,))
  height, width = loaded.preprocessing.size
  photos = np.random.default_rng(0).integers(
    0, 256, (1, height, width, 3), np.uint8
  )
  expected = remover.predict(photos)
  own = folder / f'network{export.RELEASE}'
  export.save_export(own, loaded)
  calls = {'this project': lambda: remover.predict(photos)}
  rows = {'this project': (export.RELEASE, own, '')}
  for runner, (suffix, make_call) in CALLS.items():
    path = folder / f'network{suffix}'
    try:
      export.save_export(path, loaded)
    except errors.UserError as error:  # Not every network fits every format.
      print(error)
      continue
    predict = make_call(path)
    difference = f'{np.abs(predict(photos) - expected).max():.0e}'
    # Where alpha is the same everywhere, agreement says nothing.
    rows[runner] = (suffix, path, difference if np.ptp(expected) > 0.1 else '')
    calls[runner] = lambda predict=predict: predict(photos)
  seconds = common.time_in_turn(calls, _REPEATS.value)
  print(f'\n{Path(checkpoint).stem}, {height}x{width}\n')
  print('| file | MB | run by | s/photo | largest difference of alpha |')
  print('|---|---|---|---|---|')
  for runner, (suffix, path, difference) in rows.items():
    size = path.stat().st_size / 1e6
    print(
      f'| `{suffix}` | {size:.1f} | {runner} | {seconds[runner]:.3f} | '
      f'{difference} |',
      flush=True,
    )


def main() -> None:
  """Prints the tables."""
  common.begin()
  for checkpoint in _CHECKPOINTS.value:
    with tempfile.TemporaryDirectory() as name:
      measure(checkpoint, Path(name))


if __name__ == '__main__':
  cli.run(main, __name__)
