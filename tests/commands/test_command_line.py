"""What all command lines share: messages, exit codes, paths, names."""

import ast
import errno
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import app, flags
from absl.testing import flagsaver

from configs import refiner
from data_pipelines import cli
from data_pipelines.io import errors, files
from rmbg_jax import command_line
from tests.support import commands

ROOT = Path(__file__).resolve().parents[2]
# They run before anything is installed.
STANDARD_LIBRARY_ALONE = ('quickstart.py', 'test.py', 'check_installs.py')
PROGRAMS = [
  path
  for folder in ('rmbg_jax', 'data_pipelines', 'scripts')
  for path in sorted((ROOT / folder).rglob('*.py'))
  if "__name__ == '__main__'" in path.read_text()
  and path.name not in STANDARD_LIBRARY_ALONE
]


def _run(main, monkeypatch):
  """Runs a program without a command line."""
  monkeypatch.setattr(app, 'run', lambda main, flags_parser: main([]))
  cli.run(main, '__main__')


def _raise(error):
  def main():
    raise error

  return main


@pytest.mark.parametrize(
  ('error', 'message'),
  [
    (errors.UserError('--x=1: pass 2.'), '--x=1: pass 2.'),
    (errors.MissingFileError('a: missing.'), 'a: missing.'),
    (errors.DivergedError('Not finite.'), 'Not finite.'),
    (PermissionError(13, 'Permission denied', 'a/b'), 'a/b: Permission denied'),
    (FileNotFoundError(2, 'No such file', b'a\xff'), 'a\udcff: No such file'),
    (OSError(errno.ENOSPC, 'No space left'), 'No space left'),
    (OSError(errno.EDQUOT, 'Quota exceeded'), 'Quota exceeded'),
  ],
)
def test_what_the_user_can_mend_is_one_line(error, message, monkeypatch):
  with pytest.raises(SystemExit) as stopped:
    _run(_raise(error), monkeypatch)
  assert stopped.value.code == f'Error: {message}'


@pytest.mark.parametrize(
  'error',
  [
    ValueError('shapes do not match'),
    TypeError('not iterable'),
    KeyError('key'),
    FloatingPointError('overflow'),
    OSError('no file is named'),
  ],
)
def test_a_mistake_of_the_program_keeps_its_traceback(error, monkeypatch):
  with pytest.raises(type(error)) as raised:
    _run(_raise(error), monkeypatch)
  assert raised.value is error


def test_interrupted_is_a_line_and_130(monkeypatch, capsys):
  with pytest.raises(SystemExit) as stopped:
    _run(_raise(KeyboardInterrupt()), monkeypatch)
  assert stopped.value.code == 130
  assert capsys.readouterr().err == 'Interrupted.\n'


def test_a_training_that_was_stopped_says_so_with_the_signals_code(
  monkeypatch, capsys
):
  with pytest.raises(SystemExit) as stopped:
    _run(_raise(errors.Stopped('Stopped, and saved.', 15)), monkeypatch)
  assert stopped.value.code == 143
  assert capsys.readouterr().err == 'Stopped, and saved.\n'


@pytest.mark.parametrize('closed', ['>&-', '2>&-', '>&- 2>&- <&-', 'None'])
def test_nobody_needs_the_standard_streams(closed, tmp_path):
  program = tmp_path / 'program.py'
  program.write_text(
    'import os, sys\n'
    'from pathlib import Path\n'
    + ('sys.stdout = sys.stderr = None\n' if closed == 'None' else '')
    + 'from data_pipelines import cli\n'
    'def main():\n'
    '  with open("kept", "w") as file:\n'
    '    print("said")\n'
    '    os.system("echo loud; echo loud >&2")\n'
    '    print("noise", file=sys.stderr)\n'
    'cli.run(main, "__main__")\n',
    encoding='utf-8',
  )
  redirected = '' if closed == 'None' else closed
  result = subprocess.run(
    f'{sys.executable} program.py {redirected}',
    shell=True,
    cwd=tmp_path,
    timeout=120,
  )
  assert result.returncode == 0
  assert (tmp_path / 'kept').read_text() == ''


def test_urls_are_taken_where_they_are_meant():
  code = (
    'from absl import flags\n'
    'from data_pipelines import cli\n'
    'cli.define_path("only", None, "")\n'
    'cli.define_path("some", None, "", urls=("s3", "hf"))\n'
    'cli.define_paths("more", [], "", urls=("hf",))\n'
    'cli.run(lambda: print(flags.FLAGS.flag_values_dict()), "__main__")\n'
  )

  def run(*arguments):
    done = subprocess.run(
      [sys.executable, '-c', code, *arguments],
      cwd=ROOT,
      capture_output=True,
      text=True,
    )
    return done.stdout + done.stderr

  for flag, refused in (
    ('only=gs://b/x', 'Pass a path'),
    ('only=file:///x', 'Pass a path'),
    ('some=gs://b/x', 'Pass a path, or s3://, or hf://'),
    ('more=a,az://b/x', 'az://b/x: a URL of this kind'),
  ):
    assert refused in run(f'--{flag}')
  taken = run('--some=s3://b/x', '--more=hf://a/b,c', '--only=a:/b')
  for value in ("'s3://b/x'", "['hf://a/b', 'c']", "'a:/b'"):
    assert value in taken


@pytest.mark.parametrize('flag', ['workdir', 'config.data.dir'])
def test_trainings_are_on_disks(flag, tmp_path):
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'rmbg_jax.main', '--config=demo'),
      f'--{flag}=az://b/run',
    ],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    timeout=120,
  )
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert 'az://b/run: a URL of this kind is not' in done.stderr
  assert not list(tmp_path.iterdir())


def test_all_commands_can_be_imported_at_once():
  code = (
    'import rmbg_jax.evaluate, rmbg_jax.main, rmbg_jax.app, rmbg_jax.predict\n'
    'import rmbg_jax.export.__main__\n'
    'rmbg_jax.predict.run()\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code, '--input=a', '--output=b'],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert 'Traceback' not in done.stderr
  assert 'a: no such file' in done.stderr


def test_a_reader_that_has_enough_is_no_failure_to_report(tmp_path):
  """As of `| head`; what was still to be written is given up."""
  code = (
    'import os, sys\n'
    'from data_pipelines import cli\n'
    'reader, writer = os.pipe()\n'
    'os.close(reader)\n'
    'os.dup2(writer, 1)\n'
    'cli.run(lambda: print("x" * 9), "__main__")\n'
  )
  result = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
  )
  assert (result.returncode, result.stderr) == (1, '')


@pytest.mark.parametrize('program', PROGRAMS, ids=lambda path: path.name)
def test_every_program_goes_through_the_same_runner(program):
  text = program.read_text()
  start = text[text.index("__name__ == '__main__'") :]
  runner = 'command_line' if 'define_config(' in text else 'cli'
  if ' common.run(' in start:  # A benchmark; that one calls `cli.run`.
    runner = 'common'
  else:
    assert f' {runner}.run(main, __name__' in text
  assert f' {runner}.run(' in start or '  run()' in start
  assert 'argparse' not in text
  assert 'app.run(' not in text
  # The same names for the same things.
  for other in ("'out',", "'photos',", "'dir',", "'destination',"):
    assert f'define_path(\n    {other}' not in text
    assert f'DEFINE_string({other}' not in text
    assert f'DEFINE_string(\n    {other}' not in text


def test_help_of_a_tool_shows_its_flags():
  result = subprocess.run(
    [sys.executable, '-m', 'data_pipelines.tools', '--help'],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0
  assert '--output:' in result.stdout and '--data:' in result.stdout


@pytest.mark.parametrize(
  ('module', 'names'),
  [
    ('rmbg_jax.predict', ('input', 'runtime', 'precision', 'temperature')),
    ('rmbg_jax.app', ('host', 'runtime', 'threads')),
    ('rmbg_jax.evaluate', ('data', 'runtime')),
    ('rmbg_jax.label', ('input', 'runtime')),
  ],
)
@pytest.mark.parametrize('installed', [False, True])
def test_help_shows_the_flags_of_the_runtime(installed, module, names):
  command = ['-m', module]
  if installed:
    command = ['-c', f'from {module} import run; run()']
  result = commands.run(*command, '--help')
  assert result.returncode == 0
  for name in names:
    assert f'--{name}:' in result.stdout


@pytest.fixture
def paths():
  """Flags of paths, and what they take."""
  cli.define_path('test_path', '', 'One.', short='test_short')
  cli.define_paths('test_paths', [], 'Several.')
  yield flags.FLAGS
  for name in ('test_path', 'test_short', 'test_paths'):
    delattr(flags.FLAGS, name)


def test_the_home_folder_in_paths(paths, monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  paths['test_path'].parse('~/x')
  assert paths.test_path == paths.test_short == f'{tmp_path}/x'
  paths['test_short'].parse('a/~b')
  assert paths.test_path == 'a/~b'
  paths['test_paths'].parse('~,b,~/c')
  assert paths.test_paths == [str(tmp_path), 'b', f'{tmp_path}/c']
  with pytest.raises(flags.IllegalFlagValueError, match='./~no_such_user/x'):
    paths['test_path'].parse('~no_such_user/x')


@pytest.mark.parametrize('path', PROGRAMS, ids=lambda path: path.stem)
def test_commands_in_help_keep_their_lines(path):
  text = ast.get_docstring(ast.parse(path.read_text())) or ''
  assert all(len(line) <= 80 for line in text.splitlines())


def test_the_home_folder_in_a_configuration(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  (tmp_path / 'own.py').write_text(
    'from configs import default\ndef get_config():\n'
    "  config = default.get_config()\n  config.data.dir = '~/data'\n"
    '  return config\n'
  )
  result = subprocess.run(
    [sys.executable, '-m', 'rmbg_jax.main', '--config=~/own.py'],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert f'{tmp_path}/data: no such data folder' in result.stderr
  config = refiner.get_config()
  config.data.backgrounds = config.data.sharp_dir = '~/photos'
  command_line._expand_paths(config)
  assert config.data.backgrounds == config.data.sharp_dir
  assert config.data.backgrounds == f'{tmp_path}/photos'


def test_names_and_paths_of_configurations():
  resolve = command_line.resolve_names
  lite = str(command_line.CONFIGS / 'lite.py')
  assert resolve(['x', '--config=lite']) == ['x', f'--config={lite}']
  assert resolve(['x', '--config', 'lite:device', 'y']) == [
    'x',
    f'--config={lite}:device',
    'y',
  ]
  unchanged = ['x', '--config=configs/lite.py:device', '--config.name=lite']
  assert resolve(unchanged) == unchanged
  with pytest.raises(errors.UserError, match='--config=light.*one of .*lite'):
    resolve(['x', '--config=light'])


def test_a_project_with_configs_of_its_own(tmp_path):
  """Names mean this project's; its own files see its own."""
  (tmp_path / 'configs').mkdir()
  (tmp_path / 'configs/__init__.py').touch()
  (tmp_path / 'configs/default.py').write_text("raise SystemExit('theirs')")
  (tmp_path / 'own.py').write_text('from configs import default')
  environment = {**os.environ, 'PYTHONPATH': str(ROOT)}

  def run(config):
    return subprocess.run(
      [sys.executable, '-m', 'rmbg_jax.main', f'--config={config}']
      + ['--config.data.dir=absent'],
      cwd=tmp_path,
      env=environment,
      capture_output=True,
      text=True,
    ).stderr

  assert 'Error: absent: no such data folder' in run('lite')
  assert 'theirs' in run('own.py')


def test_a_folder_for_results_is_tried_and_left_as_it_was(tmp_path):
  files.check_folder(tmp_path / 'a/b', 'output')
  assert not list(tmp_path.iterdir())
  (tmp_path / 'file').touch()
  for path in (tmp_path / 'file', tmp_path / 'file/a'):
    with pytest.raises(errors.UserError) as error:
      files.check_folder(path, 'output')
    assert str(error.value).startswith(f'--output: {path} cannot be written to')


def test_two_writers_of_one_file_never_share_a_name(tmp_path, monkeypatch):
  # As in two containers, whose processes have the same number.
  monkeypatch.setattr(os, 'getpid', lambda: 7)
  path, synced = tmp_path / 'a', []
  sync = os.fsync

  def note(number):
    synced.append(os.fstat(number).st_size)
    sync(number)

  monkeypatch.setattr(os, 'fsync', note)
  with (
    files.write_atomically(path) as one,
    files.write_atomically(path) as other,
  ):
    assert one != other
    one.write_bytes(b'one')
    other.write_bytes(b'other')
  assert path.read_bytes() == b'one' and synced == [5, 3]
  assert list(tmp_path.iterdir()) == [path]

  def fail(_):
    raise OSError(errno.EIO, 'Input/output error')

  monkeypatch.setattr(os, 'fsync', fail)
  with (
    pytest.raises(OSError, match='Input/output'),
    files.write_atomically(path) as partial,
  ):
    partial.write_bytes(b'third')
  assert path.read_bytes() == b'one'
  assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_named(tmp_path):
  def fill(path):
    raise OSError(errno.ENOSPC, 'No space left on device')

  path = tmp_path / 'file'
  with pytest.raises(OSError) as error, files.write_atomically(path) as partial:
    fill(partial)
  assert str(error.value).endswith(f"device: '{path}'")
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('wrong', 'meant'),
  [
    ('train.batch_size', 'data.batch_size'),
    ('lr', 'optimizer.learning_rate'),
    ('optimizer.lr', 'optimizer.learning_rate'),
    ('data.dirr', 'data.dir'),
    ('model.encodr.name', 'model.encoder.name'),
    ('epochs', 'train.epochs'),
  ],
)
def test_misspelt_settings_get_the_nearest(wrong, meant, monkeypatch):
  message = rf'--config\.{wrong}=1: there is no .* mean --config\.{meant}\?'
  with pytest.raises(errors.UserError, match=message):
    _parse(monkeypatch, f'--config.{wrong}=1')


def test_settings_that_are_like_no_other_are_named(monkeypatch):
  for wrong in ('frobnicate', 'train.epochs.x'):
    with pytest.raises(errors.UserError, match=f'there is no setting {wrong}'):
      _parse(monkeypatch, f'--config.{wrong}=1')


def _parse(monkeypatch, setting):
  importlib.import_module('rmbg_jax.main')  # Defines --config.
  arguments = ['test', '--config=lite', setting]
  monkeypatch.setattr(sys, 'argv', arguments)  # ml_collections reads it too.
  with flagsaver.flagsaver():
    command_line._parse_with_config(arguments)


@pytest.mark.parametrize('arguments', [['--help'], ['--format=bmp'], []])
def test_flags_of_predict_wait_for_no_library(arguments):
  code = (
    'import sys\n'
    'from rmbg_jax import predict\n'
    'try:\n'
    '  predict.run()\n'
    'finally:\n'
    "  heavy = {'numpy', 'PIL', 'jax', 'openvino', 'h5py'}\n"
    "  print('imported', sorted(heavy & set(sys.modules)))\n"
  )
  result = subprocess.run(
    [sys.executable, '-c', code, *arguments], capture_output=True, text=True
  )
  assert 'imported []' in result.stdout


@pytest.mark.parametrize(
  ('command', 'flag'),
  [
    (('-m', 'rmbg_jax.export'), 'output'),
    (('-m', 'rmbg_jax.calibrate', '--data=absent'), 'output'),
    (('-m', 'data_pipelines.check', 'absent'), 'sheet'),
    (('-m', 'data_pipelines.check', 'absent'), 'json'),
    (('-m', 'data_pipelines.tools', 'plot', '--data=absent'), 'output'),
    (
      ('-m', 'scripts.contact_sheet', '--input=absent', '--results=absent'),
      'output',
    ),
    (('scripts/plot_history.py', 'absent'), 'output'),
    (('scripts/show_batch.py', '--config=small'), 'output'),
  ],
)
def test_a_file_that_is_there_is_not_replaced_unasked(command, flag, tmp_path):
  file = tmp_path / 'mine.png'
  file.write_text('of the user')
  arguments = [*command, f'--{flag}={file}']
  refused = commands.run(*arguments)
  (line,) = refused.stderr.splitlines()
  assert line.startswith(f'Error: --{flag}={file} is there already. Pass --')
  asked = commands.run(*arguments, '--overwrite')
  assert asked.returncode == 1 and 'is there already' not in asked.stderr
  assert file.read_text() == 'of the user'
