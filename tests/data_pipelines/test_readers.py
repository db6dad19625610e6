"""The published data sets are read from their own trees."""

import collections
import os

import pytest

from data_pipelines.datasets import published, records
from tests.support import published_sets

READERS = {
  'p3m': (published_sets.make_p3m, published.P3M.read),
  'cod10k': (published_sets.make_cod10k, published.COD10K.read),
  'people': (published_sets.make_people, published.PEOPLE.read),
}


def _count(pairs):
  return dict(
    collections.Counter((p.source, p.split, p.category) for p in pairs)
  )


def test_p3m(tmp_path):
  published_sets.make_p3m(tmp_path)
  pairs = published.P3M.read(tmp_path)
  assert _count(pairs) == {
    ('p3m-10k', 'train', 'human'): 6,
    ('p3m-500-p', 'test', 'human'): 2,
    ('p3m-500-np', 'test', 'human'): 2,
  }
  assert {pair.label for pair in pairs} == {'alpha'}
  assert sum(published.P3M.counts.values()) == 10421
  private = [pair for pair in pairs if pair.source == 'p3m-500-np']
  assert private[0].image_path.parent.name == 'original_image'


def test_cod10k(tmp_path):
  published_sets.make_cod10k(tmp_path)
  pairs = published.COD10K.read(tmp_path)
  assert _count(pairs) == {
    ('cod10k', 'train', 'aquatic'): 4,
    ('cod10k', 'test', 'aquatic'): 4,
    ('cod10k-noncam', 'train', 'background'): 2,
    ('cod10k-noncam', 'test', 'background'): 2,
    ('cod10k-noncam', 'train', 'flying'): 2,
    ('cod10k-noncam', 'test', 'flying'): 2,
  }
  assert sum(published.COD10K.counts.values()) == 10000
  stray = tmp_path / 'Test/Image/COD10K-Camel-1.jpg'
  stray.touch()
  (tmp_path / 'Test/GT_Object/COD10K-Camel-1.png').touch()
  with pytest.raises(ValueError, match=r'Camel-1\.jpg: the name is not'):
    published.COD10K.read(tmp_path)


def test_lists_of_people_have_a_name_a_line(tmp_path):
  published_sets.make_people(tmp_path)
  names = ['a\u2028b', 'a\x85b', os.fsdecode(b'caf\xe9')]
  with (tmp_path / 'segmentation/val.txt').open('ab') as file:
    for name in names:
      file.write(os.fsencode(name) + b'\r\n')
  for place, suffix in (('images', '.jpg'), ('masks', '.png')):
    first = next((tmp_path / place).iterdir())
    for name in names:
      (tmp_path / place / f'{name}{suffix}').write_bytes(first.read_bytes())
  pairs = published.PEOPLE.read(tmp_path)
  validation = [p.image_path.stem for p in pairs if p.split == 'val']
  assert set(names) < set(validation) and len(validation) == 5


def test_people(tmp_path):
  published_sets.make_people(tmp_path)
  pairs = published.PEOPLE.read(tmp_path)
  assert _count(pairs) == {
    ('people', 'train', 'human'): 5,
    ('people', 'val', 'human'): 2,
  }
  assert sum(published.PEOPLE.counts.values()) == 5678
  (tmp_path / 'segmentation/val.txt').write_text('ache-adult-depression-5006\n')
  with pytest.raises(ValueError, match=r'5005\.jpg is in 0 of the lists'):
    published.PEOPLE.read(tmp_path)
  (tmp_path / 'segmentation/val.txt').write_text('ache\n')
  with pytest.raises(ValueError, match=r'ache, named in val\.txt, is no pair'):
    published.PEOPLE.read(tmp_path)
  (tmp_path / 'segmentation/val.txt').unlink()
  with pytest.raises(ValueError, match=r'val\.txt is missing. Expected'):
    published.PEOPLE.read(tmp_path)


@pytest.mark.parametrize('name', READERS)
def test_nested_trees_are_found_and_others_refused(name, tmp_path):
  make, read = READERS[name]
  make(tmp_path / 'archive' / 'P3M-10k' / 'P3M-10k')
  pairs = read(tmp_path / 'archive')
  assert pairs
  assert [pair.name for pair in pairs] == sorted(pair.name for pair in pairs)
  for pair in pairs:
    assert pair.image_path.stem == pair.mask_path.stem
    assert pair.image_path.is_file() and pair.mask_path.is_file()
    assert pair.split in records.SPLITS
  other = tmp_path / 'other'
  (other / 'somewhere').mkdir(parents=True)
  with pytest.raises(ValueError, match=r'not the tree .* Expected\n\w'):
    read(other)
  with pytest.raises(FileNotFoundError, match='absent'):
    read(tmp_path / 'absent')


@pytest.mark.parametrize('name', READERS)
def test_orphans_are_errors_or_collected(name, tmp_path):
  make, read = READERS[name]
  make(tmp_path)
  lost = read(tmp_path)[0]
  lost.mask_path.unlink()
  with pytest.raises(ValueError, match=f'{lost.name} has no mask in'):
    read(tmp_path)
  problems = []
  pairs = read(tmp_path, problems)
  assert lost.name not in {pair.name for pair in pairs}
  assert any(lost.name in problem for problem in problems)


def test_a_part_is_enough_but_half_a_part_is_not(tmp_path):
  published_sets.make_p3m(tmp_path / 'a', train=0)
  assert {p.source for p in published.P3M.read(tmp_path)} == {
    'p3m-500-p',
    'p3m-500-np',
  }
  (tmp_path / 'a/train/mask').mkdir(parents=True)
  with pytest.raises(ValueError, match='blurred_image is missing. Expected'):
    published.P3M.read(tmp_path)
