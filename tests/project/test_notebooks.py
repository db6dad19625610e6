"""The notebooks, run from top to bottom as Jupyter does."""

import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import nbclient
import nbformat
import pytest
from PIL import Image

from tests.support import helpers

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / 'notebooks').glob('*.ipynb'))


@pytest.fixture
def checkout(tmp_path):
  """A checkout in which notebooks may write."""
  for name in ('configs', 'data_pipelines', 'docs', 'rmbg_jax', 'scripts'):
    (tmp_path / name).symlink_to(ROOT / name, target_is_directory=True)
  (tmp_path / 'notebooks').mkdir()
  return tmp_path


def _execute(name, checkout, **parameters):
  """Runs a notebook with other parameters; returns what it shows."""
  notebook = nbformat.read(ROOT / f'notebooks/{name}.ipynb', as_version=4)
  (index,) = (
    index
    for index, cell in enumerate(notebook.cells)
    if 'parameters' in cell.metadata.get('tags', ())
  )
  lines = [f'{key} = {value!r}' for key, value in parameters.items()]
  for key in parameters:  # Only what the notebook has can be set.
    assert f'\n{key} = ' in notebook.cells[index].source
  cell = nbformat.v4.new_code_cell('\n'.join(lines))
  notebook.cells.insert(index + 1, cell)
  nbclient.NotebookClient(
    notebook,
    timeout=300,
    resources={'metadata': {'path': str(checkout / 'notebooks')}},
  ).execute()
  outputs = [
    output for cell in notebook.cells for output in cell.get('outputs', ())
  ]
  words = ''.join(output.get('text', '') for output in outputs)
  assert 'Error' not in words and 'Warning' not in words, words
  shown = [output.data for output in outputs if 'data' in output]
  return words, shown


def test_remove_background(checkout):
  photos = checkout / 'my photos'
  photos.mkdir()
  Image.new('RGB', (50, 40), 'red').save(photos / 'a.png')
  Image.new('RGB', (40, 50), 'blue').save(photos / 'b.jpg')
  (photos / 'c.jpg').write_bytes(b'no photo')
  words, shown = _execute('remove_background', checkout, PHOTOS=str(photos))
  assert '2 of 3 photos done' in words
  assert f'Failed: {photos / "c.jpg"}' in words
  for name, size in (('a', (50, 40)), ('b', (40, 50))):
    with Image.open(checkout / f'runs/cutouts/cutout/{name}.png') as cutout:
      assert (cutout.mode, cutout.size) == ('RGBA', size)
  assert (checkout / 'runs/cutouts.zip').exists()
  # A photo of the project in the third cell, and the sheet of all.
  assert sum('image/png' in data for data in shown) == 2


def test_train_goes_on_after_a_disconnect(checkout):
  small = (
    '--config.model.encoder.weights= --config.model.encoder.width=4 '
    '--config.model.encoder.stage_sizes=1,1,1 --config.data.demo.count=20 '
    '--config.model.bridge.filters=8 --config.model.decoder.filters=8,8,8,8'
  )
  logs = []
  for epochs in (1, 2):
    _, shown = _execute(
      'train',
      checkout,
      CONFIG='configs/demo.py',
      QUICK='',
      WORKDIR='runs/my sample',
      OPTIONS=f'{small} --config.train.epochs={epochs}',
    )
    assert sum('image/png' in data for data in shown) == 2
    logs.append((checkout / 'runs/my sample/log.csv').read_text().splitlines())
  assert len(logs[0]) == 2
  assert len(logs[1]) == 3
  assert logs[1][:2] == logs[0]


def test_evaluate(checkout):
  _, shown = _execute(
    'evaluate',
    checkout,
    OUTPUT='runs/my evaluation',
    OPTIONS='--metrics=saliency --gallery=1 --processes=1',
  )
  (table,) = (
    data['text/markdown'] for data in shown if 'text/markdown' in data
  )
  assert '| small ' in table
  assert sum('image/png' in data for data in shown) == 1
  assert sum('data:image' in data.get('text/html', '') for data in shown) == 1


def test_from_keras(checkout):
  model = checkout / 'my model.h5'
  release = checkout / 'tiny.safetensors'
  helpers.save_random_release(release)
  subprocess.run(
    [sys.executable, '-m', 'rmbg_jax.export']
    + [f'--checkpoint={release}', f'--output={model}'],
    cwd=ROOT,
    check=True,
  )
  photos = checkout / 'photos'
  photos.mkdir()
  helpers.make_photo((50, 40)).save(photos / 'a.png')
  _, shown = _execute(
    'from_keras', checkout, MODEL=str(model), PHOTOS=str(photos)
  )
  assert sum('image/png' in data for data in shown) == 1
  assert (checkout / 'runs/from_keras/back.h5').exists()
  # Again, now with the model that the notebook made before.
  (checkout / 'runs/model.h5').touch()
  _execute('from_keras', checkout, PHOTOS=str(photos))


@pytest.mark.parametrize('name', NAMES)
def test_after_a_restart_in_a_folder_of_other_things(
  name, tmp_path, monkeypatch
):
  notebook = nbformat.read(ROOT / f'notebooks/{name}.ipynb', as_version=4)
  (tmp_path / 'requirements.txt').touch()
  (tmp_path / 'rmbg-u2net-jax').mkdir()
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  commands = []
  monkeypatch.setattr(
    subprocess, 'run', lambda command, **_: commands.append(command)
  )
  with warnings.catch_warnings():
    exec(notebook.cells[1].source, {})
  (install,) = commands
  assert install[1:4] == ['-m', 'pip', 'install']
  assert Path.cwd() == tmp_path / 'rmbg-u2net-jax'


@pytest.mark.parametrize('name', NAMES)
def test_no_outputs_and_one_address(name):
  notebook = nbformat.read(ROOT / f'notebooks/{name}.ipynb', as_version=4)
  assert not [c for c in notebook.cells if c.get('outputs')]
  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
  address = project['urls']['Repository']
  sources = [cell.source for cell in notebook.cells]
  assert f'url = {address!r}' in sources[1]
  repository = address.removeprefix('https://github.com/')
  assert not any(re.search('(from|import) tests', text) for text in sources)
  assert f'/github/{repository}/blob/main/notebooks/{name}.ipynb' in sources[0]
