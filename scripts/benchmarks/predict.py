"""Times prediction, each figure beside what it is compared with.

```bash
python -m scripts.benchmarks.predict --cases=network,folder,memory
python -m scripts.benchmarks.predict --cases=released --u2netp=u2netp.onnx
```

network: the original network at 512x512, one image at a time, here and in
  Keras/TensorFlow with the same weights, in turn; the masks' difference.
folder: 24 photos of 1500x1000 to side-by-side pictures with that network, by
  `rmbg_jax.predict` and by the Keras notebook's loop.
released: the networks of `--checkpoints`, at their own size, in OpenVINO and
  JAX, and U2-Net-p in onnxruntime at 320.
memory: the peak of a process that does 200 photos, and one that does 2,000,
  with the released weights.

Needs requirements-dev.txt. The original network's weights are random: they do
not change the time.
"""

import functools
import itertools
import sys
import time
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image

from data_pipelines import cli
from scripts.benchmarks import common

# Runtimes and precisions to time; a CPU without bfloat16 emulates it, slowly.
_WAYS = (('openvino', 'float32'), ('openvino', 'bfloat16'), ('jax', 'float32'))

_CASES = flags.DEFINE_list(
  'cases',
  ['network', 'folder', 'memory'],
  'Of network, folder, released, memory.',
)
_REPEATS = flags.DEFINE_integer('repeats', 5, 'Timed calls of each.')
_CHECKPOINTS = cli.define_paths(
  'checkpoints', ['released', 'small', 'lite'], 'Networks, for released.'
)
_U2NETP = cli.define_path('u2netp', None, 'Path of u2netp.onnx, for released.')


def predict_folder(photos: str, output: str) -> float:
  """Returns the peak memory of this process after a run of `predict`."""
  from rmbg_jax import predict

  sys.argv[1:] = [f'--input={photos}', f'--output={output}']
  try:
    predict.run()
  except SystemExit as ended:
    if ended.code:
      raise
  return common.read_peak_mb()


def measure_network(folder: Path) -> None:
  """Prints the seconds per image of the network alone."""
  from rmbg_jax import BackgroundRemover

  keras_model = common.make_keras_model(folder / 'model.h5')
  remover = BackgroundRemover.from_checkpoint(folder / 'model.h5')
  image = np.random.default_rng(0).integers(0, 256, (1, 512, 512, 3), np.uint8)

  def run_keras():
    inputs = image[..., ::-1].astype(np.float32) / 255
    return keras_model.predict(inputs, verbose=0)[..., -1]

  def run_here():
    return remover.predict(image)

  difference = np.abs(run_here() - run_keras()).max()
  sides = {'here': run_here, 'Keras': run_keras}
  common.compare('network, 512x512', sides, _REPEATS.value)
  print(f'The masks differ by at most {difference:.1e}.', flush=True)


def measure_folder(folder: Path) -> None:
  """Prints the seconds from files to files."""
  import cv2

  keras_model = common.make_keras_model(folder / 'model.h5')
  photos, output = folder / 'photos', folder / 'notebook'
  common.make_photos(photos, 24, (1500, 1000))
  output.mkdir()

  def run_notebook():
    # What the Keras project's notebook does with each photo.
    for path in photos.iterdir():
      photo = cv2.imread(str(path))
      height, width = photo.shape[:2]
      inputs = cv2.resize(photo, (512, 512)).astype(np.float32) / 255
      mask = keras_model.predict(inputs[None], verbose=0)[0, ..., -1]
      mask = cv2.resize(mask, (width, height))[..., None]
      line = np.full((height, 10, 3), 128)
      picture = np.concatenate([photo, line, photo * mask], axis=1)
      cv2.imwrite(str(output / f'{path.stem}.png'), picture)

  run_here = common.make_predict(folder / 'model.h5', photos, ('side_by_side',))
  common.compare(
    'folder, 24 photos of 1500x1000',
    {'here': run_here, "the notebook's loop": run_notebook},
    repeats=1,
  )


def measure_released(folder: Path) -> None:
  """Prints how long each network takes in each runtime, beside U2-Net-p."""
  del folder
  from rmbg_jax import BackgroundRemover, load_model
  from rmbg_jax.weights import onnx_published

  session = common.open_onnx(
    _U2NETP.value or onnx_published.find_published('u2netp')
  )
  inputs = {session.get_inputs()[0].name: np.zeros((1, 3, 320, 320), 'f4')}
  pixels = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
  photo, ready, found = Image.fromarray(pixels), {}, {}
  # JAX last: its threads would slow the others down.
  for ways in (_WAYS[:-1], _WAYS[-1:]):
    calls = {'U2-Net-p': lambda: session.run(None, inputs)}
    for checkpoint, (runtime, precision) in itertools.product(
      _CHECKPOINTS.value, ways
    ):
      began = time.perf_counter()
      remover = BackgroundRemover(
        load_model(checkpoint), runtime=runtime, precision=precision
      )
      call = functools.partial(remover.predict, remover.resize([photo]))
      call()
      name = f'{checkpoint}, {remover.runtime}'
      ready[name] = f'{time.perf_counter() - began:.2f}'
      calls[name] = call
    found = common.time_in_turn(calls, _REPEATS.value) | found
  theirs = found['U2-Net-p'].clock
  common.print_head(
    'network, runtime', 'ready after, s', 'ms', 'photos/s', 'of U2-Net-p'
  )
  for name, (ours, _) in found.items():
    common.print_row(
      name,
      ready.get(name, ''),
      f'{1000 * ours:.1f}',
      f'{1 / ours:.1f}',
      f'{theirs / ours:.1f}',
    )


def measure_memory(folder: Path) -> None:
  """Prints the peak memory for few and for many photos."""
  for count in (200, 2000):
    photos = folder / str(count)
    common.make_photos(photos, count, (480, 320))
    peak = common.call_apart(predict_folder, photos, folder / f'out{count}')
    print(f'memory: {peak:.0f} MB for {count:,} photos', flush=True)


CASES = {
  'network': measure_network,
  'folder': measure_folder,
  'released': measure_released,
  'memory': measure_memory,
}


def measure(folder: Path) -> None:
  """Prints the figures of the chosen cases."""
  for name, measure_case in common.choose(_CASES, CASES).items():
    (folder / name).mkdir()
    measure_case(folder / name)


if __name__ == '__main__':
  common.run(measure)
