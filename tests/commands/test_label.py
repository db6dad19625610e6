"""Photos without masks become a data set, where networks agree."""

import csv
import os

import numpy as np
import pytest
from PIL import Image

from data_pipelines.datasets import folder
from data_pipelines.io import images
from tests.support import colour_network, commands

# What foreground has more of than background: channels of BGR.
CHANNELS = {'red': (2, 1), 'red_too': (2, 0), 'green': (1, 2)}


@pytest.fixture(scope='module')
def networks(tmp_path_factory):
  directory = tmp_path_factory.mktemp('networks')
  paths = {name: directory / f'{name}.safetensors' for name in CHANNELS}
  for name, channels in CHANNELS.items():
    colour_network.save_release(paths[name], channels)
  return paths


@pytest.fixture
def photos(tmp_path):
  directory = tmp_path / 'photos'
  (directory / 'deep').mkdir(parents=True)
  colour_network.draw().save(directory / 'deep/box.png')
  large = colour_network.draw((600, 400), box=(100, 100, 500, 300))
  large.save(directory / 'large.jpg')
  Image.new('RGB', (60, 60), (10, 20, 200)).save(directory / 'nothing.png')
  return directory


def _run(photos, output, *checkpoints, code=0, least=0.8, category=''):
  result = commands.run(
    *('-m', 'rmbg_jax.label', f'--input={photos}', f'--output={output}'),
    *('--side=256', '--source=mine', f'--agreement={least}'),
    f'--category={category}',
    f'--checkpoint={",".join(map(str, checkpoints))}',
  )
  assert result.returncode == code, result.stdout + result.stderr
  assert 'Traceback' not in result.stderr
  return result.stdout + result.stderr


def _read_table(output):
  with (output / 'labels.csv').open() as file:
    return {row['photo']: row for row in csv.DictReader(file)}


def test_photos_on_which_all_agree_are_a_data_set(networks, photos, tmp_path):
  output = tmp_path / 'out'
  output.mkdir()
  (output / '.DS_Store').touch()  # As a file manager makes it.
  both = networks['red'], networks['red_too']
  assert '2 of 3 photos are labelled' in _run(photos, output, *both)
  pairs = folder.read_folder(output)
  assert [pair.name for pair in pairs] == ['deep/box.jpg', 'large.jpg']
  for pair, size, box in zip(
    pairs,
    [(150, 100), (256, 171)],
    [(40, 30, 100, 70), (43, 43, 213, 128)],
    strict=True,
  ):
    assert (pair.label, pair.source) == ('pseudo', 'mine')
    photo, mask = map(images.open_image, (pair.image_path, pair.mask_path))
    assert photo.size == mask.size == size
    truth = np.asarray(colour_network.draw(size, box=box))[..., 0] > 127
    found = np.asarray(mask) > 127
    assert (truth & found).sum() / (truth | found).sum() > 0.9
  row = _read_table(output)[str(photos / 'nothing.png')]
  assert (row['kept'], float(row['area'])) == ('', 0)
  # Again: what is done stays as it is, and what failed or is new is done.
  (photos / 'broken.png').write_bytes(b'no picture')
  before = (output / 'Masks/large.png').stat().st_mtime_ns
  said = _run(photos, output, *both, code=1)
  assert '2 of 4 photos' in said and 'broken.png: ' in said
  colour_network.draw((90, 60)).save(photos / 'broken.png')
  assert '3 of 4 photos' in _run(photos, output, *both)
  assert (output / 'Masks/large.png').stat().st_mtime_ns == before
  # A data set is of one kind of mask.
  said = _run(photos, output, networks['red'], networks['green'], code=1)
  assert 'was labelled with' in said and 'or another --output' in said


def test_photos_of_several_folders_and_other_limits(networks, photos, tmp_path):
  output, other = tmp_path / 'out', tmp_path / 'other'
  both = networks['red'], networks['red_too']
  _run(photos, output, *both)
  before = (output / 'Images/large.jpg').read_bytes()
  other.mkdir()
  colour_network.draw((90, 60)).save(other / 'large.png')
  assert '3 of 4 photos' in _run(other, output, *both, category='cat')
  assert (output / 'Images/large.jpg').read_bytes() == before
  assert {p.name: p.category for p in folder.read_folder(output)} == {
    'deep/box.jpg': '',
    'large.jpg': '',
    'large_2.jpg': 'cat',
  }
  # The same folder, however it is written.
  assert '3 of 4 photos' in _run(os.path.relpath(photos), output, *both)
  # What has been labelled is held against another limit, too.
  row = _read_table(output)[str(photos / 'large.jpg')]
  least = float(row['agreement']) + 0.0001
  assert '0 of 4 photos' in _run(photos, output, *both, least=least)
  assert '2 of 4 photos' in _run(photos, output, *both)
  assert '3 of 4 photos' in _run(other, output, *both)


def test_the_output_may_be_below_the_input(networks, photos):
  both = networks['red'], networks['red_too']
  for _ in range(2):
    assert '2 of 3 photos' in _run(photos, photos / 'labelled', *both)


def test_photos_on_which_one_differs_are_left_out(networks, photos, tmp_path):
  said = _run(photos, tmp_path / 'out', *networks.values())
  assert '0 of 3 photos are labelled' in said
  rows = _read_table(tmp_path / 'out').values()
  assert [float(row['agreement']) for row in rows] == [0, 0, 0]


def test_a_data_set_of_somebody_is_not_replaced(networks, photos, tmp_path):
  output = tmp_path / 'out'
  output.mkdir()
  (output / 'Dataset.csv').write_text('mine')
  both = networks['red'], networks['red_too']
  assert 'not made. Pass another folder' in _run(photos, output, *both, code=1)
  assert (output / 'Dataset.csv').read_text() == 'mine'
  (output / 'Dataset.csv').rename(output / 'Images')
  assert 'not made. Pass another folder' in _run(photos, output, *both, code=1)
  assert [path.name for path in output.iterdir()] == ['Images']
  said = _run(photos, tmp_path / 'other', networks['red'], code=1)
  assert 'pass two or more' in said
