"""Runs benchmarks: the machine, timing, processes, photos, networks.

It imports little, because what a benchmark measures may be an import.
"""

import importlib.util
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from absl import flags

from data_pipelines import cli
from data_pipelines.io import errors, parallel

T = TypeVar('T')
ROOT = Path(__file__).resolve().parents[2]
# Before anything imports TensorFlow: its start-up messages are of no interest.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

_CALL = """
import importlib, json, sys
module, name, arguments = json.loads(sys.argv[1])
function = getattr(importlib.import_module(module), name)
print(json.dumps(function(*arguments)))
"""
# INPUT OUTPUT COUNT [matting]: cuts out the first photos of a folder.
_REMBG = """
import pathlib, sys
from PIL import Image
from rembg import new_session, remove
session = new_session('u2netp')
out = pathlib.Path(sys.argv[2])
out.mkdir(exist_ok=True)
options = {'alpha_matting': True} if sys.argv[4:] else {}
for path in sorted(pathlib.Path(sys.argv[1]).iterdir())[:int(sys.argv[3])]:
  cutout = remove(Image.open(path), session=session, **options)
  cutout.save(out / f'{path.stem}.png')
"""


class Seconds(NamedTuple):
  """Time of a call.

  Attributes:
    clock: Seconds by the clock.
    processor: Seconds of one core, of this process and of those that it waited
      for: they say more on a busy machine.
  """

  clock: float
  processor: float


def run(measure: Callable[[Path], None]) -> None:
  """Runs a benchmark as a command: prints the machine, passes a new folder."""

  def main():
    sets = ' '.join(parallel.list_instruction_sets())
    print(f'{name_machine()} ({sets})', flush=True)
    with tempfile.TemporaryDirectory() as name:
      measure(Path(name))

  cli.run(main, '__main__')


def name_machine() -> str:
  """Returns the machine that figures belong to."""
  return f'{parallel.name_processor()}, {parallel.count_cores()} cores'


def choose(flag: flags.FlagHolder, functions: Mapping[str, T]) -> dict[str, T]:
  """Returns the functions that a flag names.

  Raises:
    UserError: if it names another.
  """
  if unknown := [name for name in flag.value if name not in functions]:
    raise errors.UserError(
      f'--{flag.name}={",".join(unknown)}: choose from {", ".join(functions)}.'
    )
  return {name: functions[name] for name in flag.value}


def print_head(*names: str) -> None:
  """Prints the head of a table: one column of text, then figures."""
  print_row(*names)
  print('|---|' + '---:|' * (len(names) - 1))


def print_row(*cells: object) -> None:
  """Prints a row of a table."""
  print(f'| {" | ".join(map(str, cells))} |', flush=True)


def time_call(function: Callable[[], object]) -> Seconds:
  """Returns the seconds of a call."""
  clock, busy = time.perf_counter(), _count_busy()
  function()
  return Seconds(time.perf_counter() - clock, _count_busy() - busy)


def _count_busy() -> float:
  children = os.times()[2:4]  # Of those that have ended.
  return time.process_time() + sum(children)


def repeat_in_turn(
  functions: Mapping[str, Callable[[], T]], repeats: int
) -> dict[str, list[T]]:
  """Returns what each function returned, call by call.

  They take turns, so that what else the machine does falls on all of them.
  """
  found: dict[str, list[T]] = {name: [] for name in functions}
  for _ in range(repeats):
    for name, function in functions.items():
      found[name].append(function())
  return found


def time_in_turn(
  functions: Mapping[str, Callable[[], object]], repeats: int
) -> dict[str, Seconds]:
  """Returns each function's median seconds, after a call that is not timed."""
  for function in functions.values():
    function()  # Compiles.
  timed = {
    name: lambda function=function: time_call(function)
    for name, function in functions.items()
  }
  return {
    name: Seconds(*map(statistics.median, zip(*values, strict=True)))
    for name, values in repeat_in_turn(timed, repeats).items()
  }


def compare(
  title: str, functions: Mapping[str, Callable[[], object]], repeats: int
) -> None:
  """Prints `time_in_turn`, and the ratio of each to the last of them."""
  seconds = time_in_turn(functions, repeats)
  print_head(title, 's', 's of processor', 'ratio')
  *_, base = seconds.values()
  for name, (clock, processor) in seconds.items():
    print_row(
      name, f'{clock:.3f}', f'{processor:.3f}', f'{clock / base.clock:.2f}'
    )


def run_process(
  *command: str | Path,
  environment: Mapping[str, str] | None = None,
  seconds: float | None = None,
) -> str:
  """Returns what a command prints.

  Args:
    *command: Program and arguments.
    environment: Added to this process's.
    seconds: It is ended after so many, with the processes that it started.

  Raises:
    SystemExit: with what it printed and its last words, if it fails or is
      ended.
  """
  process = subprocess.Popen(
    list(map(str, command)),
    cwd=ROOT,
    env={**os.environ, **(environment or {})},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    errors='replace',
    start_new_session=True,  # Ending it ends what it starts as well.
  )
  try:
    printed, words = process.communicate(timeout=seconds)
  except BaseException as error:
    os.killpg(process.pid, signal.SIGKILL)
    printed, _ = process.communicate()
    if isinstance(error, subprocess.TimeoutExpired):
      raise SystemExit(f'{printed}stopped after {seconds:.0f} s') from None
    raise
  if process.returncode:
    raise SystemExit(f'{printed}{words[-2000:]}')
  return printed


def run_rembg(
  python: str, photos: Path, output: Path, count: int, *options: str
) -> None:
  """Cuts out photos with U2-Net-p by rembg, with its 'matting' on request."""
  run_process(python, '-c', _REMBG, photos, output, str(count), *options)


def find_rembg() -> str:
  """Returns the Python that has rembg, '' (and says so) if there is none."""
  if importlib.util.find_spec('rembg'):
    return sys.executable
  print('rembg is not installed: it is left out.')
  return ''


def call_apart(
  function: Callable[..., object],
  *arguments: str | float | Path,
  environment: Mapping[str, str] | None = None,
  seconds: float | None = None,
) -> Any:
  """Returns what a function returns in a process of its own.

  Args:
    function: Function of a module of this package.
    *arguments: Its arguments; paths become strings.
    environment: As for `run_process`.
    seconds: As for `run_process`.

  Returns:
    Its result, which JSON must have.
  """
  module = function.__globals__['__spec__'].name  # Not '__main__'.
  call = json.dumps([module, function.__name__, arguments], default=str)
  printed = run_process(
    *(sys.executable, '-c', _CALL, call),
    environment=environment,
    seconds=seconds,
  )
  return json.loads(printed.splitlines()[-1])


def read_peak_mb() -> float:
  """Returns the peak memory of this process."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_predict(
  checkpoint: str | Path, photos: Path, kinds: tuple[str, ...]
) -> Callable[[], Path]:
  """Returns a function that does photos as `predict` does, in this process.

  It returns the folder of the results, which are of `kinds`.
  """
  import threading

  from rmbg_jax import BackgroundRemover
  from rmbg_jax.batch import listing, pipeline
  from rmbg_jax.inference import rendering

  remover = BackgroundRemover.from_checkpoint(checkpoint)
  jobs = listing.list_jobs(str(photos))
  task = pipeline.Task(
    output=photos.parent / 'out',
    kinds=kinds,
    style=rendering.Style(),
    overwrite=True,
  )

  def add_entry(entry):
    if entry.error:
      raise SystemExit(f'{entry.photo}: {entry.error}')

  def predict():
    stop = threading.Event()
    pipeline.run(remover, jobs, task, add_entry=add_entry, stop=stop)
    return task.output

  return predict


def make_training(
  config: Any,  # A ConfigDict: predicting needs no ml_collections.
  folder: str,
) -> tuple[Any, Callable[..., tuple], tuple]:
  """Returns what a training of drawn pictures begins with.

  Args:
    config: The configuration; its data is replaced.
    folder: Path of a new folder for the pictures.

  Returns:
    (the components, a step, its arguments: state, batch and learning rate).
  """
  from rmbg_jax.training import setup, state

  with config.unlocked():
    config.data.update({'name': 'demo', 'dir': folder, 'loader': 'grain'})
    config.data.update({'threads': 1, 'buffer': 1})
    config.data.demo.count = 2 * config.data.batch_size
    config.model.encoder.weights = ''
  config.model.remat, config.optimizer.accumulation = False, 1
  components = setup.make_components(config)
  mesh = state.make_mesh()
  arguments = (
    setup.create_train_state(config, components, mesh, resumed=False),
    state.put_batch(next(components.data.train_batches), mesh),
    state.put_scalar(1e-6, mesh),
  )
  return components, setup.make_train_step(config, components), arguments


def make_photos(folder: Path, count: int, size: tuple[int, int]) -> None:
  """Writes JPEGs of (width, height): the project's example photos in turn."""
  from PIL import Image, ImageOps

  folder.mkdir(parents=True)
  sources = sorted((ROOT / 'docs/images/photos').glob('*.jpg'))
  for index in range(count):
    with Image.open(sources[index % len(sources)]) as photo:
      photo = ImageOps.fit(photo.convert('RGB'), size)
    if index // len(sources) % 2:
      photo = ImageOps.mirror(photo)
    photo.save(folder / f'{index:05}.jpg', quality=90)


def make_keras_model(path: Path):
  """Saves the original network with random weights; returns it in Keras."""
  import keras
  import numpy as np

  from scripts.references import keras_network

  rng = np.random.default_rng(0)
  model = keras_network.build_original(keras, size=(512, 512))
  # Masks that are neither all 0 nor all 1.
  image = rng.random((1, 512, 512, 3)).astype(np.float32)
  keras_network.randomize(keras, model, image, rng)
  model.save(path)
  return model


def open_onnx(path: str | os.PathLike) -> Any:
  """Returns an onnxruntime session on the CPU that waits without computing."""
  import onnxruntime

  options = onnxruntime.SessionOptions()
  # Threads that wait in a loop would slow the other sides down.
  options.add_session_config_entry('session.intra_op.allow_spinning', '0')
  return onnxruntime.InferenceSession(
    path, options, providers=['CPUExecutionProvider']
  )
