"""The four tools, as a user runs them."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.datasets import folder, merging, records
from data_pipelines.io import errors, images
from data_pipelines.tools import writing
from tests.support import commands, published_sets


@pytest.fixture
def directory(tmp_path):
  """Pairs whose photos and masks can be told to belong together."""
  published_sets.make_people(tmp_path / 'mine', train=5, val=0)
  return tmp_path / 'mine'


def _run(*arguments):
  return commands.run('-m', 'data_pipelines.tools', *arguments)


def _contents(directory):
  return {
    (pair.image_path.read_bytes(), pair.mask_path.read_bytes())
    for pair in folder.read_folder(directory)
  }


def test_rename_keeps_pairs_together(directory):
  before = _contents(directory)
  assert len(before) == 5
  result = _run('rename', f'--data={directory}', '--category=human')
  assert result.stdout == 'rename: 5 pairs\n', result.stderr
  assert _contents(directory) == before
  names = [pair.name for pair in folder.read_folder(directory)]
  assert names == [f'human_{number:05d}.jpg' for number in range(1, 6)]
  again = _run('rename', f'--data={directory}', '--category=human')
  assert again.returncode == 0
  assert _contents(directory) == before


def test_create_csv_has_rows(directory):
  _run('rename', f'--data={directory}', '--category=human')
  assert _run('create_csv', f'--data={directory}').returncode == 0
  with (directory / 'Dataset.csv').open(newline='') as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 5
  assert rows[0]['Image Name'] == 'human_00001.jpg'
  assert rows[0]['Category'] == 'human'
  assert rows[0]['Image Path'] == 'images/human_00001.jpg'
  assert rows[0]['Mask Path'] == 'masks/human_00001.png'
  assert len(folder.read_folder(directory)) == 5
  assert _read_categories(directory) == ['human'] * 5
  for tool in ('create_csv', 'rename'):
    refused = _run(tool, f'--data={directory}', '--category=x')
    assert refused.returncode == 1
    assert 'Dataset.csv exists already' in refused.stderr
    assert 'Traceback' not in refused.stderr


def test_create_csv_takes_categories_from_names(directory):
  stems = ('cat', 'dog_1', 'dog_of_mine', '_odd', 'my cat')
  for stem, pair in zip(stems, folder.read_folder(directory), strict=True):
    for path in (pair.image_path, pair.mask_path):
      path.rename(path.with_name(f'{stem}{path.suffix}'))
  assert _run('create_csv', f'--data={directory}').returncode == 0
  assert {
    pair.image_path.stem: pair.category
    for pair in folder.read_folder(directory)
  } == {
    'cat': '',
    'dog_1': 'dog',
    'dog_of_mine': 'dog',
    '_odd': '',
    'my cat': '',
  }
  (directory / 'Dataset.csv').unlink()
  done = _run('create_csv', f'--data={directory}', '--category=pet')
  assert done.returncode == 0
  assert _read_categories(directory) == ['pet'] * 5


def _read_categories(directory):
  return [pair.category for pair in folder.read_folder(directory)]


def test_resize_and_plot(directory, tmp_path):
  result = _run(
    'resize',
    f'--data={directory}',
    '--size=16x24',
    f'--output={tmp_path / "small"}',
  )
  assert result.stdout == 'resize: 5 pairs\n', result.stderr
  resized = folder.read_folder(tmp_path / 'small')
  assert [p.name for p in resized] == [
    p.name for p in folder.read_folder(directory)
  ]
  assert {images.read_size(p.image_path) for p in resized} == {(16, 24)}
  # Another folder's pairs of the same names are not taken for these.
  published_sets.make_people(tmp_path / 'other', train=5, val=0)
  options = '--size=16x24', f'--output={tmp_path / "small"}'
  refused = _run('resize', f'--data={tmp_path / "other"}', *options)
  assert refused.returncode == 1
  assert f"'folder': '{directory}'" in refused.stderr
  assert _run('resize', f'--data={directory}', *options).returncode == 0
  picture = tmp_path / 'pairs.png'
  result = _run(
    'plot', f'--data={directory}', f'--output={picture}', '--count=4'
  )
  assert result.stdout == 'plot: 4 pairs\n', result.stderr
  values = np.asarray(Image.open(picture))
  assert values.shape[1] > 6 * 200 and values.std() > 10


def test_misuse_is_explained(directory):
  unknown = _run('fly', f'--data={directory}')
  assert unknown.returncode
  assert 'rename, resize, create_csv, plot' in unknown.stderr
  assert (
    'rename needs --category' in _run('rename', f'--data={directory}').stderr
  )
  slash = _run('rename', f'--data={directory}', '--category=a/b')
  assert slash.returncode == 1
  assert 'Error: --category=a/b: names of files begin' in slash.stderr
  with pytest.raises(errors.UserError, match='--size=5²: pass the longest'):
    writing.prepare([], out=directory, size='5²', allow_empty=True, invert=())
  absent = _run('create_csv', '--data=/absent')
  assert absent.returncode == 1
  assert 'Error: /absent: no such data folder' in absent.stderr


def test_equal_stems_get_names_of_their_own(tmp_path):
  pairs = [
    records.Pair(
      name=f'{place}/x.jpg',
      category='',
      image_path=tmp_path / place / stem,
      mask_path=tmp_path / place / 'x.png',
      source='mine',
    )
    for place, stem in (('a', 'x.jpg'), ('b', 'X.jpeg'), ('c', 'x.tif'))
  ]
  names = [pair.name for pair in merging.name_pairs(pairs)]
  assert len({name.lower().rpartition('.')[0] for name in names}) == 3
  assert [Path(name).suffix for name in sorted(names)] == [
    '.jpg',
    '.jpg',
    '.png',
  ]
