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
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import app, flags

from rmbg_jax import command_line

ROOT = Path(__file__).resolve().parent.parent
MIB = 2**20
_TIMED_STEPS = 8
# To compile, to read, and to score, where that has not been timed.
_SETUP_SECONDS = 120.0
_CONFIG = command_line.define_config(
  'What to train; its loader, batch size and rates.'
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
  if argv[1] == 'train' and _CONFIG.value is None:
    raise app.UsageError('train needs --config=NAME.')
  try:
    commands[argv[1]]()
  except (ValueError, FileNotFoundError, FloatingPointError) as error:
    raise SystemExit(f'Error: {error}') from error


def pack() -> None:
  """Packs a folder of pairs."""
  from data_pipelines.datasets import folder
  from data_pipelines.tools import packing

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
  from data_pipelines.tools import packing
  from rmbg_jax import runtime
  from rmbg_jax.training import loop as training
  from rmbg_jax.weights import load, release

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
  if config.init_from:
    config.model.encoder.weights = ''
  passes_before = _read_passes(config.init_from)

  history = campaign / 'weights' / 'history.jsonl'
  config.train.epochs = _plan_epochs(config, workdir, history, began=began)
  with _stop_late(began + 1.1 * 60 * _MINUTES.value):
    try:
      row = training.train_and_evaluate(config, workdir)
    except SystemExit as stopped:
      row = {}
      print(stopped)

  loaded = load.load_model(workdir)
  scores = _score(workdir, config)
  passes = passes_before + loaded.description['step'] * config.data.batch_size
  file = flags.FLAGS['config'].config_filename.removeprefix(f'{ROOT}{os.sep}')
  statements = {
    'image_passes': passes,
    'scores': scores,
    'terms': _TERMS.value,
    'training_command': f'python scripts/campaign.py train --config={file} '
    f'--packed=PACKED --minutes={_MINUTES.value:g}',
  }
  release.save_release(
    weights,
    loaded.variables,
    release.describe(loaded.description, loaded.preprocessing, **statements),
  )
  packing.split_file(weights, weights, part_bytes=_WEIGHTS_MIB.value * MIB)
  part = {
    'machine': _describe_machine(config),
    'image_passes': passes,
    'learning_rate': config.optimizer.learning_rate,
    'seconds_per_epoch': row.get('seconds'),
    'seconds': round(time.monotonic() - began),
    'scores': scores,
  }
  with history.open('a') as file:
    file.write(json.dumps(part) + '\n')
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
  from data_pipelines.io import files
  from data_pipelines.tools import packing
  from rmbg_jax.weights import checkpoints

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
  from rmbg_jax.weights import release

  if not path:
    return 0
  _, description = release.read_release(Path(path))
  return description.get('image_passes', 0)


def _plan_epochs(
  config: Any, workdir: Path, history: Path, *, began: float
) -> int:
  """Returns up to which epoch to train: those that are done and a part more.

  A part has at least one epoch and at most `config.train.epochs`.

  Args:
    config: of the training.
    workdir: of the training.
    history: what earlier parts took is read from it; for a machine that is not
      in it, some steps are timed, which have to be compiled for that.
    began: when the part did, by the monotonic clock.
  """
  from rmbg_jax.training import resume
  from rmbg_jax.weights import checkpoints

  done = 0
  with checkpoints.CheckpointStore(workdir, writable=False) as store:
    if store.latest_step is not None:
      description = store.read_description(store.latest_step)
      done = resume.Position.from_dict(description['position']).epoch
  lines = history.read_text().splitlines() if history.exists() else []
  parts = [json.loads(line) for line in lines]
  epochs = [
    part['seconds_per_epoch']
    for part in parts
    if part['machine'] == _describe_machine(config)
    and part['seconds_per_epoch']
  ]
  setup = time.monotonic() - began
  if epochs:
    epoch, setup = epochs[-1], setup + _SETUP_SECONDS
  else:
    epoch = _time_epoch(config)
    # It compiles and decodes, which is to come once more.
    setup = 2 * (time.monotonic() - began)
  left = 60 * _MINUTES.value - setup
  return done + max(1, min(config.train.epochs, int(left / epoch)))


def _describe_machine(config: Any) -> str:
  """Returns what the speed of a training depends on."""
  import jax

  height, width = config.data.size
  return (
    f'{jax.device_count()} x {jax.devices()[0].device_kind}, {config.name}, '
    f'{config.data.batch_size} x {height}x{width}, {config.model.dtype}'
  )


def _time_epoch(config: Any) -> float:
  """Times some steps, and returns how many seconds an epoch will take."""
  import jax

  from rmbg_jax.training import setup as setup_lib
  from rmbg_jax.training import state

  parts = setup_lib.make_parts(config)
  mesh = state.make_mesh()
  train_state = setup_lib.create_train_state(config, parts, mesh, resumed=False)
  take_step = setup_lib.make_train_step(config, parts)
  seconds = []
  for _ in range(_TIMED_STEPS):
    start = time.monotonic()
    batch = state.put_batch(next(parts.data.train_batches), mesh)
    rate = state.put_scalar(config.optimizer.learning_rate, mesh)
    train_state, _ = jax.block_until_ready(take_step(train_state, batch, rate))
    seconds.append(time.monotonic() - start)
  # An evaluation is the forward pass alone: a third of a step.
  evaluated = len(parts.data.validation) / config.data.batch_size
  return statistics.median(seconds) * (
    parts.data.steps_per_epoch + evaluated / 3
  )


def _score(workdir: Path, config: Any) -> dict[str, dict[str, float]]:
  """Returns MAE and IoU on the validation pairs, by source and over all.

  At each photo's own size, as `rmbg_jax.predict` cuts it out.
  """
  import numpy as np

  from data_pipelines.datasets import folder
  from rmbg_jax import BackgroundRemover

  remover = BackgroundRemover.from_checkpoint(workdir)
  _, validation = folder.split_pairs(
    folder.read_folder(config.data.dir),
    validation_share=config.data.validation_share,
  )
  values = defaultdict(list)
  for pair in validation:
    photo, mask = folder.read_pair(pair, allow_empty=True)
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
  command_line.run(main, __name__, required=())
