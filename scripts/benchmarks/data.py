"""Times reading data: the loader, bare decoding, the Keras project's pipeline.

```bash
python -m scripts.benchmarks.data
```

Needs requirements-dev.txt. Photos of 1000x1000 pixels become 512x512 in
batches of 16. Every side runs in processes of its own, in turn, `--rounds`
times; printed are the medians of images per second. The original's pipeline is
tf.data with OpenCV through `numpy_function`: as that project writes it, one
image after the other, and with parallel calls, which it does not use.
"""

import functools
import multiprocessing
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image

from configs import default
from data_pipelines.batches import loader, transforms
from data_pipelines.datasets import folder, records
from data_pipelines.io import parallel
from scripts.benchmarks import common

SIDES = ('bare', 'loader', 'augmented', 'original', 'original_parallel')
SIZE, BATCH, MEMORY_BATCH = (512, 512), 16, 64

_SIDES = flags.DEFINE_list('sides', list(SIDES), 'What to measure.')
_IMAGES = flags.DEFINE_integer('images', 320, 'Per timing.')
_FILES = flags.DEFINE_integer('files', 64, 'Photos to make.')
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Timings of each side.')


def make_pairs(root: Path, count: int) -> None:
  """Writes JPEGs of 1000x1000 pixels, and a soft mask each."""
  common.make_photos(root / 'Images', count, (1000, 1000))
  (root / 'Masks').mkdir()
  y, x = np.mgrid[-500:500, -500:500]
  inside = 300 + 40 * np.sin(np.arctan2(y, x) * 30)
  alpha = np.clip((inside - np.hypot(y, x)) / 12 + 0.5, 0, 1)
  mask = Image.fromarray((alpha * 255).astype(np.uint8))
  for photo in (root / 'Images').iterdir():
    mask.save(root / f'Masks/{photo.stem}.png')


def make_decode() -> transforms.Decode:
  """Returns the function that both the loader and the bare side call."""
  return transforms.Decode(
    SIZE, allow_empty=True, label_weights=dict.fromkeys(records.LABELS, 1.0)
  )


def _decode_all(pairs: list[records.Pair]) -> float:
  decode = make_decode()
  began = time.process_time()
  for pair in pairs:
    decode.map(pair)
  return time.process_time() - began


def measure_bare(pairs: list[records.Pair], images: int) -> tuple[float, float]:
  """Returns `measure_iterator` of a process per core, without any pipeline."""
  cores = parallel.count_cores()
  work = (pairs * -(-images // len(pairs)))[:images]
  shares = [work[index::cores] for index in range(cores)]
  with multiprocessing.get_context('spawn').Pool(cores) as pool:
    pool.map(_decode_all, [pairs[:1]] * cores, chunksize=1)  # Imports.
    began = time.perf_counter()
    busy = sum(pool.map(_decode_all, shares, chunksize=1))
    return images / (time.perf_counter() - began), busy / images * 1000


def make_batches(
  pairs: Sequence[records.Pair], batch: int, augment: transforms.Augment
) -> Iterator[transforms.Element]:
  """Returns the training loader at its default threads and buffer."""
  return loader.make_train_iterator(
    pairs,
    decode=make_decode(),
    augment=augment,
    batch_size=batch,
    seed=0,
    read_options=loader.make_read_options(threads=0, buffer=0),
    sharding=loader.Sharding(),
  )


def measure_iterator(
  batches: Iterator[object], batch: int, images: int
) -> tuple[float, float]:
  """Returns images/s and milliseconds of CPU time per image.

  The buffer is emptied first.
  """

  def take(count):
    for _ in range(count):
      next(batches)

  take(6)
  steps = images // batch
  clock, busy = common.time_call(lambda: take(steps))
  return steps * batch / clock, busy / (steps * batch) * 1000


def make_original(
  pairs: Sequence[records.Pair], parallel: bool
) -> Iterator[object]:
  """Returns the Keras project's pipeline, with its ranges put right."""
  import cv2
  import tensorflow as tf

  height, width = SIZE

  def read(image_path, mask_path):
    photo = cv2.imread(image_path.decode(), cv2.IMREAD_COLOR)
    photo = cv2.resize(photo, (width, height)) / 255.0
    mask = cv2.imread(mask_path.decode(), cv2.IMREAD_GRAYSCALE)
    mask = cv2.resize(mask, (width, height)) / 255.0
    return photo.astype(np.float32), mask.astype(np.float32)[..., None]

  def preprocess(image_path, mask_path):
    photo, mask = tf.numpy_function(
      read, [image_path, mask_path], [tf.float32, tf.float32]
    )
    photo.set_shape([height, width, 3])
    mask.set_shape([height, width, 1])
    return photo, mask

  paths = (
    [str(pair.image_path) for pair in pairs],
    [str(pair.mask_path) for pair in pairs],
  )
  calls = tf.data.AUTOTUNE if parallel else None
  dataset = tf.data.Dataset.from_tensor_slices(paths).repeat()
  dataset = dataset.map(preprocess, num_parallel_calls=calls)
  return iter(dataset.batch(BATCH).prefetch(2))


def measure_side(side: str, root: str, images: int) -> dict[str, float]:
  """Measures one side in this process."""
  pairs = folder.read_folder(Path(root))
  # Grain's shuffling takes 1.6 ms an element of 16, and .03 ms of 1,000.
  pairs *= -(-1000 // len(pairs))
  off = transforms.Augment(flip=0.0, min_scale=1.0)
  on = transforms.Augment(**default.get_config().data.augment)
  batch = BATCH
  if side == 'memory':
    batch, images = MEMORY_BATCH, 10 * MEMORY_BATCH
  if side == 'bare':
    speed, busy = measure_bare(pairs, images)
  else:
    batches = (
      make_original(pairs, side == 'original_parallel')
      if side.startswith('original')
      else make_batches(pairs, batch, off if side == 'loader' else on)
    )
    speed, busy = measure_iterator(batches, batch, images)
  return {'speed': speed, 'cpu_ms': busy, 'peak_mb': common.read_peak_mb()}


def measure(root: Path) -> None:
  """Prints throughput of all sides, their ratios, and the loader's memory."""
  make_pairs(root, _FILES.value)

  def run(side):
    return common.call_apart(measure_side, side, root, _IMAGES.value)

  results = common.repeat_in_turn(
    {side: functools.partial(run, side) for side in _SIDES.value},
    _ROUNDS.value,
  )
  common.print_head('', 'images/s', 'ms of CPU an image', 'of each run')
  speeds = {}
  for side, rows in results.items():
    speeds[side] = statistics.median(row['speed'] for row in rows)
    busy = statistics.median(row['cpu_ms'] for row in rows)
    each = ', '.join(f'{row["speed"]:.1f}' for row in rows)
    common.print_row(side, f'{speeds[side]:.1f}', f'{busy:.1f}', each)
  for side, other in (
    ('loader', 'bare'),
    ('augmented', 'bare'),
    ('loader', 'original'),
    ('loader', 'original_parallel'),
  ):
    if {side, other} <= speeds.keys():
      print(f'{side} / {other}: {speeds[side] / speeds[other]:.2f}')
  print(
    f'peak memory, batch {MEMORY_BATCH}, augmented: '
    f'{run("memory")["peak_mb"]:.0f} MB'
  )


if __name__ == '__main__':
  common.run(measure)
