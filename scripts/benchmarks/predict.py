"""Times prediction, each figure beside what it is compared with.

```bash
python -m scripts.benchmarks.predict --cases=original,memory
python -m scripts.benchmarks.predict --cases=released --u2netp=u2netp.onnx
python -m scripts.benchmarks.predict --cases=start,cutouts --checkpoints=small
```

original: the original network at 512x512, one image at a time, here and in
  Keras/TensorFlow with the same weights, and the masks' difference; then 24
  photos of 1500x1000 to side-by-side pictures with it, as `rmbg_jax.predict`
  does them and by the Keras notebook's loop.
memory: the peak of a process that does 200 photos, and one that does 2,000,
  with the released weights.
released: the networks of `--checkpoints`, at their own size, in OpenVINO and
  JAX, and U2-Net-p in onnxruntime at 320.
devices: how alpha of those networks on a GPU differs from the CPU's.
start: a photo of 1500x1000 in a new process by `rmbg_jax.predict`: with an
  empty cache folder, and again; then by the README's example in Python, which
  computes it twice. Beside them, rembg's U2-Net-p in onnxruntime.
cutouts: `--count` photos of 12 megapixels in a new process, and rembg.

Needs requirements-dev.txt. The original network's weights are random: they do
not change the time.
"""

import functools
import itertools
import os
import sys
import time
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image

from data_pipelines import cli
from rmbg_jax import BackgroundRemover, load_model
from scripts.benchmarks import common

# Cuts out the photos of a folder, into another.
_REMBG = """
import pathlib, sys
from PIL import Image
from rembg import new_session, remove
session = new_session('u2netp')
for path in pathlib.Path(sys.argv[1]).iterdir():
  cutout = remove(Image.open(path), session=session)
  cutout.save(f'{sys.argv[2]}/{path.stem}.png')
"""
_PYTHON = """
import sys
from rmbg_jax import BackgroundRemover
remover = BackgroundRemover.from_checkpoint(sys.argv[1])
alpha = remover.alpha(sys.argv[2])
remover.remove(sys.argv[2]).save(sys.argv[3])
"""

_CHECKPOINTS = cli.define_paths(
  *('checkpoints', ['released', 'small', 'lite']),
  'Networks, for all but original and memory.',
)
_U2NETP = cli.define_path('u2netp', 'u2netp.onnx', 'A file, for released.')
_COUNT = flags.DEFINE_integer('count', 24, 'Photos, for cutouts.')


def measure_original(folder: Path) -> None:
  """Prints the seconds of the network alone, and from files to files."""
  import cv2

  keras_model = common.make_keras_model(folder / 'model.h5')
  remover = BackgroundRemover.from_checkpoint(folder / 'model.h5')
  image = np.random.default_rng(0).integers(0, 256, (1, 512, 512, 3), np.uint8)

  def run_keras():
    inputs = image[..., ::-1].astype(np.float32) / 255
    return keras_model.predict(inputs, verbose=0)[..., -1]

  def run_here():
    return remover.predict(image)

  common.compare('network, 512x512', {'Keras': run_keras, 'here': run_here})
  difference = np.abs(run_here() - run_keras()).max()
  print(f'The masks differ by at most {difference:.1e}.', flush=True)
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

  predict = common.make_predict(remover, photos, ('side_by_side',))
  common.compare(
    'photos of 1500x1000 to side-by-side pictures',
    {"the notebook's loop": run_notebook, 'here': predict},
    count=24,
    repeats=1,
  )


def predict_folder(photos: Path, output: Path) -> float:
  """Returns the peak memory of this process after a run of `predict`."""
  from rmbg_jax import predict

  sys.argv[1:] = [f'--input={photos}', f'--output={output}']
  try:
    predict.run()
  except SystemExit as ended:
    if ended.code:
      raise
  return common.read_peak_mb()


def measure_memory(folder: Path) -> None:
  """Prints the peak memory for few and for many photos."""
  for count in (200, 2000):
    photos = folder / str(count)
    common.make_photos(photos, count, (480, 320))
    peak = common.call_apart(predict_folder, photos, folder / f'out{count}')
    print(f'memory: {peak:.0f} MB for {count:,} photos', flush=True)


def predict_alpha(checkpoint: str, platform: str) -> np.ndarray:
  """Returns a photo's alpha, computed on a device."""
  os.environ['JAX_PLATFORMS'] = platform
  remover = BackgroundRemover(
    load_model(checkpoint), runtime='jax', precision='float32'
  )
  return remover.alpha(common.ROOT / 'docs/images/photos/cat.jpg')


def measure_devices(_: Path) -> None:
  """Prints how alpha of JAX's default device differs from the CPU's."""
  for checkpoint in _CHECKPOINTS.value:
    here, there = (
      common.call_apart(predict_alpha, checkpoint, platform)
      for platform in ('', 'cpu')
    )
    difference = np.abs(here - there).max()
    print(f'{checkpoint}: alpha is within {difference:.1e} of the CPU')


def measure_released(_: Path) -> None:
  """Prints how long each network takes in each runtime, beside U2-Net-p."""
  session = common.open_onnx(_U2NETP.value)
  inputs = {session.get_inputs()[0].name: np.zeros((1, 3, 320, 320), 'f4')}
  pixels = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
  photo = Image.fromarray(pixels)
  for runtime, precision in (
    ('openvino', 'float32'),
    ('openvino', 'bfloat16'),  # Emulated, slowly, on a CPU that lacks it.
    ('jax', 'float32'),  # Last: its threads would slow the others down.
  ):
    calls = {'U2-Net-p, onnxruntime': lambda: session.run(None, inputs)}
    for checkpoint in _CHECKPOINTS.value:
      began = time.perf_counter()
      remover = BackgroundRemover(
        load_model(checkpoint), runtime=runtime, precision=precision
      )
      call = functools.partial(remover.predict, remover.resize([photo]))
      call()
      name, ready = f'{checkpoint}, {remover.runtime}', time.perf_counter()
      print(f'{name}: ready after {ready - began:.2f} s', flush=True)
      calls[name] = call
    common.compare('network, runtime', calls)


def run_apart(
  folder: Path, *arguments: str | Path, cache: str = 'kept'
) -> None:
  """Runs Python in a new process that keeps its caches below a folder."""
  names = 'XDG_CACHE_HOME', 'JAX_COMPILATION_CACHE_DIR'
  environment = dict.fromkeys(names, str(folder / cache))
  common.run_python(*arguments, environment=environment)


def make_sides(folder: Path, count: int, size: tuple[int, int]) -> dict:
  """Makes photos; returns what cuts them out in a new process each, by name."""
  photos, output = folder / 'photos', folder / 'rembg'
  common.make_photos(photos, count, size)
  output.mkdir()
  rembg = functools.partial(run_apart, folder, '-c', _REMBG, photos, output)
  return {'rembg, U2-Net-p': rembg} | {
    f'predict, {checkpoint}': functools.partial(
      *(run_apart, folder, '-m', 'rmbg_jax.predict', '--overwrite'),
      *(f'--checkpoint={checkpoint}', f'--input={photos}'),
      f'--output={folder / "out"}',
    )
    for checkpoint in _CHECKPOINTS.value
  }


def measure_start(folder: Path) -> None:
  """Prints the seconds of whole processes for a photo."""
  again = make_sides(folder, 1, (1500, 1000))
  numbers = itertools.count()
  sides = {
    f'{name}, the first time': lambda run=run: run(cache=f'new{next(numbers)}')
    for name, run in again.items()
    if name.startswith('predict')
  }
  for checkpoint in _CHECKPOINTS.value:
    sides[f"the README's Python, {checkpoint}"] = functools.partial(
      *(run_apart, folder, '-c', _PYTHON, checkpoint),
      *(folder / 'photos/00000.jpg', folder / 'python.png'),
    )
  common.compare('one photo in a new process', again | sides)


def measure_cutouts(folder: Path) -> None:
  """Prints the seconds of whole processes for each of several photos."""
  count = _COUNT.value
  common.compare(
    f'{count} photos of 4000x3000 to cut-outs',
    make_sides(folder, count, (4000, 3000)),
    count=count,
    repeats=1,
  )


if __name__ == '__main__':
  common.run(
    {
      'original': measure_original,
      'memory': measure_memory,
      'released': measure_released,
      'devices': measure_devices,
      'start': measure_start,
      'cutouts': measure_cutouts,
    }
  )
