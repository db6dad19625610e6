"""Averages, intervals, comparison, tables and files of scores."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.datasets import records
from data_pipelines.io import errors
from rmbg_jax.evaluation import (
  benchmarks,
  compare,
  gallery,
  predictions,
  publishing,
  scoring,
  tables,
)
from rmbg_jax.evaluation import results as results_lib


def _make_results(rng, count=40, system='net', gain=0.0):
  curves = np.sort(rng.random((count, 256)), axis=1)
  values = {
    'max_f_raw': curves.max(axis=1),
    'mean_f_raw': curves.mean(axis=1),
    'iou_raw': np.clip(rng.random(count) * 0.5 + gain, 0, 1),
  }
  return results_lib.Results(
    system=system,
    data_set='set',
    images=[
      {
        'name': f'{i}.jpg',
        'source': 'ab'[i % 2],
        'category': 'x',
        **dict.fromkeys(('photo', 'truth', 'prediction'), 'absent'),
      }
      for i in range(count)
    ],
    values=values,
    curves={'f_raw': curves},
  )


def test_max_f_has_one_threshold_for_all_images():
  results = results_lib.Results(
    system='',
    data_set='',
    images=[{}, {}],
    values={'max_f_raw': np.array([1.0, 1.0]), 'iou_raw': np.array([0.5, 1.0])},
    curves={'f_raw': np.array([[1.0, 0.6, 0.0], [0.0, 0.6, 1.0]])},
  )
  averages = results.average()
  assert averages['max_f_raw'] == [pytest.approx(0.6)]
  assert averages['iou_raw'] == [0.75]
  weighted = results.average(np.array([[2.0, 0.0]]))
  assert weighted['max_f_raw'] == [1.0]
  assert weighted['iou_raw'] == [0.5]


def test_images_without_a_value_do_not_count():
  results = results_lib.Results(
    system='',
    data_set='',
    images=[{}] * 3,
    values={'mse_unknown': np.array([0.2, np.nan, 0.4])},
    curves={},
  )
  assert results.average()['mse_unknown'] == [pytest.approx(0.3)]
  alone = results.average(np.array([[0.0, 3.0, 0.0]]))
  assert np.isnan(alone['mse_unknown'][0])


def test_intervals_are_those_of_drawing_with_replacement(rng):
  results = _make_results(rng)
  intervals = results_lib.compute_intervals(results.average, 40)
  drawn = rng.integers(0, 40, (4000, 40))
  for key, sample in (
    ('iou_raw', results.values['iou_raw'][drawn].mean(axis=1)),
    (
      'max_f_raw',
      [results.curves['f_raw'][i].mean(axis=0).max() for i in drawn],
    ),
  ):
    np.testing.assert_allclose(
      intervals[key], np.quantile(sample, (0.025, 0.975)), atol=0.012
    )


def test_rows_for_all_and_for_each_source(rng):
  results = _make_results(rng)
  rows = tables.make_rows(results)
  # One category only: no rows for it.
  assert [row['group'] for row in rows] == ['all', 'source a', 'source b']
  assert [row['images'] for row in rows] == [40, 20, 20]
  assert rows[1]['values']['iou_raw'] == pytest.approx(
    results.values['iou_raw'][::2].mean()
  )
  low, high = rows[0]['intervals']['iou_raw']
  assert low < rows[0]['values']['iou_raw'] < high
  text = tables.render(rows, table='raw', intervals=True)
  assert f'({low:.4f}-{high:.4f})' in text
  assert len({len(line) for line in text.splitlines()}) == 1
  assert tables.render(rows, table='matting', intervals=True) == ''


def test_results_come_back_from_their_files(rng, tmp_path):
  results = _make_results(rng)
  results_lib.save_results(results, tmp_path / 'net' / 'set')
  again = results_lib.load_results(tmp_path / 'net' / 'set')
  assert (again.system, again.data_set) == ('net', 'set')
  assert again.images == results.images
  for key, values in results.values.items():
    np.testing.assert_array_equal(again.values[key], values)
  np.testing.assert_allclose(
    again.curves['f_raw'], results.curves['f_raw'], rtol=1e-6
  )
  with pytest.raises(FileNotFoundError, match='no results'):
    results_lib.load_results(tmp_path / 'set')


def test_comparison_pairs_the_images(rng, tmp_path):
  """A gain that is small beside the images' spread, but in every image."""
  first = _make_results(rng)
  first.images[3]['name'] = os.fsdecode(b'caf\xe9.jpg')
  second = results_lib.Results(
    system='better',
    data_set='set',
    images=first.images[::-1],  # Another order, and one image less.
    values={key: (values + 0.01)[::-1] for key, values in first.values.items()},
    curves={'f_raw': first.curves['f_raw'][::-1] + 0.01},
  ).take(np.arange(39))
  for results in (first, second):
    results_lib.save_results(results, tmp_path / results.system / 'set')
  text = compare.compare(
    tmp_path / 'net', tmp_path / 'better', tmp_path / 'out'
  )
  assert '39 images' in text
  written = json.loads((tmp_path / 'out/comparison.json').read_text())
  rows = {r['key']: r for r in written['data_sets']['set']['rows']}
  for row in rows.values():
    assert row['difference'] == pytest.approx(0.01, abs=1e-6)
    assert row['low'] == pytest.approx(0.01, abs=1e-6)
    assert (row['better'], row['improved']) == (True, 1)
  # Each on its own is far less certain than the difference.
  alone = tables.make_rows(first)[0]['intervals']['iou_raw']
  assert alone[1] - alone[0] > 0.05
  assert (tmp_path / 'out/set/changed_most.html').exists()
  changes = (tmp_path / 'out/set/differences.csv').read_bytes().splitlines()
  assert len(changes) == 40
  assert any(line.startswith(b'caf\xe9.jpg,') for line in changes)
  # The folder around both is refused, that of an evaluation of one is not.
  with pytest.raises(ValueError, match='several systems'):
    compare.find_system(tmp_path)
  with pytest.raises(FileNotFoundError, match='no results'):
    compare.find_system(tmp_path / 'out' / 'set')


def test_results_of_other_metrics_are_not_compared(rng, tmp_path):
  first = _make_results(rng)
  second = dataclasses.replace(
    first, system='mattes', values={'mad_whole': np.zeros(40)}, curves={}
  )
  for results in (first, second):
    results_lib.save_results(results, tmp_path / results.system / 'set')
  with pytest.raises(errors.UserError, match='on set have no metric in common'):
    compare.compare(tmp_path / 'net', tmp_path / 'mattes', tmp_path / 'out')


def test_noise_is_not_called_better(rng):
  first = _make_results(rng)
  rows = compare.compare_results(first, _make_results(rng))
  by_key = {row['key']: row for row in rows}
  assert by_key['iou_raw']['low'] < 0 < by_key['iou_raw']['high']
  assert by_key['iou_raw']['better'] is None


@pytest.fixture
def pair(tmp_path):
  """A photo with a square on it, and its truth."""
  truth = np.zeros((20, 30), np.uint8)
  truth[5:15, 5:15] = 255
  photo = Image.fromarray(np.repeat(truth[..., None], 3, axis=2))
  photo.save(tmp_path / 'a.jpg')
  Image.fromarray(truth).save(tmp_path / 'a.png')
  return records.Pair(
    name='a.jpg',
    category='',
    image_path=tmp_path / 'a.jpg',
    mask_path=tmp_path / 'a.png',
  )


def _score(pair, prediction, **options):
  options = {'kinds': ('saliency',), 'binarize': False, 'band': 2, **options}
  return scoring.score(scoring.Job(pair=pair, prediction=prediction, **options))


def test_only_one_table_stretches(pair):
  alpha = np.asarray(Image.open(pair.mask_path)) / 255 * 0.4
  score = _score(pair, alpha)
  assert score.values['mae_stretched'] == 0
  assert score.values['iou_stretched'] == 1
  assert score.values['mae_raw'] == pytest.approx(0.6 * 100 / 600)
  assert score.values['iou_raw'] == 0  # Nothing is above one half.


def test_an_alpha_is_saved_as_the_mask_that_is_scored(pair, tmp_path, rng):
  alpha = rng.random((20, 30)).astype(np.float32)
  score = _score(pair, alpha, save_as=tmp_path / 'masks' / 'a.png')
  again = _score(pair, tmp_path / 'masks' / 'a.png')
  for key in ('mae', 's', 'weighted_f'):
    assert score.values[f'{key}_stretched'] == again.values[f'{key}_stretched']
  # Before it was rounded to 8 bits.
  assert score.values['mae_raw'] != again.values['mae_raw']
  assert score.values['mae_raw'] == pytest.approx(
    again.values['mae_raw'], abs=1 / 255
  )


def test_predictions_of_all_kinds_of_files(pair, tmp_path):
  truth = Image.open(pair.mask_path)
  photo = Image.open(pair.image_path)
  cutout = photo.copy()
  cutout.putalpha(truth)
  opaque = truth.convert('RGB')
  opaque.putalpha(255)
  cases = {
    'grey': truth,
    'colour': truth.convert('RGB'),
    'bits': truth.convert('1'),
    'cutout': cutout,
    'opaque': opaque,
    'wide': Image.fromarray(np.asarray(truth).astype(np.uint16) * 257),
  }
  for name, image in cases.items():
    image.save(tmp_path / f'{name}_.png')
    score = _score(pair, tmp_path / f'{name}_.png')
    assert score.values['mae_raw'] == 0, name
  # A prediction that is nearly black is not taken for one of {0, 1}.
  Image.fromarray(np.asarray(truth) // 255).save(tmp_path / 'dark.png')
  score = _score(pair, tmp_path / 'dark.png')
  assert score.values['mae_raw'] == pytest.approx(100 / 600 * 254 / 255)
  # A truth of {0, 1} is one.
  Image.fromarray(np.asarray(truth) // 255).save(pair.mask_path)
  assert _score(pair, tmp_path / 'grey_.png').values['mae_raw'] == 0
  small = truth.resize((15, 10))
  small.save(tmp_path / 'small.png')
  score = _score(pair, tmp_path / 'small.png')
  assert score.resized
  assert score.values['iou_raw'] > 0.8


def test_a_folder_of_predictions_has_one_range(pair, tmp_path):
  truth = np.asarray(Image.open(pair.mask_path))

  def find(name, *arrays):
    paths = []
    for number, array in enumerate(arrays):
      paths.append(tmp_path / f'{name}{number}.tif')
      Image.fromarray(array).save(paths[-1])
    return paths, predictions.find_scales(paths)

  share = np.float32(truth / 255)
  for name, arrays, scales in (
    ('floats', [share * 0.3, share], {'floats': 1}),
    # The first alone would be taken for all foreground.
    ('bytes', [share, share * 255], {'floats': 255}),
    ('ones', [truth * 0, truth // 255], {'integers': 1}),
    ('dark', [truth // 255, truth], {'integers': 255}),
    ('deep', [np.uint16(truth), np.uint16(truth) * 257])
    + ({'wide integers': 65535},),
    ('red', [np.stack([truth, truth * 0, truth * 0], -1)], {}),
  ):
    paths, found = find(name, *arrays)
    assert found == scales, name
    score = _score(pair, paths[-1], scales=found)
    assert score.values['mae_raw'] == pytest.approx(0, abs=1e-6), name
  paths, found = find('mixed', share * 255, share)
  score = _score(pair, paths[1], scales=found)
  assert score.values['mae_raw'] == pytest.approx(100 / 600 * 254 / 255)
  with pytest.raises(ValueError, match=r'logits0\.tif: .*from -9 to 9'):
    find('logits', share * 18 - 9)
  Image.fromarray(share * 18 - 9).save(tmp_path / 'one.tif')
  assert 'one.tif' in _score(pair, tmp_path / 'one.tif').error


def test_an_unclear_truth_is_not_scored(pair):
  truth = Image.open(pair.mask_path)
  Image.fromarray(np.asarray(truth) // 255 * 38).save(pair.mask_path)
  error = _score(pair, np.zeros((20, 30))).error
  assert 'a.png: its largest value is 38' in error


def test_what_a_photo_leaves_transparent_is_background(pair, tmp_path):
  def predict(photos):
    assert all(photo.mode == 'RGB' for photo in photos)
    return [np.ones((p.height, p.width), np.float32) for p in photos]

  opacity = np.zeros((20, 30), np.uint8)
  opacity[:, :10] = 255
  photo = Image.open(pair.image_path).convert('RGB')
  photo.putalpha(Image.fromarray(opacity))
  path = tmp_path / 'clear.png'
  photo.save(path)
  pairs = [pair, dataclasses.replace(pair, image_path=path)]
  whole, part = predictions.predict_alphas(predict, pairs, batch_size=2)
  assert whole.min() == 1
  np.testing.assert_array_equal(part, opacity / 255)


def test_an_empty_truth_has_no_f(pair, tmp_path):
  Image.new('L', (30, 20)).save(pair.mask_path)
  alpha = np.zeros((20, 30))
  alpha[:10] = 0.8
  score = _score(pair, alpha)
  assert score.empty
  assert score.values == pytest.approx({'mae_raw': 0.4, 'area_raw': 0.5})


def test_a_graded_truth_counts_above_one_half(pair):
  grades = np.zeros((20, 30), np.uint8)
  grades[:5], grades[5:10] = 120, 140
  Image.fromarray(grades).save(pair.mask_path)
  alpha = (grades > 128) * 1.0
  score = _score(pair, alpha, binarize=True)
  assert (score.values['mae_raw'], score.values['iou_stretched']) == (0, 1)
  assert _score(pair, alpha).values['mae_raw'] > 0.1
  # What `calibrate` reads, too.
  Image.fromarray(np.array([[0, 128, 129]], np.uint8)).save(pair.mask_path)
  truth = scoring.read_truth(pair, binarize=True)
  assert truth.tolist() == [[0, 0, 255]]


def test_a_trimap_beside_the_masks_is_the_band(pair, tmp_path, rng):
  mask_path = tmp_path / 'mask' / 'a.png'
  mask_path.parent.mkdir()
  Image.open(pair.mask_path).save(mask_path)
  pair = records.Pair(
    name='a.jpg',
    category='',
    image_path=pair.image_path,
    mask_path=mask_path,
  )
  alpha = rng.random((20, 30))
  without = _score(pair, alpha, kinds=('matting',))
  trimap = np.zeros((20, 30), np.uint8)
  trimap[4:8], trimap[8:] = 128, 255
  (tmp_path / 'trimap').mkdir()
  Image.fromarray(trimap).save(tmp_path / 'trimap' / 'a.png')
  score = _score(pair, alpha, kinds=('matting',))
  truth = np.asarray(Image.open(mask_path)) / 255
  errors = np.abs(alpha - truth)[4:8]
  assert score.values['sad_unknown_thousands'] * 1000 == pytest.approx(
    errors.sum(), rel=1e-5
  )
  assert score.values['sad_whole_thousands'] == pytest.approx(
    without.values['sad_whole_thousands']
  )
  Image.fromarray(trimap[:-1]).save(tmp_path / 'trimap' / 'a.png')
  assert '30x19' in _score(pair, alpha, kinds=('matting',)).error


def test_a_bad_file_is_named_and_costs_no_other(pair, tmp_path):
  bad = tmp_path / 'bad.png'
  bad.write_bytes(pair.mask_path.read_bytes()[:40])
  assert 'bad.png' in _score(pair, bad).error
  missing = FileNotFoundError('no prediction for a.jpg')
  assert _score(pair, missing).error == 'no prediction for a.jpg'
  options = {'kinds': ('saliency',), 'binarize': False, 'band': 2}
  jobs = [
    scoring.Job(pair=pair, prediction=path, **options)
    for path in (pair.mask_path, bad, pair.mask_path)
  ]
  with scoring.open_map(2) as score_all:
    results = results_lib.collect(score_all(jobs), system='s', data_set='d')
  assert results.values['iou_raw'].tolist() == [1, 1]
  assert list(results.failed) == ['a.jpg']


def test_masks_are_found_by_stem_or_name(tmp_path, pair):
  def index(*names):
    for name in names:
      path = tmp_path / 'p' / name
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.new('L', (2, 2)).save(path)
    return predictions.index_masks(tmp_path / 'p')

  with pytest.raises(FileNotFoundError, match='no masks'):
    predictions.index_masks(tmp_path / 'p')
  index('other.png')
  found = index('a.jpg.png')
  assert predictions.find_mask(found, pair, 'set').name == 'a.jpg.png'
  found = index('cutout/a.png', 'mask/a.png')
  assert predictions.find_mask(found, pair, 'set').parent.name == 'mask'
  found = index('set/a.png')
  assert predictions.find_mask(found, pair, 'set').parent.name == 'set'
  found = index('set/x/a.png')
  assert '2 predictions' in str(predictions.find_mask(found, pair, 'set'))
  found = index('nothing.png')
  del found['a']
  del found['a.jpg']
  assert 'no prediction' in str(predictions.find_mask(found, pair, 'set'))


def test_mask_names_never_collide():
  def pair(name):
    return records.Pair(
      name=name, category='', image_path=Path(name), mask_path=Path(name)
    )

  names = predictions.name_masks(
    [
      *(pair('a.jpg'), pair('a.png'), pair('s/a.jpg')),
      *(pair('/photos/b.png'), pair('../../c.png'), pair('..')),
    ]
  )
  assert names == {
    'a.jpg': 'a.jpg.png',
    'a.png': 'a.png.png',
    's/a.jpg': 's/a.png',
    # Lists of others may name the user's own files.
    '/photos/b.png': 'photos/b.png',
    '../../c.png': 'c.png',
    '..': 'mask.png',
  }


def test_report_and_gallery_hold_what_was_scored(pair, tmp_path, rng):
  prediction = tmp_path / 'p' / '<a>.png'
  prediction.parent.mkdir()
  Image.open(pair.mask_path).save(prediction)
  options = {'kinds': ('saliency',), 'binarize': False, 'band': 2}
  job = scoring.Job(pair=pair, prediction=prediction, **options)
  results = results_lib.collect(
    [scoring.score(job)], system='<net>', data_set='set'
  )
  data_set = benchmarks.DataSet(
    name='set', directory=tmp_path, pairs=(pair,), published=5
  )
  text = publishing.save_report(
    [results],
    [data_set],
    systems={'<net>': {'masks': 'p', 'notes': ['Trained on this.']}},
    output=tmp_path / 'out',
    gallery_count=3,
  )
  assert '5 images were published' in text
  assert 'Trained on this.' in text
  written = (tmp_path / 'out' / 'table.md').read_text()
  assert 'numpy' in written
  assert '(1.0000-1.0000)' in written
  content = json.loads((tmp_path / 'out' / 'results.json').read_text())
  assert content['rows'][0]['values']['iou_raw'] == 1
  with Image.open(tmp_path / 'out' / 'curves_set.png') as image:
    assert image.format == 'PNG'
  page = tmp_path / 'out' / '<net>' / 'set' / 'gallery.html'
  html = page.read_text()
  # Photo, truth, prediction, difference; worst, median, best.
  assert html.count('<img src="data:image/jpeg;base64,') == 12
  assert '<net>' not in html
  # Masks without photos can still be scored.
  pair.image_path.unlink()
  gallery.save_gallery(results, page, count=3)
  assert page.read_text().count('cannot be read') == 3
