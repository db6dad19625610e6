"""Times reading data: the loader, bare decoding, the Keras project's pipeline.

```bash
python -m scripts.benchmarks.data
```

Needs requirements-dev.txt. Photos of 1000x1000 pixels become 512x512 in
batches of 16. Every side runs in processes of its own, in turn; printed are the
medians. The original's pipeline is tf.data with OpenCV through
`numpy_function`: as that project writes it, one image after the other, and with
parallel calls, which it does not use.
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
# Both the loader and the bare side call it.
DECODE = transforms.Decode(
  SIZE, allow_empty=True, label_weights=dict.fromkeys(records.LABELS, 1.0)
)

_SIDES = flags.DEFINE_list('sides', list(SIDES), 'What to measure.')
_IMAGES = flags.DEFINE_integer('images', 320, 'Per timing.')
_FILES = flags.DEFINE_integer('files', 64, 'Photos to make.')


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


def _decode_all(pairs: list[records.Pair]) -> float:
  began = time.process_time()
  for pair in pairs:
    DECODE.map(pair)
  return time.process_time() - began


def measure_bare(pairs: list[records.Pair], images: int) -> tuple[float, float]:
  """Returns the seconds of a process per core, without any pipeline."""
  cores = parallel.count_cores()
  shares = [pairs[:images][index::cores] for index in range(cores)]
  with multiprocessing.get_context('spawn').Pool(cores) as pool:
    pool.map(_decode_all, [pairs[:1]] * cores, chunksize=1)  # Imports.
    began = time.perf_counter()
    busy = sum(pool.map(_decode_all, shares, chunksize=1))
    return time.perf_counter() - began, busy


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

  images = [str(pair.image_path) for pair in pairs]
  masks = [str(pair.mask_path) for pair in pairs]
  calls = tf.data.AUTOTUNE if parallel else None
  dataset = tf.data.Dataset.from_tensor_slices((images, masks)).repeat()
  dataset = dataset.map(preprocess, num_parallel_calls=calls)
  return iter(dataset.batch(BATCH).prefetch(2))


def measure_side(
  side: str, root: Path, images: int, batch: int
) -> tuple[float, float, float]:
  """Returns images/s, ms of the processor for one, and this process' memory."""
  pairs = folder.read_folder(root)
  # Grain's shuffling takes 1.6 ms an element of 16, and .03 ms of 1,000.
  pairs *= -(-max(1000, images) // len(pairs))
  if side == 'bare':
    clock, busy = measure_bare(pairs, images)
  else:
    augment = transforms.Augment(flip=0.0, min_scale=1.0)
    if side == 'augmented':
      augment = transforms.Augment(**default.get_config().data.augment)
    batches = (
      make_original(pairs, side == 'original_parallel')
      if side.startswith('original')
      else loader.make_train_iterator(
        pairs,
        decode=DECODE,
        augment=augment,
        batch_size=batch,
        seed=0,
        read_options=loader.make_read_options(threads=0, buffer=0),
        sharding=loader.Sharding(),
      )
    )

    def take(count):
      for _ in range(count):
        next(batches)

    take(6)  # Empties the buffer.
    clock, busy = common.time_call(lambda: take(images // batch))
  return images / clock, busy / images * 1000, common.read_peak_mb()


def measure(root: Path) -> None:
  """Prints the medians of all sides, and the loader's memory."""
  make_pairs(root, _FILES.value)

  def run(side, images, batch):
    return common.call_apart(measure_side, side, root, images, batch)

  images = _IMAGES.value // BATCH * BATCH
  results = common.repeat_in_turn(
    {s: functools.partial(run, s, images, BATCH) for s in _SIDES.value},
    flags.FLAGS.repeats,
  )
  common.print_head('', 'images/s', 'of the first one', 'ms of CPU an image')
  first = None
  for side, rows in results.items():
    speed, busy, _ = map(statistics.median, zip(*rows, strict=True))
    first = first or speed
    common.print_row(side, speed, speed / first, busy)
  *_, peak = run('augmented', 10 * MEMORY_BATCH, MEMORY_BATCH)
  print(f'peak memory, batch {MEMORY_BATCH}, augmented: {peak:.0f} MB')


if __name__ == '__main__':
  common.run({'reading': measure})
