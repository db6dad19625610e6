"""TFDS sets hold what the readers read, and need no TensorFlow."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipelines.datasets import (
  dataset_csv,
  demo,
  folder,
  merging,
  published,
  sources,
  splitting,
)
from data_pipelines.io import errors
from data_pipelines.tools import writing
from tests.support import commands, published_sets

ROOT = Path(__file__).resolve().parents[2]

# In a process in which TensorFlow is not to be found, as if never installed.
HIDE = """
import sys
from importlib.machinery import PathFinder
class Hiding(PathFinder):
  @classmethod
  def find_spec(cls, name, path=None, target=None):
    if name.split('.')[0] in ('tensorflow', 'keras', 'tf_keras'):
      return None
    return super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
"""

CHECK = """
import pathlib
import grain
import numpy as np
from absl import flags
from data_pipelines.batches import loader, transforms
from data_pipelines.datasets import sources, splitting, tfds_sets

root = pathlib.Path(sys.argv[1])
flags.FLAGS.mark_as_parsed()
assert tfds_sets.build('p3m', root / 'p3m', out=root / 'tfds') == {
  'train': 6, 'p3m_500_p': 2, 'p3m_500_np': 2
}
assert tfds_sets.build('cod10k', root / 'cod', out=root / 'tfds') == {
  'train': 4, 'test': 4, 'noncam_train': 4, 'noncam_test': 4
}
assert tfds_sets.build('people', root / 'people', out=root / 'tfds') == {
  'train': 5, 'val': 2
}
tfds_sets.build('combined', root / 'all', out=root / 'tfds')

def load(name, directory, limit=0):
  return sources.load_pairs(
    name, directory, validation_share=.3, limit=limit, demo_count=1, demo_size=8
  )

def iterate(pairs):
  return loader.make_train_iterator(
    pairs,
    decode=transforms.Decode(
      (24, 24),
      allow_empty=True,
      label_weights={'gt': 1.0, 'alpha': 0.5, 'pseudo': 1.0},
    ),
    augment=transforms.Augment(
      flip=0.5, min_scale=0.5, rotate=9.0, noise=0.5, background=0.5
    ),
    batch_size=2,
    seed=1,
    read_options=grain.ReadOptions(num_threads=2, prefetch_buffer_size=2),
    sharding=loader.Sharding(),
  )

for name, place, stored_name in (
  ('p3m', 'p3m', 'p3m'),
  ('cod10k', 'cod', 'cod10k'),
  ('people', 'people', 'people'),
  ('folder', 'all', 'combined'),
):
  for limit in (0, 12 if name == 'folder' else 4):
    raw = load(name, root / place, limit)
    stored = load(f'tfds/{stored_name}', root / 'tfds', limit)
    if not limit:
      names = [[[p.name for p in part] for part in s] for s in (raw, stored)]
      assert names[0] == names[1], names
    else:
      assert sum(map(len, raw)) == sum(map(len, stored)) == limit
  raw = load(name, root / place)
  stored = load(f'tfds/{stored_name}', root / 'tfds')
  left, right = iterate(raw[0]), iterate(stored[0])
  for step in range(5):
    a, b = next(left), next(right)
    for key in a:
      np.testing.assert_array_equal(a[key], b[key])
    if step == 2:
      state = right.get_state()
  resumed = iterate(stored[0])
  resumed.set_state(state)
  next(resumed)
  np.testing.assert_array_equal(next(resumed)['image'], b['image'])
print('equal without', 'tensorflow' in sys.modules)
"""


def _combine(root):
  """A list of all photos; its own splits take in what was not published so."""
  pairs = [
    *published.COD10K.read(root / 'cod'),
    *published.P3M.read(root / 'p3m'),
    *published.PEOPLE.read(root / 'people'),
  ]
  (root / 'all').mkdir()
  written, _ = writing.prepare(
    splitting.assign_splits(merging.name_pairs(pairs), validation_share=0.2),
    out=root / 'all',
    size='',
    allow_empty=True,
    invert=(),
  )
  assert len(written) == 33


def test_stored_sets_give_the_same_batches_without_tensorflow(tmp_path):
  published_sets.make_p3m(tmp_path / 'p3m')
  published_sets.make_cod10k(tmp_path / 'cod')
  published_sets.make_people(tmp_path / 'people')
  _combine(tmp_path)
  result = subprocess.run(
    [sys.executable, '-c', HIDE + CHECK, str(tmp_path)],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert 'equal without False' in result.stdout, result.stderr[-2000:]


def _build(directory, out):
  return commands.run(
    *('-m', 'data_pipelines.tfds_sets', '--name=combined'),
    *(f'--data={directory}', f'--output={out}'),
  )


def _load(directory):
  return sources.load_pairs(
    'tfds/combined',
    directory,
    validation_share=0.2,
    limit=0,
    demo_count=1,
    demo_size=8,
  )


@pytest.mark.parametrize('split', ['val', 'test'])
def test_held_out_pairs_alone_are_not_trained_on(split, tmp_path):
  demo.make_demo(tmp_path / 'data', count=5, size=(16, 16), seed=1)
  pairs = [
    dataclasses.replace(pair, split=split)
    for pair in folder.read_folder(tmp_path / 'data')
  ]
  dataset_csv.write(tmp_path / 'data/Dataset.csv', pairs)
  assert _build(tmp_path / 'data', tmp_path / 'tfds').returncode == 0
  with pytest.raises(errors.UserError, match='No pair is left for training'):
    _load(tmp_path / 'tfds')


def test_another_set_in_the_same_place_is_refused(tmp_path):
  data, other = tmp_path / 'data', tmp_path / 'other'
  demo.make_demo(data, count=5, size=(16, 16), seed=1)
  demo.make_demo(other, count=6, size=(16, 16), seed=1)
  assert 'train: 5 pairs' in _build(data, tmp_path / 'tfds').stdout
  assert 'train: 5 pairs' in _build(data, tmp_path / 'tfds').stdout
  refused = _build(other, tmp_path / 'tfds')
  assert refused.returncode == 1
  assert 'was made of other pairs, or these have' in refused.stderr
  (mask, *_) = (data / 'Masks').iterdir()
  mask.write_bytes(mask.read_bytes())
  assert _build(data, tmp_path / 'tfds').returncode == 1
  assert sum(map(len, _load(tmp_path / 'tfds'))) == 5


def test_what_is_missing_is_named(tmp_path):
  with pytest.raises(
    FileNotFoundError, match='--name=people --data=FOLDER --output='
  ):
    sources.load_pairs(
      'tfds/people',
      tmp_path,
      validation_share=0.2,
      limit=0,
      demo_count=1,
      demo_size=8,
    )
  published_sets.make_people(tmp_path / 'people')
  next((tmp_path / 'people/masks').iterdir()).write_bytes(b'no image')
  result = commands.run(
    *('-m', 'data_pipelines.tfds_sets', '--name=people'),
    *(f'--data={tmp_path / "people"}', f'--output={tmp_path / "tfds"}'),
  )
  assert result.returncode == 1
  assert 'Error: Repair or remove these pairs' in result.stderr
  assert 'Traceback' not in result.stderr
