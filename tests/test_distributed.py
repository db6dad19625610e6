"""Two processes with two devices each compute what one device computes."""

import csv
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from data_pipelines import demo
from rmbg_jax import load_model, state
from tests import distributed_worker, helpers

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  directory = tmp_path_factory.mktemp('data') / 'demo'
  demo.make_demo(directory, count=24, size=(48, 48), seed=42)
  return directory


def _run_together(make_command):
  """Runs one process per index, two devices each; returns their output."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    coordinator = f'127.0.0.1:{probe.getsockname()[1]}'
  processes = [
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
      *('-m', 'tests.distributed_worker', coordinator),
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


def test_they_train_resume_and_write_once(data_dir, tmp_path):
  overrides = {**helpers.TINY_OVERRIDES, 'data.dir': data_dir}

  def make_command(epochs):
    settings = {**overrides, 'train.epochs': epochs}
    return lambda coordinator, index: [
      *('-m', 'rmbg_jax.main', '--config=configs/demo.py'),
      *(f'--workdir={tmp_path}', f'--coordinator={coordinator}'),
      *('--num_processes=2', f'--process_id={index}'),
      *(f'--config.{key}={value}' for key, value in settings.items()),
    ]

  first, second = _run_together(make_command(1))
  assert 'Epoch 1: loss' in first
  assert 'Epoch 1' not in second
  first, second = _run_together(make_command(2))
  assert 'Resumed at epoch 2' in first
  with (tmp_path / 'log.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert [row['epoch'] for row in rows] == ['0', '1']
  assert (tmp_path / 'pictures' / 'epoch_0001.png').exists()
  # One process with one device reads what they have saved.
  assert load_model(tmp_path).description['step'] in (2, 4)
