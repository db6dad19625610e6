"""The commands of the README in processes of their own, as a user runs them."""

import ast
import errno
import os
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

import configs
from rmbg_jax.models.preprocessing import make_preprocessing
from rmbg_jax.training import setup
from tests.support import commands, helpers

ROOT = Path(__file__).resolve().parents[2]


def _run(*command, check=True):
  result = commands.run(*command)
  if check:
    assert result.returncode == 0, result.stdout + result.stderr
  return result


def test_quickstart_is_interrupted_as_by_a_terminal_and_goes_on(tmp_path):
  """All of it, but for installing, which scripts/check_installs.py does.

  Ctrl-C reaches all its processes; the training saves before it ends. Slow: the
  photographs are cut out before there is a training to interrupt.
  """
  output, workdir = tmp_path / 'out', tmp_path / 'run'
  overrides = {**helpers.TINY_OVERRIDES, 'data.dir': tmp_path / 'data'}
  command = [sys.executable, 'scripts/quickstart.py', '--no-install']
  command += ['--no-open', f'--output={output}', f'--workdir={workdir}']
  command += [f'--config.{key}={value}' for key, value in overrides.items()]
  process = subprocess.Popen(
    [*command, '--config.train.epochs=10_000'],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    start_new_session=True,
  )
  while not (workdir / 'log.csv').exists() and process.poll() is None:
    time.sleep(0.05)
  os.killpg(process.pid, signal.SIGINT)
  said, _ = process.communicate()
  assert process.returncode == 130, said
  assert 'and saved.' in said
  assert said.endswith('run the same command again.\n')
  assert 'Traceback' not in said
  photos = sorted((ROOT / 'docs/images/photos').glob('*.jpg'))
  for photo in photos:  # There is something to see on each.
    alpha = np.asarray(Image.open(output / f'mask/{photo.stem}.png')) / 255
    assert 0.02 < alpha.mean() < 0.9
  # As many epochs as are done: nothing is trained anew.
  log = (workdir / 'log.csv').read_text()
  epochs = len(log.splitlines()) - 1
  done = subprocess.run(
    [*command, f'--config.train.epochs={epochs}'],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  assert (workdir / 'log.csv').read_text() == log
  for folder in (output, output / 'demo'):
    assert f'Look at {folder / "sheet.png"}' in done.stdout
    assert (folder / 'sheet.png').exists()
  truths = sorted((output / 'demo/pictures/Masks').iterdir())
  assert len(truths) == 12
  for truth in truths:
    assert (output / 'demo/mask' / truth.name).exists()
    assert (output / 'demo/cutout' / truth.name).exists()


def test_the_quickstart_opens_its_picture_on_a_desktop(monkeypatch, tmp_path):
  monkeypatch.syspath_prepend(ROOT / 'scripts')
  import quickstart

  started = []
  monkeypatch.setattr(
    quickstart.subprocess, 'Popen', lambda command, **_: started.append(command)
  )
  monkeypatch.setattr(sys, 'platform', 'linux')
  for name in ('DISPLAY', 'WAYLAND_DISPLAY'):
    monkeypatch.delenv(name, raising=False)
  quickstart.open_picture(tmp_path / 'sheet.png')
  assert not started
  monkeypatch.setenv('DISPLAY', ':0')
  quickstart.open_picture(tmp_path / 'sheet.png')
  assert started == [['xdg-open', str(tmp_path / 'sheet.png')]]

  def fail(*_, **__):
    raise FileNotFoundError('xdg-open')

  monkeypatch.setattr(quickstart.subprocess, 'Popen', fail)
  quickstart.open_picture(tmp_path / 'sheet.png')


def test_the_quickstart_writes_to_where_it_was_started(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(ROOT / 'scripts')
  import bootstrap
  import quickstart

  commands = []
  monkeypatch.setattr(bootstrap, 'run', commands.append)
  monkeypatch.setattr(sys, 'argv', ['', '--no-install', '--no-open'])
  monkeypatch.chdir(tmp_path)
  quickstart.main()
  assert f'--output={tmp_path}/quickstart_output' in commands[0]
  assert f'--workdir={tmp_path}/runs/quickstart' in commands[3]


def test_an_interrupted_environment_is_made_anew(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(ROOT / 'scripts')
  import bootstrap

  def create(folder, **_):
    python.parent.mkdir(parents=True)
    python.touch()
    raise KeyboardInterrupt

  python = tmp_path / '.venv/bin/python'
  monkeypatch.setattr(bootstrap, 'ROOT', tmp_path)
  monkeypatch.setattr(venv, 'create', create)
  with pytest.raises(SystemExit) as stopped:
    bootstrap.start(lambda: bootstrap.prepare('requirements.txt'))
  assert stopped.value.code == 130
  assert not python.exists()


def test_an_environment_whose_python_was_removed_is_made_anew(
  tmp_path, monkeypatch
):
  monkeypatch.syspath_prepend(ROOT / 'scripts')
  import bootstrap

  monkeypatch.setattr(bootstrap, 'ROOT', tmp_path)
  python = tmp_path / '.venv/bin/python'
  python.parent.mkdir(parents=True)
  python.symlink_to(tmp_path / 'removed')
  stamp = tmp_path / '.venv/requirements.txt.installed'
  stamp.write_text(bootstrap._fingerprint())

  def refuse(folder, **_):
    raise OSError(errno.EROFS, 'Read-only file system', str(folder))

  monkeypatch.setattr(venv, 'create', refuse)
  with pytest.raises(SystemExit, match=r'Read-only .*\.venv.*may write'):
    bootstrap.prepare('requirements.txt')


def test_an_environment_of_an_older_python_is_named(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(ROOT / 'scripts')
  import bootstrap

  monkeypatch.setattr(bootstrap, 'ROOT', tmp_path)
  python = tmp_path / '.venv/bin/python'
  python.parent.mkdir(parents=True)
  python.symlink_to(sys.executable)
  installed = []
  monkeypatch.setattr(bootstrap.shutil, 'which', lambda name: name)
  monkeypatch.setattr(bootstrap, 'run', installed.append)
  bootstrap.prepare('requirements.txt')
  assert len(installed) == 2
  (tmp_path / '.venv/requirements.txt.installed').unlink()
  python.unlink()
  python.write_text('#!/bin/sh\nexit 1\n')  # As an older one answers.
  python.chmod(0o755)
  with pytest.raises(SystemExit, match=r'\.venv has an older .* Remove'):
    bootstrap.prepare('requirements.txt')
  assert len(installed) == 2


@pytest.mark.parametrize('name', ['bootstrap', 'quickstart', 'test'])
def test_an_older_python_comes_as_far_as_the_message(name):
  tree = ast.parse(
    (ROOT / f'scripts/{name}.py').read_text(), feature_version=(3, 7)
  )
  annotations = [
    annotation
    for node in ast.walk(tree)
    for field in ('annotation', 'returns')
    if (annotation := getattr(node, field, None))
  ]
  assert annotations
  assert not any(isinstance(one, ast.Subscript) for one in annotations)


CONFIGS = sorted(
  path.stem
  for path in Path(configs.__file__).parent.glob('*.py')
  if 'def get_config(' in path.read_text() and path.stem != 'refiner'
)


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_loads(name):
  module = __import__(f'configs.{name}', fromlist=['get_config'])
  config = module.get_config()
  assert isinstance(config, ConfigDict)
  assert config.name == name
  assert f'--config=configs/{name}.py' in module.__doc__
  architecture, model = setup.create_model(config)
  assert architecture['name'] in ('unet', 'u2net')
  assert 'weights' not in architecture.get('encoder', {})
  make_preprocessing(
    config.data.normalization or setup._default_normalization(config.model),
    size=tuple(config.data.size),
  )
  if 'width' in architecture['encoder']:  # A ResNet50.
    assert set(helpers.TINY_OVERRIDES) <= set(_flatten(config))


def _flatten(config, prefix=''):
  for key, value in config.items():
    if isinstance(value, ConfigDict):
      yield from _flatten(value, f'{prefix}{key}.')
    else:
      yield prefix + key


@pytest.mark.parametrize(
  ('setting', 'hint'),
  [
    ('--config.data.batchsize=4', 'Did you mean --config.data.batch_size?'),
    (
      '--config.optimzer.learning_rate=1',
      'Did you mean --config.optimizer.learning_rate?',
    ),
    ('--config.train.xyz=1', 'configs/demo.py, or what it imports, has all'),
    ('--config.name.x=3', 'a value has no settings'),
  ],
)
@pytest.mark.parametrize(
  'program',
  [('-m', 'rmbg_jax.main'), ('scripts/show_batch.py',)],
)
def test_a_wrong_key_is_named_in_one_line(program, setting, hint):
  result = _run(*program, '--config=demo', setting, check=False)
  assert result.returncode == 1
  (line,) = result.stderr.splitlines()
  assert line.startswith(f'Error: {setting}: ')
  assert hint in line


@pytest.mark.parametrize(
  ('program', 'name', 'setting', 'message'),
  [
    # Keys of other configurations.
    ('train_refiner', 'refiner', 'data.augment.flip=0', 'has all that there'),
    ('train_refiner', 'refiner', 'data.backgroud=x', 'data.backgrounds?'),
    ('main', 'small', 'model.encoder.dialect=keras', 'model.encoder.dialect.'),
    ('main', 'lite:device', 'model.foo=1', 'there is no setting model.foo.'),
    # Values of another type.
    ('main', 'demo', 'data.batch_size=abc', 'invalid literal for int() with'),
    ('main', 'demo', 'data.size=96', 'must be 2 numbers, each at least 1, got'),
  ],
)
def test_a_wrong_setting_is_named(program, name, setting, message):
  setting = f'--config.{setting}'
  result = _run(
    '-m', f'rmbg_jax.{program}', f'--config={name}', setting, check=False
  )
  assert result.returncode == 1
  (line,) = result.stderr.splitlines()
  assert line.startswith('Error: ') and message in line
  assert setting.partition('=')[0].removeprefix('--') in line


def test_an_absent_configuration_is_named():
  for overrides in ((), ('--config.name=x',)):
    result = _run(
      '-m', 'rmbg_jax.main', '--config=absent.py', *overrides, check=False
    )
    (line,) = result.stderr.splitlines()
    assert line.startswith('Error: --config: ')
    assert "'absent.py'" in line


def test_help_is_no_failure():
  result = _run('-m', 'rmbg_jax.main', '--help')
  assert '--config:' in result.stdout
  assert '--workdir:' in result.stdout


def test_errors_are_one_line():
  result = _run(
    '-m',
    'rmbg_jax.main',
    '--config=configs/lite.py',
    '--config.data.dir=/absent',
    check=False,
  )
  assert result.returncode == 1
  assert 'Error: /absent: no such data folder' in result.stderr
  assert 'Traceback' not in result.stderr
  result = _run('-m', 'rmbg_jax.export', '--output=network.bin', check=False)
  assert result.returncode == 1
  assert 'must end in .safetensors' in result.stderr
  assert 'Traceback' not in result.stderr


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (('--distributed',), 'cannot be joined: coordinator_address should be'),
    (('--process_id=0',), '--coordinator=: pass HOST:PORT of process 0'),
    (
      ('--coordinator=a', '--num_processes=1', '--process_id=0'),
      '--coordinator=a: pass HOST:PORT of process 0',
    ),
    (
      ('--coordinator=a:1', '--num_processes=1', '--process_id=5'),
      'process_id=5, num_processes=1. Without SLURM',
    ),
  ],
)
def test_processes_that_cannot_be_joined_are_told(given, message):
  result = _run('-m', 'rmbg_jax.main', '--config=demo', *given, check=False)
  assert result.returncode == 1
  (line,) = result.stderr.splitlines()
  assert line.startswith('Error: ') and message in line


@pytest.mark.parametrize(
  ('script', 'missing', 'remedy'),
  [
    ('plot_history', 'matplotlib', 'pip install matplotlib'),
    ('show_batch', 'ml_collections', "pip install -e '.[train]'"),
  ],
)
def test_scripts_say_what_they_need(script, missing, remedy):
  code = (
    f'import runpy, sys; sys.modules[{missing!r}] = None; '
    f"runpy.run_path('scripts/{script}.py', run_name='__main__')"
  )
  result = _run('-c', code, check=False)
  assert result.returncode == 1
  (line,) = result.stderr.splitlines()
  assert line.startswith('Error: ') and remedy in line


def test_style():
  for command in (('check',), ('format', '--check')):
    _run('-m', 'ruff', *command, '.')
