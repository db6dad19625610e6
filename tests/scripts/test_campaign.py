"""The campaign, all of it, with a tiny network."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from data_pipelines.datasets import demo
from data_pipelines.tools import packing
from rmbg_jax import load_model
from tests.support import helpers

ROOT = Path(__file__).resolve().parents[2]


# Where it runs, Grain need not be installed.
WITHOUT_GRAIN = """
import runpy, sys
for name in ('grain', 'tensorboardX', 'tensorflow_datasets'):
  sys.modules[name] = None  # Importing it raises ImportError.
runpy.run_path('scripts/campaign.py', run_name='__main__')
"""


def _run(command, *flags):
  result = subprocess.run(
    [sys.executable, '-c', WITHOUT_GRAIN, command, *map(str, flags)],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  return result.returncode, result.stdout + result.stderr


def test_goes_on_with_and_without_the_training(tmp_path):
  """Slow: each of three parts is a training in a process of its own."""
  data, packed, campaign = (tmp_path / n for n in ('data', 'packed', 'runs'))
  demo.make_demo(data, count=24, size=(48, 48), seed=42)
  code, output = _run(
    'pack', f'--data={data}', f'--packed={packed}', '--part_mib=1'
  )
  assert code == 0, output
  overrides = {
    **helpers.TINY_OVERRIDES,
    'data.name': 'folder',
    'train.epochs': 1,  # In a part.
  }
  flags = [
    '--config=configs/demo.py',
    f'--packed={packed}',
    f'--campaign={campaign}',
    '--minutes=10',
    *(f'--config.{key}={value}' for key, value in overrides.items()),
  ]
  outputs = []
  for part in range(3):
    if part == 2:  # Another machine: the weights are all that is left.
      for name in ('training', 'data', 'decoded', 'start.safetensors'):
        path = campaign / name
        (shutil.rmtree if path.is_dir() else Path.unlink)(path)
    code, output = _run('train', *flags)
    assert code == 0, output
    outputs.append(output)
  assert 'Resumed at epoch 2' in outputs[1]
  assert 'Resumed' not in outputs[2]
  history = (campaign / 'weights' / 'history.jsonl').read_text()
  # The best of both epochs, from one or two of two steps of eight images.
  parts = [json.loads(line) for line in history.splitlines()]
  assert len({part['machine'] for part in parts}) == 1
  passes = [part['image_passes'] for part in parts]
  assert passes[0] == 16
  assert passes[1] in (16, 32)
  assert passes[2] == passes[1] + 16
  weights = campaign / 'weights' / 'demo.safetensors'
  assert packing.join_file(weights) == weights.read_bytes()
  description = load_model(weights).description
  assert description['image_passes'] == passes[2]
  assert description['scores']['all']['images'] == 5
  assert 0 < description['scores']['all']['mae'] < 1
  assert description['training_data'] == ['demo']
  assert str(tmp_path) not in json.dumps(dict(description))
  code, output = _run('train', *flags[:1], '--packed=/absent')
  assert code == 1
  assert 'Error: ' in output
  assert 'Traceback' not in output
