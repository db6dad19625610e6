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
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image

from data_pipelines import cli
from scripts.benchmarks import common

# Runtimes and precisions to time; a CPU without bfloat16 emulates it, slowly.
_WAYS = (
  ('openvino', 'float32'),
  ('openvino', 'bfloat16'),
  ('jax', 'float32'),
)
CASES = ('network', 'folder', 'released', 'memory')


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
    cwd=common.ROOT,
    check=True,
    capture_output=True,
    text=True,
  ).stdout
  return time.perf_counter() - began, int(output.split()[-1])


def measure_network(folder: Path, repeats: int) -> None:
  """Prints the seconds per image of the network alone."""
  from rmbg_jax import BackgroundRemover

  keras_model = common.make_keras_model(folder / 'model.h5')
  remover = BackgroundRemover.from_checkpoint(folder / 'model.h5')
  image = np.random.default_rng(0).integers(0, 256, (1, 512, 512, 3), np.uint8)

  def run_keras():
    inputs = image[..., ::-1].astype(np.float32) / 255
    return keras_model.predict(inputs, verbose=0)[..., -1]

  difference = np.abs(remover.predict(image) - run_keras()).max()
  seconds = common.time_in_turn(
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
  from rmbg_jax.batch import listing, pipeline
  from rmbg_jax.inference import rendering

  keras_model = common.make_keras_model(folder / 'model.h5')
  common.make_photos(folder / 'photos', 24, (1500, 1000))
  jobs = listing.list_jobs(str(folder / 'photos'))

  def run_notebook():
    # What the Keras project's notebook does with each photo.
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

  seconds = common.time_in_turn({'here': run_here, 'notebook': run_notebook}, 1)
  if any(failed):
    raise SystemExit(f'Failed: {failed}')
  print(
    f'folder, 24 photos of 1500x1000: {24 / seconds["here"]:.3f} photos/s '
    f"here, {24 / seconds['notebook']:.3f} by the notebook's loop, ratio "
    f'{seconds["notebook"] / seconds["here"]:.2f}',
    flush=True,
  )


def measure_released(checkpoints: list[str], u2netp: str, repeats: int) -> None:
  """Prints how long each network takes in each runtime, beside U2-Net-p."""
  from rmbg_jax import BackgroundRemover, load_model
  from rmbg_jax.weights import onnx_published

  u2netp = u2netp or onnx_published.find_published('u2netp')
  session = common.open_onnx(u2netp)
  name = session.get_inputs()[0].name
  inputs = np.zeros((1, 3, 320, 320), np.float32)
  theirs = {'U2-Net-p': lambda: session.run(None, {name: inputs})}
  pixels = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
  photo, ready = Image.fromarray(pixels), {}
  seconds = {}
  # JAX last: its threads would slow the others down.
  for ways in (_WAYS[:-1], _WAYS[-1:]):
    calls = dict(theirs)
    for checkpoint, (runtime, precision) in itertools.product(
      checkpoints, ways
    ):
      began = time.perf_counter()
      remover = BackgroundRemover(
        load_model(checkpoint), runtime=runtime, precision=precision
      )
      call = functools.partial(remover.predict, remover.resize([photo]))
      call()
      calls[checkpoint, remover.runtime] = call
      ready[checkpoint, remover.runtime] = time.perf_counter() - began
    seconds = common.time_in_turn(calls, repeats) | seconds
  theirs = seconds.pop('U2-Net-p')
  print('| network | runtime | ready after, s | ms | photos/s | of U2-Net-p |')
  print('|---|---|---:|---:|---:|---:|')
  print(
    f'| U2-Net-p, 320x320 | onnxruntime | | {1000 * theirs:.1f} | '
    f'{1 / theirs:.1f} | 1 |'
  )
  for (checkpoint, runtime), ours in seconds.items():
    print(
      f'| {checkpoint} | {runtime} | {ready[checkpoint, runtime]:.2f} | '
      f'{1000 * ours:.1f} | {1 / ours:.1f} | {theirs / ours:.1f} |'
    )


def measure_memory(folder: Path) -> None:
  """Prints the peak memory for few and for many photos."""
  peaks = {}
  for count in (200, 2000):
    common.make_photos(folder / f'{count}', count, (480, 320))
    _, peaks[count] = run_predict(
      f'--input={folder / str(count)}', f'--output={folder / "out"}{count}'
    )
  print(
    f'memory: {peaks[200]} MB for 200 photos, {peaks[2000]} MB for 2,000',
    flush=True,
  )


def main() -> None:
  """Prints the figures of the chosen cases."""
  common.begin()
  repeats = flags.FLAGS.repeats
  for case in flags.FLAGS.cases:
    with tempfile.TemporaryDirectory() as name:
      folder = Path(name)
      if case == 'network':
        measure_network(folder, repeats)
      elif case == 'folder':
        measure_folder(folder)
      elif case == 'released':
        measure_released(flags.FLAGS.checkpoints, flags.FLAGS.u2netp, repeats)
      else:
        measure_memory(folder)


def _define_flags() -> None:
  flags.DEFINE_list('cases', ['network', 'folder', 'memory'], ', '.join(CASES))
  flags.register_validator(
    'cases',
    lambda cases: set(cases) <= set(CASES),
    message=f'choose from {", ".join(CASES)}.',
  )
  flags.DEFINE_integer('repeats', 5, 'Timed calls of each.')
  cli.define_paths(
    'checkpoints', ['released', 'small', 'lite'], 'Networks, for released.'
  )
  cli.define_path('u2netp', None, 'Path of u2netp.onnx, for released.')


if __name__ == '__main__':
  _define_flags()
  cli.run(main, __name__)
