"""Measures size, speed and agreement of a network's exported formats.

```bash
python -m scripts.benchmarks.export --checkpoints=released,lite
```

One photo at a time, all runtimes in turn, medians. Needs requirements-dev.txt.
"""

import functools
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data_pipelines import cli
from data_pipelines.io import errors
from scripts.benchmarks import common

_CHECKPOINTS = cli.define_paths(
  'checkpoints',
  ['released'],
  'What `load_model` loads; or "original" for the original network with random '
  'weights, which do not change the time.',
)

Predict = Callable[[np.ndarray], np.ndarray]  # From photos to alpha.


def make_onnx_call(path: Path) -> Predict:
  """Returns an ONNX file's function in onnxruntime."""
  session = common.open_onnx(path)
  return lambda photos: session.run(['alpha'], {'photos': photos})[0]


def make_openvino_call(path: Path) -> Predict:
  """Returns an ONNX file's function in OpenVINO on the CPU."""
  import openvino

  # By itself, it computes in bfloat16 where the processor can.
  options = {'INFERENCE_PRECISION_HINT': 'f32'}
  model = openvino.Core().compile_model(str(path), 'CPU', options)
  return lambda photos: model({'photos': photos})['alpha'].copy()


def make_stablehlo_call(path: Path) -> Predict:
  """Returns a StableHLO file's function in JAX."""
  import jax
  import jax.export

  from rmbg_jax.export import stablehlo

  with zipfile.ZipFile(path) as file:
    program = jax.export.deserialize(bytearray(file.read(stablehlo.PROGRAM)))
  predict = jax.jit(program.call)
  return lambda photos: np.asarray(predict(photos))


def make_keras_call(path: Path) -> Predict:
  """Returns a Keras file's function in Keras 3 with TensorFlow."""
  import keras

  model = keras.models.load_model(path, compile=False)

  def predict(photos):
    inputs = photos[..., ::-1].astype(np.float32) / 255
    # `predict` would add its own 30 ms and more to every call.
    return np.asarray(model.predict_on_batch(inputs))[..., -1]

  return predict


def make_own_call(path: Path) -> Predict:
  """Returns a released file's function in this project."""
  from rmbg_jax import BackgroundRemover

  return BackgroundRemover.from_checkpoint(path).predict


# What runs it, the file's ending, and how; the first one is compared with.
CALLS = (
  ('this project', '.safetensors', make_own_call),
  ('onnxruntime', '.onnx', make_onnx_call),
  ('OpenVINO', '.onnx', make_openvino_call),
  ('JAX', '.stablehlo', make_stablehlo_call),
  ('Keras 3, TensorFlow', '.h5', make_keras_call),
)


def measure(folder: Path) -> None:
  """Prints a table of each network."""
  from rmbg_jax import export, load_model
  from rmbg_jax.inference import runtimes

  for checkpoint in _CHECKPOINTS.value:
    if checkpoint == 'original':
      checkpoint = folder / 'original.h5'
      common.make_keras_model(checkpoint)
    loaded = load_model(checkpoint)
    views = runtimes.list_views((loaded, *loaded.partners))
    size = max(view.size for view in views)
    photos = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    calls, expected = {}, None
    for runner, suffix, make_call in CALLS:
      path = folder / f'network{suffix}'
      try:
        export.save_export(path, loaded)
      except errors.UserError as error:  # Not every network fits every format.
        print(error)
        continue
      predict = make_call(path)
      alpha = predict(photos)
      expected = alpha if expected is None else expected
      calls[
        f'`{suffix}` of {path.stat().st_size / 1e6:.1f} MB, {runner}, alpha to '
        f'{np.abs(alpha - expected).max():.0e}'
      ] = functools.partial(predict, photos)
    common.compare(f'{Path(checkpoint).stem}, {size[0]}x{size[1]}', calls)


if __name__ == '__main__':
  common.run({'formats': measure})
