"""The files for SLURM and Kubernetes: what can be tried without them."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from absl.flags import FLAGS

from rmbg_jax import main, predict

FOLDER = Path(__file__).resolve().parents[2] / 'scripts/cluster'
FILES = sorted(path.name for path in FOLDER.iterdir() if path.is_file())
# Behind these, words are for the project's commands.
COMMANDS = re.compile(
  r'(?:rmbg_jax\.(?:main|predict)|- rmbg-train\n|rmbg-predict --)'
  r'(.*?)(?:\|\||resources|shutdown|\Z)',
  re.DOTALL,
)


@pytest.mark.parametrize('name', FILES)
def test_flags_are_those_of_the_command(name):
  assert main and predict  # They define the flags.
  commands = COMMANDS.findall((FOLDER / name).read_text())
  used = re.findall(r'--([a-z_]+)', ' '.join(commands))
  assert used and set(used) <= {*FLAGS, 'config'}


def _read(name):
  return list(yaml.safe_load_all((FOLDER / name).read_text()))


def test_the_jobs_of_kubernetes_agree_with_themselves():
  service, job = _read('train-job.yaml')
  spec = job['spec']
  command = spec['template']['spec']['containers'][0]['command']
  assert f'--num_processes={spec["completions"]}' in command
  assert spec['completions'] == spec['parallelism']
  subdomain = spec['template']['spec']['subdomain']
  assert subdomain == service['metadata']['name']
  assert (
    f'--coordinator={job["metadata"]["name"]}-0.{subdomain}:9876' in command
  )
  labels = spec['template']['metadata']['labels']
  assert service['spec']['selector'].items() <= labels.items()
  (predicting,) = _read('predict-rayjob.yaml')
  assert '--engine=ray --address=auto' in predicting['spec']['entrypoint']


def _run(name, tmp_path, *arguments, code=0):
  """Runs a script of SLURM with commands that only say what they are told."""
  said = tmp_path / 'said'
  for command, body in (
    ('srun', f'exit {code}'),
    ('scontrol', 'test "$1" != show || printf "first\\nsecond\\n"'),
  ):
    path = tmp_path / command
    path.write_text(f'#!/bin/bash\necho {command} "$@" >> {said}\n{body}\n')
    path.chmod(0o755)
  result = subprocess.run(
    ['bash', FOLDER / name, *arguments],
    env={
      **os.environ,
      'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}',
      'SLURM_JOB_ID': '7',
      'SLURM_JOB_NODELIST': 'hosts',
      'SLURM_JOB_NUM_NODES': '2',
    },
  )
  return result.returncode, said.read_text().splitlines()


@pytest.mark.parametrize('code', [0, 1, 143])
def test_slurm_starts_a_training_again_that_saved(code, tmp_path):
  returned, said = _run('train.sbatch', tmp_path, '--workdir=a b', code=code)
  assert returned == code
  assert said[0].endswith('-m rmbg_jax.main --distributed --workdir=a b')
  assert said[1:] == (['scontrol requeue 7'] if code == 143 else [])


def test_slurm_starts_ray_for_a_prediction(tmp_path):
  returned, said = _run('predict.sbatch', tmp_path, '--input=in')
  assert returned == 0
  assert '--address=first:6379 --min-nodes=2 -- ' in said[-1]
  assert said[-1].endswith(
    '-m rmbg_jax.predict --engine=ray --address=auto --input=in'
  )
