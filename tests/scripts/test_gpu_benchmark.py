"""The GPU's report is whole after every part, whatever the next one does."""

import sys

import pytest

from scripts.benchmarks import common, gpu


def test_a_part_that_fails_costs_no_other_part(tmp_path):
  def fail(folder, seconds):
    raise SystemExit('no such device')

  report = tmp_path / 'report.md'
  parts = {
    'fails': fail,
    'reads': lambda folder, seconds: f'found before: {report.exists()}',
  }
  gpu.write_report(report, parts, seconds=60.0)
  text = report.read_text()
  assert 'failed: no such device' in text
  assert 'found before: True' in text


def test_no_part_begins_after_the_time_is_up(tmp_path):
  def fail(folder, seconds):
    raise AssertionError('It was called.')

  gpu.write_report(tmp_path / 'report.md', {'late': fail}, seconds=0.0)
  assert 'no time left' in (tmp_path / 'report.md').read_text()


def test_a_side_is_ended_with_what_it_started():
  slow = (
    'import subprocess, sys\n'
    'print("begun", flush=True)\n'
    'subprocess.run([sys.executable, "-c", "import time; time.sleep(60)"])\n'
  )
  with pytest.raises(SystemExit, match='begun\nstopped after 2 s'):
    common.run_process(sys.executable, '-c', slow, seconds=2.0)


def test_masks_are_compared():
  here = {'masks': [[0.5, 0.25]], 'device': 'a GPU', 'seconds': 0.001}
  there = {'masks': [[0.5, 0.5]], 'device': 'cpu', 'seconds': 0.1}
  line = gpu.compare_masks('the file', there, here)
  assert 'on a GPU' in line
  assert '2.5e-01 at most' in line
  assert 'in 1.0 ms, on the CPU in 100.0 ms' in line
