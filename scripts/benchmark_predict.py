"""Times prediction, each figure beside what it is compared with.

```bash
python scripts/benchmark_predict.py --cases=network,folder,memory
python scripts/benchmark_predict.py --cases=released --u2netp=u2netp.onnx
```

network: the original network at 512x512, one image at a time, here and in
  Keras/TensorFlow with the same weights, in turn; the masks' difference.
folder: 24 photos of 1500x1000 to side-by-side pictures with that network, by
  `rmbg_jax.predict` and by the original notebook's loop.
released: the networks whose weights come with the project, at their own size,
  and U2-Net-p in onnxruntime at 320.
memory: the peak of a process that does 200 photos, and one that does 2,000,
  with the released weights.

Needs requirements-dev.txt. The original network's weights are random: they do
not change the time.
"""

import functools
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import app, flags
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

from data_pipelines import parallel
from rmbg_jax import command_line

CASES = ('network', 'folder', 'released', 'memory')


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

  rng = np.random.default_rng(0)
  model = keras_reference.build_original(keras, size=(512, 512))
  # Masks that are neither all 0 nor all 1.
  image = rng.random((1, 512, 512, 3)).astype(np.float32)
  keras_reference.randomize(keras, model, image, rng)
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


def run_predict(*flags: str) -> tuple[float, int]:
  """Runs the command line; returns its seconds and its peak memory in MB."""
  code = (
    'import resource, sys\n'
    'from rmbg_jax import predict\n'
    'try:\n'
    '  predict.run()\n'
    'finally:\n'
    '  print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)\n'
  )
  began = time.perf_counter()
  output = subprocess.run(
    [sys.executable, '-c', code, *flags],
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  return time.perf_counter() - began, int(output.split()[-1])


def measure_network(folder: Path, repeats: int) -> None:
  """Prints the seconds per image of the network alone."""
  from rmbg_jax import BackgroundRemover

  keras_model = make_keras_model(folder / 'model.h5')
  remover = BackgroundRemover.from_checkpoint(folder / 'model.h5')
  image = np.random.default_rng(0).integers(0, 256, (1, 512, 512, 3), np.uint8)

  def run_keras():
    inputs = image[..., ::-1].astype(np.float32) / 255
    return keras_model.predict(inputs, verbose=0)[..., -1]

  difference = np.abs(remover.predict(image) - run_keras()).max()
  seconds = time_in_turn(
    {'here': lambda: remover.predict(image), 'Keras': run_keras}, repeats
  )
  print(
    f'network, 512x512: {seconds["here"]:.2f} s here, {seconds["Keras"]:.2f} s '
    f'in Keras, ratio {seconds["here"] / seconds["Keras"]:.2f}; masks differ '
    f'by at most {difference:.1e}',
    flush=True,
  )


def measure_folder(folder: Path) -> None:
  """Prints the photos per second from files to files."""
  import cv2

  from rmbg_jax import BackgroundRemover
  from rmbg_jax.prediction import listing, pipeline, rendering

  keras_model = make_keras_model(folder / 'model.h5')
  make_photos(folder / 'photos', 24, (1500, 1000))
  jobs = listing.list_jobs(str(folder / 'photos'))

  def run_notebook():
    # What the original's notebook does with each photo.
    (folder / 'notebook').mkdir(exist_ok=True)
    for job in jobs:
      photo = cv2.imread(str(job.photo))
      height, width = photo.shape[:2]
      inputs = cv2.resize(photo, (512, 512)).astype(np.float32) / 255
      mask = keras_model.predict(inputs[None], verbose=0)[0, ..., -1]
      mask = cv2.resize(mask, (width, height))[..., None]
      line = np.full((height, 10, 3), 128)
      picture = np.concatenate([photo, line, photo * mask], axis=1)
      cv2.imwrite(str(folder / 'notebook' / f'{job.photo.stem}.png'), picture)

  remover = BackgroundRemover.from_checkpoint(folder / 'model.h5', batch_size=2)
  task = pipeline.Task(
    output=folder / 'here',
    kinds=('side_by_side',),
    style=rendering.Style(),
    overwrite=True,
  )
  failed = []

  def run_here():
    pipeline.run(
      remover,
      jobs,
      task,
      add_entry=lambda entry: failed.append(entry.error),
      stop=threading.Event(),
    )

  seconds = time_in_turn({'here': run_here, 'notebook': run_notebook}, 1)
  if any(failed):
    raise SystemExit(f'Failed: {failed}')
  print(
    f'folder, 24 photos of 1500x1000: {24 / seconds["here"]:.3f} photos/s '
    f"here, {24 / seconds['notebook']:.3f} by the notebook's loop, ratio "
    f'{seconds["notebook"] / seconds["here"]:.2f}',
    flush=True,
  )


def measure_released(u2netp: str, repeats: int) -> None:
  """Prints the photos per second of the released networks and U2-Net-p."""
  import onnxruntime

  from rmbg_jax import BackgroundRemover, load_model
  from rmbg_jax.pretrained import release

  session = onnxruntime.InferenceSession(
    u2netp, providers=['CPUExecutionProvider']
  )
  name = session.get_inputs()[0].name
  inputs = np.zeros((1, 3, 320, 320), np.float32)
  calls = {'U2-Net-p': lambda: session.run(None, {name: inputs})}
  for checkpoint in release.RELEASED:
    loaded = load_model(checkpoint)
    remover = BackgroundRemover(loaded)
    size = loaded.preprocessing.size
    image = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    calls[checkpoint] = functools.partial(remover.predict, image)
  seconds = time_in_turn(calls, repeats)
  theirs = seconds.pop('U2-Net-p')
  for checkpoint, ours in seconds.items():
    print(
      f'{checkpoint}: {1 / ours:.2f} photos/s; U2-Net-p in onnxruntime, '
      f'320x320: {1 / theirs:.2f}, ratio {theirs / ours:.2f}',
      flush=True,
    )


def measure_memory(folder: Path) -> None:
  """Prints the peak memory for few and for many photos."""
  peaks = {}
  for count in (200, 2000):
    make_photos(folder / f'{count}', count, (480, 320))
    _, peaks[count] = run_predict(
      f'--input={folder / str(count)}', f'--output={folder / "out"}{count}'
    )
  print(
    f'memory: {peaks[200]} MB for 200 photos, {peaks[2000]} MB for 2,000',
    flush=True,
  )


def main(argv: list[str]) -> None:
  """Prints the figures of the chosen cases."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  repeats = flags.FLAGS.repeats
  print(f'{platform.machine()}, {parallel.count_cores()} cores', flush=True)
  for case in flags.FLAGS.cases:
    with tempfile.TemporaryDirectory() as name:
      folder = Path(name)
      if case == 'network':
        measure_network(folder, repeats)
      elif case == 'folder':
        measure_folder(folder)
      elif case == 'released':
        measure_released(flags.FLAGS.u2netp, repeats)
      else:
        measure_memory(folder)


def _define_flags() -> None:
  # Here, since benchmark_export imports this module and has flags of its own.
  flags.DEFINE_list('cases', ['network', 'folder', 'memory'], ', '.join(CASES))
  flags.register_validator(
    'cases',
    lambda cases: set(cases) <= set(CASES),
    message=f'choose from {", ".join(CASES)}.',
  )
  flags.DEFINE_integer('repeats', 5, 'Timed calls of each.')
  command_line.define_path('u2netp', None, 'Path of u2netp.onnx, for released.')


if __name__ == '__main__':
  _define_flags()
  command_line.run(main, __name__)
