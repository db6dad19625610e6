"""Times U2-Net's prediction here and in onnxruntime, from the same file.

```bash
python -m scripts.benchmarks.u2net --checkpoint=u2netp --batches=1,4
```

Needs requirements-dev.txt. The two take turns, call by call, so that what else
the machine does falls on both. Both give the fused mask alone; the input's
normalisation is part of neither. Printed are the medians, and the first call
here with its compilation.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import flags

from data_pipelines import cli
from scripts.benchmarks import common

_CHECKPOINT = cli.define_path(
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
  session = common.open_onnx(path)
  name = session.get_inputs()[0].name
  output = session.get_outputs()[0].name
  planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
  return lambda: np.concatenate(
    [session.run([output], {name: image[None]})[0][:, 0] for image in planes]
  )


def main(argv: list[str]) -> None:
  """Prints the comparison."""
  common.begin(argv)
  from rmbg_jax.weights import u2net_onnx

  path = Path(_CHECKPOINT.value)
  if _CHECKPOINT.value in u2net_onnx.PUBLISHED:
    path = u2net_onnx.find_published(_CHECKPOINT.value)
  print(path.name)
  for batch in map(int, _BATCHES.value):
    images = np.random.default_rng(0).normal(
      size=(batch, _SIZE.value, _SIZE.value, 3)
    )
    images = images.astype(np.float32)
    ours, theirs = make_jax_call(path, images), make_onnx_call(path, images)
    first = common.time_call(ours)
    error = np.abs(ours() - theirs()).max()
    seconds = common.time_in_turn(
      {'here': ours, 'there': theirs}, _REPEATS.value
    )
    jax_s, onnx_s = seconds.values()
    print(
      f'batch {batch}: {jax_s / batch:.3f} s/photo here (first call '
      f'{first:.1f} s), {onnx_s / batch:.3f} s/photo in onnxruntime, ratio '
      f'{jax_s / onnx_s:.2f}; largest difference {error:.1e}',
      flush=True,
    )


if __name__ == '__main__':
  cli.run(main, __name__)
