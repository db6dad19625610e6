"""Runs benchmarks: cases, timing, processes, photos, networks.

It imports little, because what a benchmark measures may be an import.
"""

import functools
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent import futures
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from absl import flags

from data_pipelines import cli
from data_pipelines.io import errors, parallel

if TYPE_CHECKING:
  from rmbg_jax import BackgroundRemover

T = TypeVar('T')
ROOT = Path(__file__).resolve().parents[2]
flags.disclaim_key_flags()  # They belong to the benchmark.
# Before anything imports TensorFlow: its start-up messages are of no interest.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')


def run(cases: Mapping[str, Callable[[Path], None]]) -> None:
  """Runs a benchmark: what `--cases` names, all by default, in new folders."""
  flags.DEFINE_integer('repeats', 5, 'Timed calls of each.', lower_bound=1)
  chosen = flags.DEFINE_list('cases', list(cases), f'Of {", ".join(cases)}.')

  def main():
    if unknown := set(chosen.value).difference(cases):
      raise errors.UserError(
        f'--cases={",".join(unknown)}: choose from {", ".join(cases)}.'
      )
    print(
      f'{parallel.name_processor()}, {parallel.count_cores()} cores '
      f'({" ".join(parallel.list_instruction_sets())})',
      flush=True,
    )
    for name in chosen.value:
      with tempfile.TemporaryDirectory() as folder:
        cases[name](Path(folder))

  cli.run(main, '__main__')


def print_head(*names: str) -> None:
  """Prints the head of a table: one column of text, then figures."""
  print()
  print_row(*names)
  print('|---|' + '---:|' * (len(names) - 1))


def print_row(*cells: object) -> None:
  """Prints a row of a table, numbers with four digits."""
  texts = (f'{x:.4g}' if isinstance(x, float) else str(x) for x in cells)
  print(f'| {" | ".join(texts)} |', flush=True)


def time_call(function: Callable[[], object]) -> tuple[float, float]:
  """Returns the seconds of a call by the clock, and those of the processor.

  The latter are of one core, of this process and of those that it waited for:
  they say more on a busy machine.
  """
  clock, busy = time.perf_counter(), _count_busy()
  function()
  return time.perf_counter() - clock, _count_busy() - busy


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


def compare(
  title: str,
  functions: Mapping[str, Callable[[], object]],
  *,
  count: int = 1,
  repeats: int = 0,
) -> None:
  """Prints the median time of functions that take turns.

  Each is called once before, to compile.

  Args:
    title: What is timed.
    functions: By name; all are compared with the first.
    count: Photos that a call does; figures are of one.
    repeats: Timed calls of each; 0: `--repeats`.
  """
  for function in functions.values():
    function()
  timed = {
    name: functools.partial(time_call, function)
    for name, function in functions.items()
  }
  found = repeat_in_turn(timed, repeats or flags.FLAGS.repeats)
  medians = {
    name: np.median(values, axis=0) / count for name, values in found.items()
  }
  (first, _), *_ = medians.values()
  print_head(title, 's', 's of processor', 'a second', 'of the first one')
  for name, (clock, processor) in medians.items():
    print_row(name, clock, processor, 1 / clock, clock / first)


def run_python(
  *arguments: str | Path, environment: Mapping[str, str] | None = None
) -> str:
  """Returns what this Python prints, with more environment variables.

  Raises:
    SystemExit: with what it printed and its last words, if it fails.
  """
  done = subprocess.run(
    [sys.executable, *map(str, arguments)],
    cwd=ROOT,
    env={**os.environ, **(environment or {})},
    capture_output=True,
    text=True,
    errors='replace',
  )
  if done.returncode:
    raise SystemExit(f'{done.stdout}{done.stderr[-2000:]}')
  return done.stdout


def call_apart(function: Callable[..., T], *arguments: str | float | Path) -> T:
  """Returns what a function returns in a process of its own."""
  spawn = multiprocessing.get_context('spawn')
  with futures.ProcessPoolExecutor(1, spawn) as pool:
    return pool.submit(function, *arguments).result()


def read_peak_mb(process: int | str = 'self') -> float:
  """Returns the peak memory of a process, on Linux.

  `getrusage` would count what the parent held before.
  """
  status = Path(f'/proc/{process}/status').read_text()
  return int(status.partition('VmHWM:')[2].split()[0]) / 1024


def make_predict(
  remover: 'BackgroundRemover', photos: Path, kinds: tuple[str, ...]
) -> Callable[[], Path]:
  """Returns a function that does photos as `predict` does, in this process.

  It returns the folder of the results, which are of `kinds`.
  """
  from rmbg_jax.batch import listing, pipeline
  from rmbg_jax.inference import rendering

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


def make_photos(folder: Path, count: int, size: tuple[int, int]) -> None:
  """Writes JPEGs of (width, height): the project's example photos in turn."""
  from PIL import Image, ImageOps

  folder.mkdir()
  sources = sorted((ROOT / 'docs/images/photos').glob('*.jpg'))
  for index in range(count):
    with Image.open(sources[index % len(sources)]) as photo:
      photo = ImageOps.fit(photo.convert('RGB'), size)
    photo.save(folder / f'{index:05}.jpg', quality=90)


def make_keras_model(path: Path):
  """Saves the original network with random weights; returns it in Keras."""
  import keras

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
