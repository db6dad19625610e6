"""Published test sets are known by their folders."""

import numpy as np
import pytest
from PIL import Image

from data_pipelines.datasets import dataset_csv, records, salient_sets
from rmbg_jax.evaluation import benchmarks
from tests.support import published_sets


def _load(directory, **options):
  return {s.name: s for s in benchmarks.load_data_sets(directory, **options)}


def _write_pairs(photos, masks, *, count=3, photo_suffix='.jpg'):
  for directory in (photos, masks):
    directory.mkdir(parents=True, exist_ok=True)
  mask = np.zeros((6, 8), np.uint8)
  mask[2:4, 2:6] = 255
  for index in range(count):
    photo = Image.fromarray(np.full((6, 8, 3), index, np.uint8))
    photo.save(photos / f'{index:04}{photo_suffix}')
    Image.fromarray(mask).save(masks / f'{index:04}.png')


def test_p3m_has_two_test_sets(tmp_path):
  published_sets.make_p3m(tmp_path / 'P3M-10k' / 'P3M-10k')
  sets = _load(tmp_path / 'P3M-10k')
  assert sorted(sets) == ['P3M-500-NP', 'P3M-500-P']
  assert sets['P3M-500-P'].published == 500
  assert {pair.label for pair in sets['P3M-500-NP'].pairs} == {'alpha'}
  one = tmp_path / 'P3M-10k/P3M-10k/validation/P3M-500-NP'
  assert sorted(_load(one)) == ['P3M-500-NP']
  assert _load(one)['P3M-500-NP'].pairs == sets['P3M-500-NP'].pairs
  # Alone, beside the tree that it is from.
  alone = one.rename(tmp_path / 'P3M-500-NP')
  (pair,) = _load(alone)['P3M-500-NP'].pairs[:1]
  assert pair.mask_path.parents[1] == alone


def test_cod10k_without_the_empty_masks(tmp_path):
  published_sets.make_cod10k(tmp_path)
  (test,) = _load(tmp_path).values()
  assert (test.name, test.published) == ('COD10K-Test-CAM', 2026)
  assert {(p.source, p.split) for p in test.pairs} == {('cod10k', 'test')}


def test_people_is_its_validation_list(tmp_path):
  published_sets.make_people(tmp_path, train=5, val=2)
  (people,) = _load(tmp_path).values()
  assert (people.name, len(people.pairs)) == ('People-val', 2)


@pytest.mark.parametrize(
  ('name', 'photos', 'masks', 'count'),
  [
    ('ECSSD', 'images', 'ground_truth_mask', 1000),
    ('ECSSD', 'Imgs', 'Imgs', 1000),
    ('PASCAL-S', 'Image', 'GT', 850),
    ('SOD', 'im', 'gt', 300),
    ('DUTS-TE', 'DUTS-TE-Image', 'DUTS-TE-Mask', 5019),
    ('DUTS-TE/DUTS-TE', 'DUTS-TE-Image', 'DUTS-TE-Mask', 5019),
    (
      'DUT-OMRON',
      'DUT-OMRON-image/DUT-OMRON-image',
      'pixelwiseGT-new-PNG',
      5168,
    ),
    ('HKU-IS', 'imgs', 'gt', 4447),
  ],
)
def test_saliency_benchmarks(tmp_path, name, photos, masks, count):
  root = tmp_path / name
  _write_pairs(root / photos, root / masks)
  (found,) = _load(tmp_path / name.partition('/')[0]).values()
  assert (found.name, found.published) == (name.partition('/')[0], count)
  assert found.binarize
  assert len(found.pairs) == 3
  assert {pair.mask_path.suffix for pair in found.pairs} == {'.png'}
  assert {pair.image_path.suffix for pair in found.pairs} == {'.jpg'}


def test_a_saliency_benchmark_names_files_without_partner(tmp_path):
  root = tmp_path / 'ECSSD'
  _write_pairs(root / 'Imgs', root / 'Imgs')
  (root / 'Imgs' / '0001.png').unlink()
  with pytest.raises(ValueError, match='0001.jpg has no mask in'):
    salient_sets.read_saliency(root)
  (found,) = _load(root).values()
  assert (len(found.pairs), len(found.problems)) == (2, 1)
  with pytest.raises(ValueError, match='Rename the folder'):
    salient_sets.read_saliency(tmp_path)


def _write_folder(directory, rows):
  """A folder with a CSV; `rows` are (name, source, split)."""
  _write_pairs(directory / 'Images', directory / 'Masks', count=len(rows))
  dataset_csv.write(
    directory / 'Dataset.csv',
    [
      records.Pair(
        name=name,
        category='',
        image_path=directory / f'Images/{index:04}.jpg',
        mask_path=directory / f'Masks/{index:04}.png',
        source=source,
        split=split,
      )
      for index, (name, source, split) in enumerate(rows)
    ],
  )


def test_a_folder_is_scored_on_what_is_not_for_training(tmp_path):
  rows = [('a', 's', 'train'), ('b', 's', 'val'), ('c', 's', 'test')]
  _write_folder(tmp_path / 'mine', rows)
  (mine,) = _load(tmp_path / 'mine').values()
  assert (mine.name, mine.published, mine.binarize) == ('mine', 0, False)
  assert [pair.name for pair in mine.pairs] == ['b', 'c']
  (val,) = _load(tmp_path / 'mine', splits=['val']).values()
  assert [pair.name for pair in val.pairs] == ['b']
  with pytest.raises(ValueError, match='there are test, train, val'):
    _load(tmp_path / 'mine', splits=['dev'])
  _write_folder(tmp_path / 'plain', [('a', 's', ''), ('b', 's', '')])
  with pytest.raises(ValueError, match='no splits.*Leave --split out'):
    _load(tmp_path / 'plain', splits=['val'])
  with pytest.raises(FileNotFoundError, match='no such folder'):
    _load(tmp_path / 'absent')


def test_what_a_network_was_trained_on_is_found(tmp_path):
  rows = [('a', 'mix', 'train'), ('b', 'mix', 'val'), ('c', 'other', 'val')]
  _write_folder(tmp_path / 'mine', rows)
  (held_out,) = _load(tmp_path / 'mine').values()
  # Held out from `mix`, but nothing says that of `other`.
  assert benchmarks.find_trained_on(held_out, ['mix', 'other']) == ['other']
  (both,) = _load(tmp_path / 'mine', splits=['train', 'val']).values()
  assert benchmarks.find_trained_on(both, ['mix']) == ['mix']

  published_sets.make_cod10k(tmp_path / 'cod')
  (test,) = _load(tmp_path / 'cod').values()
  assert benchmarks.find_trained_on(test, ['cod10k']) == []
  published_sets.make_p3m(tmp_path / 'p3m')
  sets = _load(tmp_path / 'p3m')
  trained = ['p3m-10k', 'p3m-500-np']
  assert benchmarks.find_trained_on(sets['P3M-500-P'], trained) == []
  assert benchmarks.find_trained_on(sets['P3M-500-NP'], trained) == [
    'p3m-500-np'
  ]
  _write_pairs(tmp_path / 'SOD' / 'Image', tmp_path / 'SOD' / 'GT')
  (sod,) = _load(tmp_path / 'SOD').values()
  assert benchmarks.find_trained_on(sod, ['pascals', 'sod']) == ['sod']
