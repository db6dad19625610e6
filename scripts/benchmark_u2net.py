"""Times U2-Net's prediction here and in onnxruntime, from the same file.

```bash
python scripts/benchmark_u2net.py --checkpoint=u2netp --batches=1,4
```

Needs requirements-dev.txt. The two take turns, call by call, so that what else
the machine does falls on both. Both give the fused mask alone; the input's
normalisation is part of neither. Printed are the medians, and the first call
here with its compilation.
"""

import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import app, flags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data_pipelines import parallel
from rmbg_jax import command_line

_CHECKPOINT = command_line.define_path(
  'checkpoint', 'u2netp', "A U2-Net's .onnx file, or a published one's name."
)
_SIZE = flags.DEFINE_integer('size', 320, 'Height and width in pixels.')
_BATCHES = flags.DEFINE_list(
  'batches', ['1'], 'Photos in the network together.'
)
_REPEATS = flags.DEFINE_integer('repeats', 9, 'Timed calls of each.')


def make_jax_call(path: Path, images: np.ndarray) -> Callable[[], np.ndarray]:
  """Returns a function that predicts with this project."""
  import jax

  from rmbg_jax import load_model

  loaded = load_model(path)
  variables = jax.device_put(loaded.variables)
  predict = jax.jit(
    lambda variables, x: jax.nn.sigmoid(loaded.model.apply(variables, x)[-1])
  )
  return lambda: np.asarray(predict(variables, images))[..., 0]


def make_onnx_call(path: Path, images: np.ndarray) -> Callable[[], np.ndarray]:
  """Returns a function that predicts with onnxruntime, one photo at a time."""
  import onnxruntime

  options = onnxruntime.SessionOptions()
  # Threads that wait in a loop would slow the other side down.
  options.add_session_config_entry('session.intra_op.allow_spinning', '0')
  session = onnxruntime.InferenceSession(
    path, options, providers=['CPUExecutionProvider']
  )
  name = session.get_inputs()[0].name
  output = session.get_outputs()[0].name
  planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
  return lambda: np.concatenate(
    [session.run([output], {name: image[None]})[0][:, 0] for image in planes]
  )


def _time(call: Callable[[], np.ndarray]) -> float:
  began = time.perf_counter()
  call()
  return time.perf_counter() - began


def main(argv: list[str]) -> None:
  """Prints the comparison."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  from rmbg_jax.pretrained import u2net_onnx

  path = Path(_CHECKPOINT.value)
  if _CHECKPOINT.value in u2net_onnx.PUBLISHED:
    path = u2net_onnx.find_published(_CHECKPOINT.value)
  print(f'{path.name}, {platform.machine()}, {parallel.count_cores()} cores')
  for batch in map(int, _BATCHES.value):
    images = np.random.default_rng(0).normal(
      size=(batch, _SIZE.value, _SIZE.value, 3)
    )
    images = images.astype(np.float32)
    ours, theirs = make_jax_call(path, images), make_onnx_call(path, images)
    first = _time(ours)
    error = np.abs(ours() - theirs()).max()
    seconds = [(_time(ours), _time(theirs)) for _ in range(_REPEATS.value)]
    jax_s, onnx_s = map(statistics.median, zip(*seconds, strict=True))
    print(
      f'batch {batch}: {jax_s / batch:.3f} s/photo here (first call '
      f'{first:.1f} s), {onnx_s / batch:.3f} s/photo in onnxruntime, ratio '
      f'{jax_s / onnx_s:.2f}; largest difference {error:.1e}',
      flush=True,
    )


if __name__ == '__main__':
  command_line.run(main, __name__)
