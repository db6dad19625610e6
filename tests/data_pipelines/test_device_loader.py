"""Pairs in device memory: the same data, exact epochs, shares, augmentation."""

import dataclasses
import errno
import os

import cv2
import grain
import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from configs import lite
from data_pipelines.batches import (
  device_augment,
  device_loader,
  effects,
  loader,
  transforms,
)
from data_pipelines.batches.device_augment import DeviceAugment
from data_pipelines.datasets import demo, folder
from data_pipelines.io import images

COUNT, BATCH = 11, 4
NO_SHARES = {'human': 0.0, 'animal': 0.0, 'object': 0.0}
NO_CHANGE = DeviceAugment(flip=0.0, min_scale=1.0)
CHANGES = DeviceAugment(
  min_scale=0.5,
  max_scale=1.5,
  rotate=10.0,
  color=0.2,
  blur=0.5,
  noise=0.5,
  background=0.5,
)


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
  directory = tmp_path_factory.mktemp('demo')
  demo.make_demo(directory, count=COUNT, size=(40, 56), seed=3)
  return folder.read_folder(directory)


def _decode():
  return transforms.Decode(
    (32, 48),
    allow_empty=False,
    label_weights={'gt': 1.0, 'alpha': 0.75, 'pseudo': 0.5},
  )


def _mesh(count=1):
  return jax.make_mesh(
    (count,),
    ('data',),
    devices=jax.devices()[:count],
    axis_types=(AxisType.Auto,),
  )


def _iterate(pairs, *, augment=NO_CHANGE, shares=NO_SHARES, devices=1):
  return device_loader.DeviceIterator(
    pairs,
    decode=_decode(),
    augment=augment,
    shares=shares,
    batch_size=BATCH,
    seed=0,
    cache_dir='',
    mesh=_mesh(devices),
  )


def _take(iterator, count):
  return [jax.device_get(next(iterator)) for _ in range(count)]


def _assert_equal(left, right):
  for a, b in zip(left, right, strict=True):
    for key in ('image', 'alpha', 'weight'):
      np.testing.assert_array_equal(a[key], b[key])


def test_unchanged_pairs_are_those_of_the_other_loader(pairs):
  decode = _decode()
  expected = {
    decode.map(pair)['image'].tobytes(): decode.map(pair) for pair in pairs
  }
  batches = _take(_iterate(pairs), 2)
  seen = set()
  for batch in batches:
    for image, alpha, weight in zip(
      batch['image'], batch['alpha'], batch['weight'], strict=True
    ):
      element = expected[image.tobytes()]
      np.testing.assert_array_equal(alpha, element['alpha'])
      assert weight == element['weight']
      seen.add(image.tobytes())
  assert len(seen) == 2 * BATCH, 'a pair twice in an epoch'


def test_evaluation_is_that_of_the_other_loader(pairs):
  expected = loader.make_eval_batches(
    pairs,
    decode=_decode(),
    batch_size=BATCH,
    read_options=grain.ReadOptions(num_threads=1, prefetch_buffer_size=1),
    sharding=loader.Sharding(),
  )
  batches = device_loader.EvalBatches(
    pairs, decode=_decode(), batch_size=BATCH, cache_dir=''
  )
  for _ in range(2):
    _assert_equal(list(batches), list(expected))


def test_state_belongs_to_the_last_batch_used(pairs):
  iterator = _iterate(pairs, augment=CHANGES)
  _take(iterator, 3)
  state = iterator.get_state()
  expected = _take(iterator, 4)
  resumed = _iterate(pairs, augment=CHANGES)
  resumed.set_state(state)
  again = _take(resumed, 4)
  _assert_equal(expected, again)
  assert (expected[0]['image'] != expected[2]['image']).any()


def test_four_devices_share_the_batch_of_one(pairs):
  one = _take(_iterate(pairs, augment=CHANGES), 3)
  iterator = _iterate(pairs, augment=CHANGES, devices=4)
  batch = next(iterator)
  assert len(batch['image'].sharding.device_set) == 4
  four = [jax.device_get(batch), *_take(iterator, 2)]
  for a, b in zip(one, four, strict=True):
    # Another program may round differently.
    assert np.abs(a['image'].astype(int) - b['image']).max() <= 1
    assert np.abs(a['alpha'].astype(int) - b['alpha']).max() <= 1


def test_shares_of_categories(pairs):
  categories = ['human'] * 2 + ['animal'] * 3 + ['object'] * 6
  mixed = [
    dataclasses.replace(pair, category=category)
    for pair, category in zip(pairs, categories, strict=True)
  ]
  shares = {'human': 1.0, 'animal': 0.0, 'object': 1.0}
  iterator = _iterate(mixed, shares=shares)
  decode = _decode()
  number = {decode.map(p)['image'].tobytes(): i for i, p in enumerate(mixed)}
  for _ in range(3):  # Epochs.
    batches = _take(iterator, 2)
    drawn = [number[i.tobytes()] for b in batches for i in b['image']]
    assert [sum(n in part for n in drawn) for part in ({0, 1}, {2, 3, 4})] == [
      4,
      0,
    ]
    # Four times for two people, and four for six objects.
    assert drawn.count(0) == drawn.count(1) == 2
    assert max(drawn.count(n) for n in range(5, 11)) == 1
  # Nobody else's photos are left out without a word.
  mixed[3] = dataclasses.replace(mixed[3], category='aquatic')
  mixed[4] = dataclasses.replace(mixed[4], category='')
  with pytest.raises(ValueError, match=r'aquatic: 1, \(none\): 1\) of 11 tr'):
    _iterate(mixed, shares=shares)
  with pytest.raises(ValueError, match='shares would leave out all of 2'):
    device_loader._expected_counts(
      mixed[:2], {'human': 0.0, 'animal': 1.0}, total=4
    )


@pytest.mark.parametrize('mirrored', [False, True])
@pytest.mark.parametrize('turn', [0.0, 1.0])
def test_a_view_is_that_of_the_other_loader(mirrored, turn, rng):
  """The same window, turned and mirrored, of a picture that is no square."""
  coarse = rng.integers(0, 256, (6, 8, 4), np.uint8)
  picture = cv2.resize(coarse, (96, 48))
  augment = DeviceAugment(flip=0.5, rotate=25.0)
  # Scale (that is fixed), place, mirroring, angle.
  draws = iter(
    np.float32([[0], [0.5], [0.5], [0.1 if mirrored else 0.9], [turn]])
  )
  scale = np.float32([0.5])
  ours, _ = augment._apply_view(
    picture[None], np.zeros(1, int), scale, scale, draws
  )
  # There, the content is turned; here, the window.
  view = effects.View(flip=mirrored, scale=0.5, angle=25.0 * (1 - 2 * turn))
  theirs = effects.apply_view(picture, view, size=(48, 96))
  np.testing.assert_allclose(ours[0], theirs, atol=6)


def test_a_small_picture_becomes_part_of_another_photo():
  """A white square on black, before a photo of grey with a red disc."""
  pixels = np.zeros((2, 32, 32, 4), np.uint8)
  pixels[0, 8:24, 8:24] = 255
  pixels[1, ..., :3] = 100
  pixels[1, 10:20, 10:20] = (250, 0, 0, 255)
  augment = DeviceAugment(flip=0.0, min_scale=1.0, max_enlargement=1.0)
  found = []
  for seed in range(8):
    image, alpha = jax.jit(augment)(
      pixels,
      np.zeros(1, int),
      np.full(1, 2, np.float32),
      jax.random.key(seed),
    )
    image, alpha = np.asarray(image)[0], np.asarray(alpha)[0, ..., 0]
    # Half as large, at the lower edge of the frame's half.
    rows, columns = np.nonzero(alpha > 127)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (8, 8)
    assert rows.max() == 27
    assert (image[alpha == 255] == 255).all()
    (value,) = np.unique(image[alpha == 0])
    found.append(int(value))
  # Behind it is the other photo, its disc painted over, or its own.
  assert set(found) == {0, 100}


def test_plain_backgrounds_are_even_and_half_of_them_light(rng):
  pixels = rng.integers(0, 256, (2, 32, 32, 4), np.uint8)
  pixels[..., 3] = 0
  pixels[:, 10:20, 10:20, 3] = 255
  augment = DeviceAugment(background=1.0, plain=1.0)
  image, alpha = jax.jit(augment)(
    pixels, np.zeros(64, int), np.zeros(64, np.float32), jax.random.key(0)
  )
  behind = [
    i[a[..., 0] == 0].astype(int) for i, a in zip(image, alpha, strict=True)
  ]
  assert all(np.ptp(one, axis=0).max() <= 41 for one in behind)
  light = sum((one.mean(axis=0) > 150).all() for one in behind)
  assert 20 < light < 60
  assert max(np.ptp(one.mean(axis=0)) for one in behind) > 60  # Colours too.


def test_wrong_settings_are_refused():
  with pytest.raises(ValueError, match=r'jpeg \(=0.1\)'):
    DeviceAugment(jpeg=0.1)
  with pytest.raises(ValueError, match=r'augment\.blur=2.0 is not in'):
    DeviceAugment(blur=2.0)
  with pytest.raises(ValueError, match='max_scale'):
    DeviceAugment(max_scale=0.5)


def test_the_recipe_for_devices_is_one_for_them():
  config = lite.get_config('device')
  augment = DeviceAugment(
    **config.data.augment,
    max_scale=config.data.device.max_scale,
    max_enlargement=config.data.device.max_enlargement,
  )
  assert augment.background > 0
  assert config.data.loader == 'device'
  assert lite.get_config().data.loader == 'grain'
  with pytest.raises(ValueError, match='lite.py:other: the only variant is'):
    lite.get_config('other')


def test_blur_keeps_the_mean_and_spreads(rng):
  image = np.zeros((1, 33, 33, 1), np.float32)
  image[0, 16, 16] = 1
  blurred = device_augment._blur(image, np.full((1, 1, 1, 1), 2.0), reach=7)
  y = np.arange(33) - 16
  weights = np.asarray(blurred)[0, ..., 0]
  np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)
  variance = (weights.sum(axis=1) * y**2).sum()
  np.testing.assert_allclose(variance, 4, rtol=0.02)


def test_decoded_once_until_a_file_changes(pairs, tmp_path):
  def load():
    return device_loader.load_pixels(
      pairs, decode=_decode(), cache_dir=tmp_path
    )

  first = np.array(load())
  (cache,) = tmp_path.iterdir()
  stamp = cache.stat().st_mtime_ns
  np.testing.assert_array_equal(load(), first)
  assert cache.stat().st_mtime_ns == stamp
  status = pairs[0].mask_path.stat()
  os.utime(pairs[0].mask_path, ns=(status.st_atime_ns, 1))
  np.testing.assert_array_equal(load(), first)
  assert len(list(tmp_path.iterdir())) == 2
  # Another decoder gives other pixels, and what is damaged is made anew.
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(device_loader.cv2, '__version__', '0')
    load()
  assert len(list(tmp_path.iterdir())) == 3
  for cache in tmp_path.iterdir():
    cache.write_bytes(cache.read_bytes()[:-1000])
  np.testing.assert_array_equal(load(), first)
  for cache in tmp_path.iterdir():
    cache.write_bytes(b'')
  np.testing.assert_array_equal(load(), first)
  assert len(list(tmp_path.iterdir())) == 3


def test_room_for_the_decoded_pairs_is_taken_first(
  pairs, tmp_path, monkeypatch
):
  def fill(number, start, size):
    assert (start, size) == (0, 128 + COUNT * 32 * 48 * 4)
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(os, 'posix_fallocate', fill)
  # Without it, writing to mapped memory would kill the process.
  monkeypatch.setattr(device_loader, '_decode_into', None)
  with pytest.raises(OSError, match='No space left') as raised:
    device_loader.load_pixels(pairs, decode=_decode(), cache_dir=tmp_path)
  assert raised.value.filename.endswith('.npy')
  assert not list(tmp_path.iterdir())


def test_fewer_images_than_a_batch_is_an_error(pairs):
  with pytest.raises(ValueError, match=r'batch_size \(=4\)'):
    _iterate(pairs[:3])


def test_decoded_pairs_of_a_stored_set_are_kept_by_its_stamp(pairs, tmp_path):
  def load(stamp):
    def store(path):
      return images.Encoded(
        path.name, stamp=f'{stamp} {path.name}', read_bytes=path.read_bytes
      )

    stored = [
      dataclasses.replace(
        pair,
        image_path=store(pair.image_path),
        mask_path=store(pair.mask_path),
      )
      for pair in pairs
    ]
    return device_loader.load_pixels(
      stored, decode=_decode(), cache_dir=tmp_path
    )

  expected = device_loader.load_pixels(pairs, decode=_decode(), cache_dir='')
  for stamp, kept in (('first', 1), ('first', 1), ('second', 2)):
    np.testing.assert_array_equal(load(stamp), expected)
    assert len(list(tmp_path.iterdir())) == kept
