"""What `pip install` gives: the wheel, its commands and its extras."""

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from PIL import Image

from tests.support import helpers

ROOT = Path(__file__).resolve().parents[2]

# What only training, evaluation and development need.
NOT_FOR_PREDICTION = (
  'av',
  'cv2',
  'gradio',
  'grain',
  'keras',
  'matplotlib',
  'ml_collections',
  'onnx',
  'pandas',
  'py_sod_metrics',
  'pymatting',
  'tensorboardX',
  'tensorflow',
  'tensorflow_datasets',
  'watchfiles',
)


@pytest.fixture(scope='module')
def dist(tmp_path_factory):
  """The sdist, and the wheel that is built from it."""
  folder = tmp_path_factory.mktemp('dist')
  subprocess.run(
    [
      sys.executable,
      '-m',
      'build',
      '--no-isolation',
      f'--outdir={folder}',
      ROOT,
    ],
    check=True,
    capture_output=True,
    cwd=folder,
  )
  return folder


@pytest.fixture(scope='module')
def installed(dist, tmp_path_factory):
  """A folder with what the wheel installs."""
  folder = tmp_path_factory.mktemp('installed')
  (wheel,) = dist.glob('*.whl')
  subprocess.run(
    [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps']
    + ['--disable-pip-version-check', f'--target={folder}', wheel],
    check=True,
  )
  # Python runs this at its start: the checkout may be installed as well.
  (folder / 'sitecustomize.py').write_text(
    'import sys\n'
    "sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f)]"
  )
  return folder


def _run(installed, *command, check=True, cwd=None):
  """Runs the installed project from another folder than the checkout's."""
  result = subprocess.run(
    [sys.executable, *map(str, command)],
    cwd=cwd or installed,
    env={**os.environ, 'PYTHONPATH': str(installed)},
    capture_output=True,
    text=True,
  )
  if check:
    assert result.returncode == 0, result.stdout + result.stderr
  return result


def test_wheel_and_sdist_are_whole(dist):
  (wheel,) = dist.glob('*.whl')
  names = set(zipfile.ZipFile(wheel).namelist())
  for package, place in (
    ('rmbg_jax', ''),
    ('data_pipelines', 'rmbg_jax/'),
    ('configs', 'rmbg_jax/'),
  ):
    for path in (ROOT / package).rglob('*.py'):
      assert place + path.relative_to(ROOT).as_posix() in names
  # Other projects have packages of such names as `configs` too.
  folders = {name.partition('/')[0] for name in names}
  assert {name for name in folders if '.dist-info' not in name} == {'rmbg_jax'}
  for path in (ROOT / 'rmbg_jax/weights/released').iterdir():
    assert path.relative_to(ROOT).as_posix() in names
  assert not [name for name in names if name.startswith(('tests', 'scripts'))]
  (sdist,) = dist.glob('*.tar.gz')
  with tarfile.open(sdist) as file:
    members = {name.partition('/')[2] for name in file.getnames()}
  for path in ('tests/conftest.py', 'scripts/test.py', 'docs/design.md'):
    assert path in members
  assert 'requirements-dev.txt' in members


def test_commands_predict_without_what_training_needs(installed, tmp_path):
  photo = tmp_path / 'photo.png'
  helpers.make_photo((40, 30)).save(photo)
  blocked = '\n'.join(
    f'sys.modules[{name!r}] = None' for name in NOT_FOR_PREDICTION
  )
  code = (
    f'import sys\n{blocked}\nimport rmbg_jax\nprint(rmbg_jax.__file__)\n'
    f'from rmbg_jax import predict\npredict.run()'
  )
  arguments = (f'--input={photo}', f'--output={tmp_path / "out"}')
  result = _run(installed, '-c', code, *arguments)
  assert str(installed) in result.stdout
  with Image.open(tmp_path / 'out/cutout/photo.png') as cutout:
    assert (cutout.mode, cutout.size) == ('RGBA', (40, 30))
  code = code.replace('rmbg_jax import predict', 'rmbg_jax import main')
  wrong = _run(installed, '-c', code, '--config=demo', check=False)
  assert wrong.returncode == 1
  assert "pip install 'rmbg-u2net-jax[train]'" in wrong.stderr
  assert 'Traceback' not in wrong.stderr


def test_installed_configurations_go_by_name(installed):
  train = installed / 'bin/rmbg-train'
  wrong = _run(
    installed, train, '--config=full', '--config.data.dir=absent', check=False
  )
  assert 'Error: absent: no such data folder' in wrong.stderr
  wrong = _run(installed, train, '--config=ful', check=False)
  assert 'Error: --config=ful: no such configuration' in wrong.stderr
  for name in ('rmbg-app', 'rmbg-evaluate', 'rmbg-export', 'rmbg-predict'):
    assert (
      '--checkpoint'
      in _run(installed, installed / 'bin' / name, '--help').stdout
    )


def test_a_project_with_packages_of_the_same_names(installed, tmp_path):
  for name in ('configs', 'data_pipelines'):
    (tmp_path / name).mkdir()
    (tmp_path / name / '__init__.py').write_text("raise SystemExit('theirs')")
  train = ('-m', 'rmbg_jax.main', '--config=lite', '--config.data.dir=absent')
  wrong = _run(installed, *train, check=False, cwd=tmp_path)
  assert 'Error: absent: no such data folder' in wrong.stderr
  tools = ('-m', 'rmbg_jax.data_pipelines.tools', '--help')
  assert '--data:' in _run(installed, *tools, cwd=tmp_path).stdout


def test_the_lists_of_requirements_agree():
  def read(name):
    lines = (ROOT / name).read_text().splitlines()
    lines = [line.partition('#')[0].strip() for line in lines]
    return {str(Requirement(line)) for line in lines if line[:1].isalpha()}

  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
  extras = {
    name: {str(Requirement(line)) for line in lines}
    for name, lines in project['optional-dependencies'].items()
  }
  assert extras.pop('train') == read('requirements.txt')
  # One extra has them all, but those of who writes the documentation.
  combined = [Requirement(line) for line in extras.pop('all')]
  assert {line.name for line in combined} == {project['name']}
  named = {extra for line in combined for extra in line.extras}
  missing = extras.keys() - named - {'docs'}
  # The page brings them.
  assert all(extras[name] <= extras['app'] for name in missing - {'train'})
  # What the tests use of the other extras, they have in the same versions.
  developed = {
    Requirement(line).name: line for line in read('requirements-dev.txt')
  }
  for lines in extras.values():
    for line in lines:
      name = Requirement(line).name
      assert developed.get(name, line) == line


@pytest.mark.parametrize('whose', ['packages', 'tests'])
def test_what_is_imported_is_declared(whose, tmp_path):
  """Not by way of other packages alone, which may drop it."""
  deptry = [sys.executable, '-m', 'deptry', '--no-ansi']
  if whose == 'packages':
    command = [*deptry, 'rmbg_jax', 'data_pipelines', 'configs']
  else:
    # pyproject.toml has the packages' requirements, these are the tests'.
    config = tmp_path / 'pyproject.toml'
    config.touch()
    names = ('-dev', '', '-predict')
    files = ','.join(f'requirements{name}.txt' for name in names)
    command = [*deptry, '.', f'--config={config}', '--ignore=DEP002']
    command += [f'--requirements-files={files}', '--ignore-notebooks']
    command += [r'--exclude=\.venv|build|runs']
    # PyTorch is used where it is; the scripts' own modules are beside them.
    command += ['--per-rule-ignores=DEP001=torch|kagglehub|gdown']
    names = ('bootstrap', 'build_release', 'quickstart', 'scripts', 'tests')
    for name in (*names, 'rmbg_jax', 'data_pipelines', 'configs'):
      command.append(f'--known-first-party={name}')
  result = subprocess.run(
    command, cwd=ROOT, capture_output=True, text=True, timeout=120
  )
  assert not result.returncode, result.stderr
