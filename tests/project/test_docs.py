"""Every command of the documentation is run: here, or by the test named here.

Commands that need what a test cannot have say so in a comment: `# needs ...`.
"""

import ast
import importlib
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from data_pipelines.datasets import demo
from rmbg_jax.training import settings
from tests.support import commands, published_sets

ROOT = Path(__file__).resolve().parents[2]

# In the order in which a reader would run them.
PAGES = (
  'README.md',
  'docs/datasets.md',
  'docs/training.md',
  'docs/predicting.md',
  'docs/evaluation.md',
  'docs/export.md',
  'docs/other_networks.md',
  'docs/from_keras.md',
)
OTHER_PAGES = (
  'CONTRIBUTING.md',
  'docs/app.md',
  'docs/hub.md',
  'docs/model_card.md',
  'docs/other_networks.md',
  'docs/scaling.md',
  'docs/u2net.md',
  'docs/video.md',
)
# Pages show what a network does before they say where it comes from.
FIRST = (
  'python -m rmbg_jax.main --config=configs/lite.py --config.data.dir=FOLDER',
  'python -m rmbg_jax.export --checkpoint=runs/full --output=model.h5',
)
# Their Python has a test of its own.
PYTHON_ELSEWHERE = ('docs/export.md',)


ELSEWHERE = {
  'python3 scripts/quickstart.py': (
    'commands/test_command_lines.py::'
    'test_quickstart_is_interrupted_as_by_a_terminal_and_goes_on'
  ),
  'python -m rmbg_jax.predict --list_checkpoints': (
    'weights/test_catalogue.py::test_the_command_prints_all'
  ),
  'python -m rmbg_jax.predict --input=clip.mp4': (
    'video/test_video.py::test_predict_mixes_photos_and_clips'
  ),
  'python -m rmbg_jax.predict --watch': (
    'batch/test_watch.py::test_what_comes_is_done_and_what_came_before'
  ),
  'python -m rmbg_jax.app': (
    'web/test_app.py::test_ten_uploads_at_once_equal_predict'
  ),
}
# What sets up or is this suite; the packages are compared by test_packaging.
SETUP = (
  'python3 -m venv',
  '. .venv/bin/activate',
  'pip install',
  'python3 scripts/test.py',
  '.venv/bin/ruff',
  'bash .ci/run',
  'pre-commit install',
)
# Appended to configurations: a network and a data set for seconds.
SMALL = (
  '--config.model.encoder.width=4',
  '--config.model.encoder.stage_sizes=1,1,1',
  '--config.model.encoder.weights=',
  '--config.model.bridge.filters=8',
  '--config.model.decoder.filters=8,8,8,8',
  '--config.data.size=32,32',
  '--config.data.batch_size=4',
  '--config.data.allow_empty_masks=true',
  '--config.train.epochs=1',
  '--config.train.grid_every=0',
  '--config.train.tensorboard=false',
)
SMALL_REFINER = (
  '--config.data.count=2',
  '--config.data.side=32',
  '--config.data.batch_size=2',
  '--config.data.coarse=small',
  '--config.optimizer.steps=2',
)


def read_blocks(page, language):
  """Returns the code blocks of a page."""
  pattern = rf'^```{language}\n(.*?)^```'
  return re.findall(pattern, (ROOT / page).read_text(), re.M | re.S)


def read_commands(page):
  """Returns the commands of a page, without those that need something."""
  lines = []
  for block in read_blocks(page, 'bash'):
    if block.removeprefix('#!/bin/bash\n').startswith('# needs'):
      continue
    lines += block.replace('\\\n', ' ').splitlines()
  commands = []
  for line in lines:
    command, _, comment = line.partition('#')
    if command.strip() and not comment.strip().startswith('needs'):
      commands.append(' '.join(command.split()))
  return commands


@pytest.mark.parametrize('page', sorted({*PAGES, *OTHER_PAGES}))
def test_trainings_start_from_weights_of_one_kind(page):
  """`SMALL` would hide it: a configuration may have an encoder's weights."""
  for block in read_blocks(page, 'bash'):
    for command in block.replace('\\\n', ' ').splitlines():
      name = re.search(r'--config=(?:configs/)?(\w+)(?:\.py)?(?= |$)', command)
      if 'rmbg_jax.main' not in command or not name:
        continue
      config = importlib.import_module(f'configs.{name[1]}').get_config()
      for key, value in re.findall(r'--config\.([\w.]+)=(\S*)', command):
        if key in ('init_from', 'model.encoder.weights'):
          config.update_from_flattened_dict({key: value})
      settings.check_config(config)


@pytest.fixture(scope='module')
def world(tmp_path_factory):
  """A folder with everything that the documentation speaks of."""
  world = tmp_path_factory.mktemp('world')
  for name in ('configs', 'scripts', 'docs'):
    (world / name).symlink_to(ROOT / name, target_is_directory=True)
  for name in ('FOLDER', 'DIR', 'ALPHAS'):
    demo.make_demo(world / name, count=10, size=(48, 48), seed=1)
    (world / name / 'Dataset.csv').unlink()  # As a folder of one's own.
  shutil.copytree(world / 'FOLDER/Images', world / 'PHOTOS')
  for name in ('MASKS', 'OTHER_MASKS'):
    shutil.copytree(world / 'FOLDER/Masks', world / name)
  for kind in ('Image', 'Mask'):
    source = world / f'FOLDER/{kind}s'
    shutil.copytree(source, world / f'DUTS-TE/DUTS-TE-{kind}')
  published_sets.make_p3m(world / 'P3M-10k')
  published_sets.make_cod10k(world / 'COD10K-v3')
  published_sets.make_people(world / 'people_segmentation')
  photos = sorted((world / 'PHOTOS').iterdir())
  for name in ('photo.jpg', 'a.jpg', 'b.png'):
    with Image.open(photos[0]) as photo:
      photo.save(world / name)
  return world


def run(command, world):
  """Runs a command in a process of its own; returns what it prints."""
  # Only the tests may need these, and only evaluation the last.
  hidden = ['keras', 'tensorflow', 'tf_keras']
  if 'rmbg_jax.evaluate' not in command:
    hidden.append('py_sod_metrics')
  result = commands.run(*command, cwd=world, hidden=hidden)
  output = result.stdout + result.stderr
  assert result.returncode == 0, f'{shlex.join(map(str, command))}\n{output}'
  return output


def test_commands_run(world):
  """Without TensorFlow and Keras, in the order of the pages.

  Slow: every command is a process, and some of them train.
  """
  done = set()
  for page in PAGES:
    for command in sorted(read_commands(page), key=lambda c: c not in FIRST):
      if command in done or command.startswith((*ELSEWHERE, *SETUP)):
        continue
      done.add(command)
      program, *arguments = shlex.split(command)
      assert program == 'python', command
      if 'rmbg_jax.train_refiner' in command:
        arguments += SMALL_REFINER
      elif '--config=' in command:
        arguments += SMALL
        if '--config.init_from=' not in command:
          arguments.append('--config.init_from=')
      if 'rmbg_jax.evaluate' in command and '--compare=' not in command:
        arguments.append('--processes=1')  # Others take seconds to start.
      run(arguments, world)
    for block in read_blocks(page, 'python'):
      if page not in PYTHON_ELSEWHERE:
        run(['-c', block], world)
  programs = {command.split()[1:3][-1] for command in done}
  assert {'rmbg_jax.main', 'rmbg_jax.predict', 'rmbg_jax.evaluate'} <= programs
  assert len(list((world / 'OUT/cutout').iterdir())) == 10
  assert set(FIRST) <= done
  for name in ('log.csv', 'log.jsonl'):
    assert (world / 'runs/lite' / name).exists()
  assert (world / 'cutout.png').exists()


def may_skip(source, function):
  """Whether a test, its fixtures or its whole file can be skipped."""
  tree = ast.parse(source)
  functions = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
  others = [node for node in tree.body if node not in functions.values()]
  wanted, seen = [function], set()
  while wanted:
    name = wanted.pop()
    if name in functions and name not in seen:
      seen.add(name)
      wanted += [argument.arg for argument in functions[name].args.args]
  parts = [*others, *(functions[name] for name in seen)]
  return any('skip' in ast.unparse(part) for part in parts)


def test_a_test_that_may_be_skipped_covers_nothing():
  always = 'def test(thing):\n  use(thing)\n'
  assert not may_skip(always, 'test')
  fixture = 'def thing():\n  pytest.skip("no")\n'
  assert may_skip(always + fixture, 'test')
  assert not may_skip(always + fixture.replace('thing', 'other'), 'test')
  assert may_skip("pytest.importorskip('x')\n" + always, 'test')
  assert may_skip("@pytest.mark.skipif(True, reason='')\n" + always, 'test')


def test_the_others_are_tested_elsewhere():
  for page in (*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md')):
    name = page.relative_to(ROOT).as_posix()
    assert name in (*PAGES, *OTHER_PAGES) or not read_blocks(name, 'bash')
  for page in (*PAGES, *OTHER_PAGES):
    for command in read_commands(page):
      if command.startswith(SETUP):
        continue
      tests = [t for start, t in ELSEWHERE.items() if command.startswith(start)]
      assert tests or page in PAGES, f'{page}: {command}'
      for name in tests:
        file, _, function = name.partition('::')
        source = (ROOT / 'tests' / file).read_text()
        assert f'def {function}(' in source
        assert not may_skip(source, function), f'{name} may be skipped'


def test_extras_exist():
  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
  for page in (ROOT / 'README.md', *(ROOT / 'docs').glob('*.md')):
    for extras in re.findall(
      r'(?:rmbg-u2net-jax|\.)\[([a-z,0-9]+)\]', page.read_text()
    ):
      assert set(extras.split(',')) <= set(project['optional-dependencies'])


def test_links_lead_somewhere():
  for page in (*ROOT.glob('*.md'), *(ROOT / 'docs').glob('*.md')):
    for target in re.findall(r'\]\(([^)#\s]+)[^)]*\)', page.read_text()):
      if not target.startswith('http'):
        assert (page.parent / target).exists(), f'{page.name}: {target}'
