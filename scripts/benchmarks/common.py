"""Helps the benchmarks: the machine, timing, processes, photos, networks.

It imports little, because what a benchmark measures may be an import.
"""

import importlib.util
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from data_pipelines import cli
from data_pipelines.io import parallel

T = TypeVar('T')
ROOT = Path(__file__).resolve().parents[2]
# Before anything imports TensorFlow: its start-up messages are of no interest.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

# Cuts out the first COUNT photos of a folder, with alpha matting on request:
# INPUT OUTPUT COUNT [matting].
REMBG = """
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
_CALL = """
import importlib, json, sys
module, name, arguments = json.loads(sys.argv[1])
function = getattr(importlib.import_module(module), name)
print(json.dumps(function(*arguments)))
"""


class Seconds(NamedTuple):
  """Time of a process.

  Attributes:
    clock: Seconds by the clock.
    processor: Seconds of one core, which say more on a busy machine.
  """

  clock: float
  processor: float


def run(measure: Callable[[Path], None]) -> None:
  """Runs a benchmark as a command: it gets an empty folder."""

  def main():
    begin()
    with tempfile.TemporaryDirectory() as name:
      measure(Path(name))

  cli.run(main, '__main__')


def begin() -> None:
  """Prints the machine that the figures after it belong to."""
  sets = ' '.join(parallel.list_instruction_sets())
  print(
    f'{parallel.name_processor()} ({sets}), {parallel.count_cores()} cores',
    flush=True,
  )


def print_head(*names: str) -> None:
  """Prints the head of a table: one column of text, then figures."""
  print_row(*names)
  print('|---|' + '---:|' * (len(names) - 1))


def print_row(*cells: object) -> None:
  """Prints a row of a table."""
  print(f'| {" | ".join(map(str, cells))} |', flush=True)


def time_call(function: Callable[[], object]) -> float:
  """Returns the seconds of a call, by the clock."""
  began = time.perf_counter()
  function()
  return time.perf_counter() - began


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
) -> dict[str, float]:
  """Returns each function's median seconds, after a call that is not timed."""
  for function in functions.values():
    function()  # Compiles.
  timed = {
    name: lambda function=function: time_call(function)
    for name, function in functions.items()
  }
  seconds = repeat_in_turn(timed, repeats)
  return {name: statistics.median(values) for name, values in seconds.items()}


def time_process(
  command: list[str], environment: Mapping[str, str] | None = None
) -> Seconds:
  """Runs a command and returns its seconds.

  Raises:
    SystemExit: with its last words, if it fails.
  """
  began, before = time.perf_counter(), os.times()
  done = subprocess.run(
    command,
    cwd=ROOT,
    env={**os.environ, **(environment or {})},
    capture_output=True,
  )
  after = os.times()
  if done.returncode:
    raise SystemExit(done.stderr.decode(errors='replace')[-2000:])
  # Times of children that have ended.
  used = sum(after[2:4]) - sum(before[2:4])
  return Seconds(time.perf_counter() - began, used)


def find_rembg() -> str:
  """Returns the Python that has rembg, '' (and says so) if there is none."""
  if importlib.util.find_spec('rembg'):
    return sys.executable
  print('rembg is not installed: it is left out.')
  return ''


def run_python(
  *arguments: str,
  environment: Mapping[str, str] | None = None,
  seconds: float | None = None,
) -> subprocess.CompletedProcess:
  """Runs Python in a process of its own.

  Args:
    *arguments: Arguments of Python.
    environment: Added to this process's.
    seconds: It is ended after so many, with the processes that it started.

  Raises:
    TimeoutExpired: if it was ended, with what it had printed.
  """
  process = subprocess.Popen(
    [sys.executable, *arguments],
    cwd=ROOT,
    env={**os.environ, **(environment or {})},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  try:
    printed, errors = process.communicate(timeout=seconds)
  except BaseException as error:
    os.killpg(process.pid, signal.SIGKILL)
    printed, errors = process.communicate()
    if isinstance(error, subprocess.TimeoutExpired):
      error.stdout, error.stderr = printed, errors
    raise
  return subprocess.CompletedProcess(
    process.args, process.returncode, printed, errors
  )


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
    environment: As for `run_python`.
    seconds: As for `run_python`.

  Returns:
    Its result, which JSON must have.

  Raises:
    SystemExit: with the last words of the process, if it fails.
  """
  module = function.__globals__['__spec__'].name  # Not '__main__'.
  call = json.dumps([module, function.__name__, arguments], default=str)
  process = run_python(
    '-c', _CALL, call, environment=environment, seconds=seconds
  )
  if process.returncode:
    raise SystemExit(process.stderr[-2000:])
  return json.loads(process.stdout.splitlines()[-1])


def start_server(checkpoint: str) -> tuple[subprocess.Popen, str]:
  """Returns the page's process and its address, once it answers."""
  server = subprocess.Popen(
    [sys.executable, '-m', 'rmbg_jax.app', f'--checkpoint={checkpoint}'],
    cwd=ROOT,
    env={**os.environ, 'GRADIO_ANALYTICS_ENABLED': 'False'},
    stdout=subprocess.PIPE,
    text=True,
  )
  for line in server.stdout:
    if found := re.search(r'http://\S+', line):
      return server, found.group()
  raise SystemExit('The page did not start.')


def make_predict(
  checkpoint: str, photo: Path, kinds: tuple[str, ...]
) -> Callable[[], Path]:
  """Returns a function that does a photo as `predict` does, in this process.

  It returns the path of the cut-out, one of `kinds`.
  """
  from rmbg_jax import BackgroundRemover
  from rmbg_jax.batch import listing, pipeline
  from rmbg_jax.inference import rendering

  remover = BackgroundRemover.from_checkpoint(checkpoint)
  jobs = listing.list_jobs(str(photo))
  task = pipeline.Task(
    output=photo.parent / 'out',
    kinds=kinds,
    style=rendering.Style(),
    overwrite=True,
  )

  def predict():
    pipeline.run(
      remover, jobs, task, add_entry=lambda _: None, stop=threading.Event()
    )
    return task.output / f'cutout/{photo.stem}.png'

  return predict


def draw_photo(path: Path, size: tuple[int, int] = (1500, 1000)) -> None:
  """Writes a JPEG of (width, height) with figures before a background."""
  import numpy as np
  from PIL import Image

  from data_pipelines.datasets import demo

  pixels, _, _ = demo.draw_pair(np.random.default_rng(10), size[::-1])
  Image.fromarray(pixels).save(path, quality=90)


def make_photos(folder: Path, count: int, size: tuple[int, int]) -> None:
  """Writes JPEGs of (width, height) with some structure in them."""
  import numpy as np
  from PIL import Image

  folder.mkdir()
  rng = np.random.default_rng(0)
  for index in range(count):
    coarse = rng.integers(0, 256, (12, 18, 3), np.uint8)
    photo = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    noisy = np.asarray(photo) + rng.normal(0, 6, (size[1], size[0], 1))
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(
      folder / f'{index:05}.jpg', quality=90
    )


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
