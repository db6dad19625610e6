"""Trains one network in parts, on whatever device there is for a while.

```bash
python scripts/campaign.py pack --data=FOLDER --packed=PACKED
python scripts/campaign.py train --config=configs/lite.py --packed=PACKED \
  --campaign=CAMPAIGN --minutes=8
```

`pack` makes a few small files of a data set. `train` goes on where the last
part stopped: with the optimiser's state if CAMPAIGN/training is still there,
otherwise from CAMPAIGN/weights, with a warm-up. It ends after the given time
with new CAMPAIGN/weights (the moving averages), and with scores on the
validation pairs. To go on elsewhere, take PACKED and CAMPAIGN/weights along.

The learning rate falls to 0 at the end of a part. The next part goes on with
the same schedule over the longer training: from half the rate in the second, a
quarter in the third of equally long ones, and so on.
"""

import contextlib
import json
import os
import signal
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import app, flags
from ml_collections import config_flags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

MIB = 2**20
_TIMED_STEPS = 8
_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'What to train; its loader, batch size and rates.'
)
_CAMPAIGN = flags.DEFINE_string('campaign', 'runs/campaign', 'Folder.')
_MINUTES = flags.DEFINE_float('minutes', 8.0, 'Of this part, all in all.')
_PACKED = flags.DEFINE_string(
  'packed', '', 'Folder of the packed data; or set --config.data.dir.'
)
_DATA = flags.DEFINE_string('data', '', 'Folder of the data to pack.')
_SIZE = flags.DEFINE_integer('size', 288, "A packed photo's longest side.")
_PART_MIB = flags.DEFINE_integer('part_mib', 28, 'Size of a part of the data.')
_WEIGHTS_MIB = flags.DEFINE_integer('weights_mib', 15, 'And of the weights.')
_TERMS = flags.DEFINE_string(
  'terms',
  'Trained on pictures under various terms, some of them unknown or non-'
  'commercial: for research. See docs/model_card.md.',
  'What the weights say of the terms they are under.',
)


def main(argv: list[str]) -> None:
  """Runs one of the two commands."""
  commands = {'pack': pack, 'train': train}
  if len(argv) != 2 or argv[1] not in commands:
    raise app.UsageError(f'Pass one of {", ".join(commands)}.')
  try:
    commands[argv[1]]()
  except (ValueError, FileNotFoundError, FloatingPointError) as error:
    raise SystemExit(f'Error: {error}') from error


def pack() -> None:
  """Packs a folder of pairs."""
  from data_pipelines import folder, packing

  parts = packing.pack_pairs(
    folder.read_folder(_DATA.value),
    _packed_file(),
    size=_SIZE.value,
    part_bytes=_PART_MIB.value * MIB,
  )
  for part in parts:
    print(f'{part}: {part.stat().st_size / MIB:.1f} MiB')


def train() -> None:
  """Trains a part and writes weights and scores."""
  began = time.monotonic()
  from data_pipelines import packing
  from rmbg_jax import runtime
  from rmbg_jax import train as training
  from rmbg_jax.pretrained import load, release

  runtime.start()
  campaign = Path(_CAMPAIGN.value)
  workdir = campaign / 'training'
  weights = campaign / 'weights' / f'{_CONFIG.value.name}.safetensors'
  config = _CONFIG.value
  config.unlock()
  config.data.loader = 'device'
  if _PACKED.value:
    config.data.dir = str(campaign / 'data')
    packing.unpack_pairs(_packed_file(), campaign / 'data')
  config.data.device.cache_dir = str(campaign / 'decoded')
  config.init_from = _find_start(campaign, workdir, weights)
  passes_before = _read_passes(config.init_from)

  plan = _plan(config, workdir, seconds=60 * _MINUTES.value, began=began)
  config.train.epochs = plan['epochs']
  with _stop_late(began + 1.1 * 60 * _MINUTES.value):
    try:
      training.train_and_evaluate(config, workdir)
    except SystemExit as stopped:
      print(stopped)

  loaded = load.load_model(workdir)
  scores = _score(workdir, config)
  passes = passes_before + loaded.description['step'] * config.data.batch_size
  statements = {
    'image_passes': passes,
    'scores': scores,
    'terms': _TERMS.value,
    'training_command': f'python scripts/campaign.py train --config=configs/'
    f'{config.name}.py --packed=PACKED --minutes={_MINUTES.value:g}',
  }
  release.save_release(
    weights,
    loaded.variables,
    release.describe(loaded.description, loaded.preprocessing, **statements),
  )
  packing.split_file(weights, weights, part_bytes=_WEIGHTS_MIB.value * MIB)
  row = {**plan, 'image_passes': passes, 'scores': scores}
  with (campaign / 'weights' / 'history.jsonl').open('a') as file:
    file.write(json.dumps(row) + '\n')
  print(f'{passes} image passes so far. {weights}')
  for source, values in scores.items():
    print(
      f'{source:16} {values["images"]:4} images: MAE {values["mae"]:.4f}, '
      f'IoU {values["iou"]:.4f}'
    )


@contextlib.contextmanager
def _stop_late(deadline: float) -> Iterator[None]:
  """Has a training that is slower than planned saved and stopped.

  Args:
    deadline: by the monotonic clock.
  """
  over = threading.Event()

  def watch():
    over.wait(max(0.0, deadline - time.monotonic()))
    while not over.wait(1):
      os.kill(os.getpid(), signal.SIGTERM)

  # Before and after the loop, which listens, it must not kill the process.
  previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
  watcher = threading.Thread(target=watch, daemon=True)
  watcher.start()
  try:
    yield
  finally:
    over.set()
    watcher.join()
    signal.signal(signal.SIGTERM, previous)


def _packed_file() -> Path:
  return Path(_PACKED.value) / 'data.zip'


def _find_start(campaign: Path, workdir: Path, weights: Path) -> str:
  """Returns what the training starts, or has started, from; '' for nothing.

  The weights are copied when it starts: they change, and a training that goes
  on wants the settings that it has started with.
  """
  from data_pipelines import packing
  from rmbg_jax import checkpoints, files

  start = campaign / 'start.safetensors'
  if not checkpoints.has_checkpoints(workdir):
    content = packing.join_file(weights) if _has_parts(weights) else b''
    with files.write_atomically(start) as partial:
      partial.write_bytes(content)
  return str(start) if start.stat().st_size else ''


def _has_parts(path: Path) -> bool:
  return any(path.parent.glob(f'{path.name}.*of*'))


def _read_passes(path: str) -> int:
  """Returns the images that weights say they were trained with."""
  from rmbg_jax.pretrained import release

  if not path:
    return 0
  _, description = release.read_release(Path(path))
  return description.get('image_passes', 0)


def _plan(
  config: Any, workdir: Path, *, seconds: float, began: float
) -> dict[str, Any]:
  """Measures a step and returns how many epochs fit into the time.

  At least one, at most `config.train.epochs`, and those that are done.
  What is compiled and decoded for it is kept in files, and used again.

  Args:
    config: of the training.
    workdir: of the training; its epochs so far count as well.
    seconds: for everything together.
    began: when, by the monotonic clock.
  """
  import jax

  from rmbg_jax import build, checkpoints, resume, state

  done = 0
  with checkpoints.CheckpointStore(workdir, writable=False) as store:
    if store.latest_step is not None:
      description = store.read_description(store.latest_step)
      done = resume.Position.from_dict(description['position']).epoch
  parts = build.make_parts(config)
  mesh = state.make_mesh()
  train_state = build.create_train_state(config, parts, mesh, resumed=False)
  take_step = build.make_train_step(config, parts)
  seconds_per_step = []
  for _ in range(_TIMED_STEPS):
    start = time.monotonic()
    batch = state.put_batch(next(parts.data.train_batches), mesh)
    train_state, _ = jax.block_until_ready(take_step(train_state, batch))
    seconds_per_step.append(time.monotonic() - start)
  step = statistics.median(seconds_per_step)
  # An evaluation is the forward pass alone: a third of a step.
  evaluated = -(-len(parts.data.validation) // config.data.batch_size)
  epoch = step * (parts.data.steps_per_epoch + evaluated / 3)
  # Setting up again and scoring take about as long as this has taken.
  left = seconds - 2 * (time.monotonic() - began)
  return {
    'device': jax.devices()[0].device_kind,
    'devices': jax.device_count(),
    'minutes': seconds / 60,
    'images_per_second': round(config.data.batch_size / step, 1),
    'learning_rate': config.optimizer.learning_rate,
    'epochs': done + max(1, min(config.train.epochs, int(left / epoch))),
  }


def _score(workdir: Path, config: Any) -> dict[str, dict[str, float]]:
  """Returns MAE and IoU on the validation pairs, by source and over all.

  At each photo's own size, as `rmbg_jax.predict` cuts it out.
  """
  import numpy as np

  from data_pipelines import folder, transforms
  from rmbg_jax import BackgroundRemover

  remover = BackgroundRemover.from_checkpoint(workdir)
  _, validation = folder.split_pairs(
    folder.read_folder(config.data.dir),
    validation_share=config.data.validation_share,
  )
  values = defaultdict(list)
  for pair in validation:
    photo, mask = transforms.read_pair(pair, allow_empty=True)
    alpha, truth = remover.alpha(photo), np.asarray(mask) / 255
    union = ((alpha > 0.5) | (truth > 0.5)).sum()
    common = ((alpha > 0.5) & (truth > 0.5)).sum()
    score = np.abs(alpha - truth).mean(), common / union if union else 1.0
    values[pair.source or config.data.name].append(score)
    values['all'].append(score)
  return {
    source: {
      'images': len(found),
      'mae': round(float(np.mean([mae for mae, _ in found])), 4),
      'iou': round(float(np.mean([iou for _, iou in found])), 4),
    }
    for source, found in sorted(values.items())
  }


if __name__ == '__main__':
  app.run(main)
