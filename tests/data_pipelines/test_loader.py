"""Batches: order, augmentation, epochs and exact evaluation."""

import grain
import numpy as np
import pytest
from PIL import Image

from data_pipelines.batches import loader, transforms
from data_pipelines.datasets import demo, folder, records, sources
from data_pipelines.io import errors, parallel

COUNT, BATCH = 11, 4
WEIGHTS = {'gt': 1.0, 'alpha': 0.75, 'pseudo': 0.5}
ALONE = loader.Sharding()


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
  directory = tmp_path_factory.mktemp('demo')
  demo.make_demo(directory, count=COUNT, size=(40, 56), seed=3)
  return folder.read_folder(directory)


def _decode(size=(32, 48), allow_empty=False):
  return transforms.Decode(size, allow_empty=allow_empty, label_weights=WEIGHTS)


def _train(pairs, *, threads=2, seed=0, sharding=ALONE):
  return loader.make_train_iterator(
    pairs,
    decode=_decode(),
    augment=transforms.Augment(flip=0.5, min_scale=0.5),
    batch_size=BATCH,
    seed=seed,
    read_options=grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2),
    sharding=sharding,
  )


def _take(iterator, count):
  return [next(iterator) for _ in range(count)]


def _assert_equal(left, right):
  for a, b in zip(left, right, strict=True):
    for key in a:
      np.testing.assert_array_equal(a[key], b[key])


def test_batches_are_uint8_at_the_size_asked_for(pairs):
  batch = next(_train(pairs))
  assert batch['image'].shape == (BATCH, 32, 48, 3)
  assert batch['alpha'].shape == (BATCH, 32, 48, 1)
  assert batch['image'].dtype == batch['alpha'].dtype == np.uint8
  # The demo set has exact alpha.
  np.testing.assert_array_equal(batch['weight'], np.full(BATCH, 0.75))


def test_same_seed_same_batches_whatever_the_threads(pairs):
  reference = _take(_train(pairs, threads=1), 5)
  _assert_equal(reference, _take(_train(pairs, threads=5), 5))
  other = next(_train(pairs, seed=1))
  assert (other['image'] != reference[0]['image']).any()


def test_epochs_do_not_mix_and_differ(pairs):
  plain = loader.make_train_iterator(
    pairs,
    decode=_decode(),
    augment=transforms.Augment(flip=0.0, min_scale=1.0),
    batch_size=BATCH,
    seed=0,
    read_options=grain.ReadOptions(num_threads=1, prefetch_buffer_size=1),
    sharding=ALONE,
  )
  epochs = [np.concatenate([b['image'] for b in _take(plain, 2)]) for _ in '12']
  for epoch in epochs:
    assert len(np.unique(epoch.reshape(2 * BATCH, -1), axis=0)) == 2 * BATCH
  assert (epochs[0] != epochs[1]).any()


def test_state_belongs_to_the_last_batch_used(pairs):
  iterator = _train(pairs)
  _take(iterator, 3)
  state = iterator.get_state()
  expected = _take(iterator, 4)
  resumed = _train(pairs)
  resumed.set_state(state)
  _assert_equal(expected, _take(resumed, 4))


def test_evaluation_visits_each_once_and_pads(pairs):
  batches = loader.make_eval_batches(
    pairs,
    decode=_decode(),
    batch_size=BATCH,
    read_options=grain.ReadOptions(num_threads=2, prefetch_buffer_size=2),
    sharding=ALONE,
  )
  for _ in range(2):  # It can be walked again.
    seen = list(batches)
    assert [batch['image'].shape[0] for batch in seen] == [BATCH] * 3
    valid = np.concatenate([batch['weight'] for batch in seen])
    assert valid.tolist() == [0.75] * COUNT + [0]
    images = np.concatenate([batch['image'] for batch in seen])[valid > 0]
    assert len(np.unique(images.reshape(COUNT, -1), axis=0)) == COUNT


def test_processes_share_every_batch(pairs):
  """Together, two processes read what one would read alone."""
  alone = _train(pairs)
  parts = [
    _train(pairs, sharding=loader.Sharding(index=index, count=2))
    for index in range(2)
  ]
  for _ in range(5):  # Across epochs.
    whole = next(alone)
    halves = [next(part) for part in parts]
    assert all(len(half['weight']) == BATCH // 2 for half in halves)
    for key in whole:
      mixed = np.stack([half[key] for half in halves], axis=1)
      np.testing.assert_array_equal(mixed.reshape(whole[key].shape), whole[key])


def test_processes_evaluate_each_once_in_as_many_batches(pairs):
  counts = []
  for index in range(2):
    batches = loader.make_eval_batches(
      pairs,
      decode=_decode(),
      batch_size=BATCH,
      read_options=grain.ReadOptions(num_threads=1, prefetch_buffer_size=1),
      sharding=loader.Sharding(index=index, count=2),
    )
    seen = list(batches)
    assert len(seen) == 3
    counts.append(sum(int((b['weight'] > 0).sum()) for b in seen))
  assert sum(counts) == COUNT


def test_as_many_batches_are_read_ahead_as_threads_can_make():
  cores = min(16, parallel.count_cores())
  options = loader.make_read_options(threads=0, buffer=0)
  assert (options.num_threads, options.prefetch_buffer_size) == (
    cores,
    cores + 2,
  )
  options = loader.make_read_options(threads=3, buffer=1)
  assert (options.num_threads, options.prefetch_buffer_size) == (3, 1)


def test_fewer_images_than_a_batch_is_an_error(pairs):
  with pytest.raises(ValueError, match=r'batch_size \(=4\)'):
    _train(pairs[:3])


def test_bad_pairs_are_refused_by_name(tmp_path):
  Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
  Image.new('L', (8, 8)).save(tmp_path / 'empty.png')
  Image.new('L', (8, 9), 255).save(tmp_path / 'larger.png')

  def decode(mask, allow_empty=False):
    pair = records.Pair(
      name='a',
      category='',
      image_path=tmp_path / 'a.png',
      mask_path=tmp_path / mask,
    )
    return _decode((16, 16), allow_empty).map(pair)

  with pytest.raises(ValueError, match=r'empty\.png: the mask is empty'):
    decode('empty.png')
  assert decode('empty.png', allow_empty=True)['alpha'].max() == 0
  with pytest.raises(ValueError, match=r'a\.png is 8x8 .* larger\.png 8x9'):
    decode('larger.png')


def test_demo_set_is_drawn_once_and_reproducible(tmp_path, pairs):
  options = {
    'validation_share': 0.2,
    'limit': 0,
    'demo_count': COUNT,
    'demo_size': 40,
  }
  training, validation = sources.load_pairs('demo', tmp_path / 'd', **options)
  assert (len(training), len(validation)) == (8, 3)
  stamp = training[0].image_path.stat().st_mtime_ns
  again, _ = sources.load_pairs('demo', tmp_path / 'd', **options)
  assert again == training
  assert training[0].image_path.stat().st_mtime_ns == stamp
  demo.make_demo(tmp_path / 'e', count=3, size=(40, 40), seed=42)
  first = sorted((tmp_path / 'e' / 'Masks').iterdir())[0]
  assert (tmp_path / 'd' / 'Masks' / first.name).read_bytes() == (
    first.read_bytes()
  )
  limited = sources.load_pairs(
    'demo', tmp_path / 'd', **{**options, 'limit': 5}
  )
  assert sum(map(len, limited)) == 5
  for key, value in (('demo_count', COUNT + 1), ('demo_size', 48)):
    with pytest.raises(ValueError, match=f'{COUNT} pictures .*{value}.*folder'):
      sources.load_pairs('demo', tmp_path / 'd', **{**options, key: value})


def test_a_full_disk_says_how_many_pairs_are_drawn(tmp_path, monkeypatch):
  save = Image.Image.save

  def fill_up(image, path, *arguments, **options):
    if 'Masks' in str(path) and '00002' in str(path):
      raise OSError(28, 'No space left on device')
    save(image, path, *arguments, **options)

  monkeypatch.setattr(Image.Image, 'save', fill_up)
  with pytest.raises(errors.UserError, match='No space.*; 2 of 4 pairs are'):
    demo.make_demo(tmp_path, count=4, size=(16, 16), seed=1)
  monkeypatch.undo()
  demo.make_demo(tmp_path, count=4, size=(16, 16), seed=1)
  assert len(folder.read_folder(tmp_path)) == 4


def test_the_demo_is_not_drawn_among_photos_of_the_user(tmp_path):
  for name in ('Images/a.jpg', 'Masks/a.png'):
    (tmp_path / name).parent.mkdir()
    Image.new('L', (16, 16), 255).save(tmp_path / name)
  with pytest.raises(errors.UserError, match='pass --config.data.name=folder'):
    demo.make_demo(tmp_path, count=4, size=(16, 16), seed=1)
  assert len(folder.read_folder(tmp_path)) == 1


def test_demo_alpha_is_soft_and_never_empty():
  for index in range(40):
    photo, alpha, kind = demo.draw_pair(
      np.random.default_rng([0, index]), (64, 80)
    )
    assert photo.shape == (64, 80, 3)
    assert 0.01 < (alpha > 127).mean() < 0.9, (index, kind)
    assert ((alpha > 20) & (alpha < 235)).any()


def test_wrong_sources_are_refused(tmp_path):
  options = {
    'validation_share': 0.2,
    'limit': 0,
    'demo_count': 1,
    'demo_size': 32,
  }
  with pytest.raises(ValueError, match="'coco'"):
    sources.load_pairs('coco', tmp_path, **options)
  with pytest.raises(ValueError, match='--config.data.dir=FOLDER'):
    sources.load_pairs('folder', '', **options)
