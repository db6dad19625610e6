"""Helps the benchmarks: the machine, timing, processes, photos, networks.

It imports little: what a benchmark measures may be an import.
"""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from absl import app

from data_pipelines.io import parallel

ROOT = Path(__file__).resolve().parents[2]
# Before anything imports TensorFlow: its start-up messages are of no interest.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')


def begin(argv: list[str]) -> None:
  """Prints the machine that the figures after it belong to.

  Raises:
    UsageError: if there are arguments that are no flags.
  """
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  sets = ' '.join(parallel.list_instruction_sets())
  print(
    f'{parallel.name_processor()} ({sets}), {parallel.count_cores()} cores',
    flush=True,
  )


def time_call(function: Callable[[], object]) -> float:
  """Returns the seconds of a call, by the clock."""
  began = time.perf_counter()
  function()
  return time.perf_counter() - began


def time_in_turn(
  functions: Mapping[str, Callable[[], object]], repeats: int
) -> dict[str, float]:
  """Returns each function's median seconds, after a call that is not timed.

  They take turns, so that what else the machine does falls on all of them.
  """
  for function in functions.values():
    function()  # Compiles.
  seconds = {name: [] for name in functions}
  for _ in range(repeats):
    for name, function in functions.items():
      seconds[name].append(time_call(function))
  return {name: statistics.median(values) for name, values in seconds.items()}


def run_side(
  module: str,
  *flags: str,
  environment: Mapping[str, str] | None = None,
  seconds: float | None = None,
) -> subprocess.CompletedProcess:
  """Runs a benchmark in a process of its own, to measure one side there.

  Args:
    module: `__spec__.name` of the benchmark.
    *flags: Flags that name the side.
    environment: Added to this process's.
    seconds: It is ended after so many, with the processes that it started.

  Returns:
    What came of it; `read_result` has what the process measured.

  Raises:
    TimeoutExpired: if it was ended, with what it had printed.
  """
  process = subprocess.Popen(
    [sys.executable, '-m', module, *flags],
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


def read_result(process: subprocess.CompletedProcess) -> Any:
  """Returns the JSON in the last line that a side printed.

  Raises:
    SystemExit: with its last words, if it failed.
  """
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


def draw_photo(path: Path) -> None:
  """Writes a JPEG of 1500x1000 pixels with figures before a background."""
  import numpy as np
  from PIL import Image

  from data_pipelines.datasets import demo

  pixels, _, _ = demo.draw_pair(np.random.default_rng(10), (1000, 1500))
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
