"""Two processes with two devices each compute what one device computes.

Only several processes show it, so these tests are slow: six start and trace the
network, in pairs.
"""

import csv
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
from jax.sharding import AxisType

from rmbg_jax import load_model
from rmbg_jax.training import state
from tests.support import distributed_worker, helpers

ROOT = Path(__file__).resolve().parents[2]


def _start_together(make_command):
  """Starts one process per index, two devices each."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    coordinator = f'127.0.0.1:{probe.getsockname()[1]}'
  return [
    subprocess.Popen(
      [sys.executable, *map(str, make_command(coordinator, index))],
      cwd=ROOT,
      env={**os.environ, 'JAX_NUM_CPU_DEVICES': '2'},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for index in range(2)
  ]


def _run_together(make_command):
  """Runs them to their end; returns their output."""
  processes = _start_together(make_command)
  outputs = [process.communicate()[0] for process in processes]
  for process, output in zip(processes, outputs, strict=True):
    assert process.returncode == 0, output
  return outputs


def test_loss_and_gradient_equal_those_of_one_device(
  data_dir, tmp_path, monkeypatch
):
  result = tmp_path / 'step.npz'
  _run_together(
    lambda coordinator, index: [
      *('-m', 'tests.support.distributed_worker', coordinator),
      *(index, 2, data_dir, result),
    ]
  )
  one = jax.make_mesh(
    (1,), ('data',), devices=jax.devices()[:1], axis_types=(AxisType.Auto,)
  )
  monkeypatch.setattr(state, 'make_mesh', lambda: one)
  loss, gradient = distributed_worker.take_step(data_dir)
  with np.load(result) as together:
    assert abs(float(together['loss']) - loss) < 1e-6
    leaves = jax.tree.leaves(gradient)
    others = [together[f'arr_{index}'] for index in range(len(leaves))]
  helpers.assert_same_gradient(leaves, others)


def _make_command(data_dir, workdir, epochs):
  settings = {**helpers.TINY_OVERRIDES, 'data.dir': data_dir}
  settings['train.epochs'] = epochs
  return lambda coordinator, index: [
    *('-m', 'rmbg_jax.main', '--config=configs/demo.py'),
    *(f'--workdir={workdir}', f'--coordinator={coordinator}'),
    *('--num_processes=2', f'--process_id={index}'),
    *(f'--config.{key}={value}' for key, value in settings.items()),
  ]


def _read_epochs(workdir):
  with (workdir / 'log.csv').open() as file:
    return [int(row['epoch']) for row in csv.DictReader(file)]


def test_they_stop_at_the_same_step_resume_and_write_once(data_dir, tmp_path):
  processes = _start_together(_make_command(data_dir, tmp_path, 1000))
  while not (tmp_path / 'log.csv').exists():
    assert processes[0].poll() is None, processes[0].communicate()
    time.sleep(0.1)
  processes[1].terminate()  # One of them.
  first, second = (process.communicate()[0] for process in processes)
  stops = [
    re.findall(r'Stopped on request at .*', text) for text in (first, second)
  ]
  assert stops[0] and stops[0] == stops[1], (first, second)
  assert 'Epoch 1: loss' in first
  assert 'Epoch 1' not in second
  epochs = _read_epochs(tmp_path)
  assert epochs == list(range(len(epochs)))
  assert len(epochs) < 1000

  first, second = _run_together(
    _make_command(data_dir, tmp_path, len(epochs) + 1)
  )
  assert f'Resumed at epoch {len(epochs) + 1}' in first
  assert 'Resumed' not in second
  assert _read_epochs(tmp_path) == [*epochs, len(epochs)]
  last = f'epoch_{len(epochs):04}.png'
  assert (tmp_path / 'pictures' / last).exists()
  # One process with one device reads what they have saved.
  assert load_model(tmp_path).description['step'] % 2 == 0
