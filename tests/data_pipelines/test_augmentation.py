"""Augmentation against formulas and other implementations."""

import cv2
import grain
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import ndimage

from data_pipelines.batches import (
  device_augment,
  effects,
  loader,
  transforms,
)
from data_pipelines.datasets import demo, folder, records
from data_pipelines.io import images

ALL = {
  'flip': 0.5,
  'min_scale': 0.6,
  'rotate': 15.0,
  'color': 0.4,
  'blur': 0.5,
  'noise': 0.5,
  'jpeg': 0.5,
  'background': 0.5,
  'plain': 0.5,
}
WEIGHTS = dict.fromkeys(records.LABELS, 1.0)


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
  directory = tmp_path_factory.mktemp('demo')
  demo.make_demo(directory, count=9, size=(40, 56), seed=3)
  return folder.read_folder(directory)


def _photo(rng, size=(48, 64)):
  coarse = rng.integers(40, 216, (6, 8, 3), np.uint8)
  return np.asarray(Image.fromarray(coarse).resize(size[::-1]))


def _iterate(pairs, *, threads, augment, sharding=None):
  decode = transforms.Decode((32, 48), allow_empty=False, label_weights=WEIGHTS)
  return loader.make_train_iterator(
    pairs,
    decode=decode,
    augment=transforms.Augment(**augment),
    batch_size=4,
    seed=5,
    read_options=grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2),
    sharding=sharding or loader.Sharding(),
  )


def _write_pair(directory, photo, mask):
  paths = directory / 'photo.png', directory / 'mask.png'
  for path, array in zip(paths, (photo, mask[..., 0]), strict=True):
    Image.fromarray(array).save(path)
  return records.Pair(
    name='a', category='', image_path=paths[0], mask_path=paths[1]
  )


@pytest.mark.parametrize('larger', [1, 2])
@pytest.mark.parametrize('angle', [0.0, 12.0, -30.0])
@pytest.mark.parametrize('flip', [False, True])
def test_a_view_of_a_ramp_has_the_values_of_its_sources(angle, flip, larger):
  """Of a plane, bilinear sampling is exact: the formula gives each pixel."""
  height, width, scale, offset = 60, 90, 0.5, (0.25, 0.75)
  y, x = np.mgrid[: larger * height, : larger * width] / larger + 0.5 / larger
  ramp = np.round(x + 2 * y).astype(np.uint8)
  view = effects.View(flip=flip, scale=scale, angle=angle, offset=offset)
  seen = effects.apply_view(ramp, view, size=(height, width))
  coloured = np.stack([ramp] * 3, axis=-1)
  colours = effects.apply_view(coloured, view, size=(height, width))
  np.testing.assert_array_equal(colours, np.stack([seen] * 3, axis=-1))
  y, x = np.mgrid[:height, :width] + 0.5
  turn = np.deg2rad(angle)
  reach_x = width * np.cos(turn) + height * abs(np.sin(turn))
  reach_y = height * np.cos(turn) + width * abs(np.sin(turn))
  u = (width - x if flip else x) - width / 2
  v = y - height / 2
  # Down is positive: the region is turned one way, its content the other.
  source_x = width / 2 + (offset[1] - 0.5) * (width - scale * reach_x)
  source_x = source_x + scale * (u * np.cos(turn) - v * np.sin(turn))
  source_y = height / 2 + (offset[0] - 0.5) * (height - scale * reach_y)
  source_y = source_y + scale * (u * np.sin(turn) + v * np.cos(turn))
  inner = (slice(3, -3), slice(3, -3))  # Edges have no neighbours to mix with.
  # Three times rounded to whole numbers, the last time downwards if turned.
  np.testing.assert_allclose(
    seen[inner], (source_x + 2 * source_y)[inner], atol=2.0 if angle else 1.0
  )


def test_crops_have_the_detail_of_the_file(tmp_path, rng):
  """A crop is not what is left after reducing the whole photo."""
  stripes = np.zeros((400, 400, 3), np.uint8)
  stripes[:, ::4] = stripes[:, 1::4] = 255
  pair = _write_pair(tmp_path, stripes, np.full((400, 400, 1), 255, np.uint8))
  decode = transforms.Decode(
    (100, 100), allow_empty=False, label_weights=WEIGHTS
  )
  assert decode.map(pair)['image'].std() < 10
  close = decode.read(pair, effects.View(scale=0.25))
  assert close['image'].std() > 100


@pytest.fixture
def _black_beyond(monkeypatch):
  """What a view takes from beyond a picture is black, not its last pixel."""
  warp = cv2.warpAffine

  def warp_marking(*arguments, borderMode, **options):  # noqa: N803
    constant = {'borderMode': cv2.BORDER_CONSTANT, 'borderValue': 0}
    return warp(*arguments, **options, **constant)

  monkeypatch.setattr(cv2, 'warpAffine', warp_marking)


@pytest.mark.parametrize(
  ('size', 'count'),
  [((37, 53), 400), ((74, 106), 200), ((480, 640), 50), ((192, 1024), 50)],
)
@pytest.mark.parametrize('min_scale', [0.3, 0.7, 1.0])
def test_nothing_is_made_up_at_the_edges(
  size, count, min_scale, rng, _black_beyond
):
  augment = transforms.Augment(flip=0.5, min_scale=min_scale, rotate=45.0)
  for shape in ((37, 53), (30, 40)):
    white = np.full((*shape, 3), 255, np.uint8)
    for _ in range(count // 2):
      seen = effects.apply_view(white, augment.draw_view(rng), size=size)
      assert seen.shape == (*size, 3)
      # Half of a pixel of the border is between it and its neighbour beyond,
      # and a quarter in a corner.
      assert seen.min() >= 60


@pytest.mark.parametrize('angle', [0.0, 20.0, -35.0])
@pytest.mark.parametrize('flip', [False, True])
def test_a_mirrored_picture_is_seen_mirrored(angle, flip, rng):
  photo = _photo(rng, (60, 80))
  view = effects.View(flip=flip, scale=0.6, angle=angle, offset=(0.3, 0.8))
  mirrored = effects.View(
    flip=not flip, scale=0.6, angle=-angle, offset=(0.3, 0.2)
  )
  for size in ((30, 40), (48, 48), (90, 70)):
    seen = effects.apply_view(photo, view, size=size).astype(int)
    other = effects.apply_view(photo[:, ::-1].copy(), mirrored, size=size)
    np.testing.assert_allclose(other, seen, atol=4)
    assert np.abs(seen - seen[:, ::-1]).max() > 30


@pytest.mark.parametrize(
  'change',
  [
    lambda p: np.asarray(
      images.resize_input(Image.fromarray(p), size=(p.shape[0] // 3, 40))
    ),
    lambda p: np.asarray(
      images.resize_input(Image.fromarray(p), size=(2 * p.shape[0], 200))
    ),
    lambda p: effects.blur(p, radius=1.7),
    lambda p: effects.fill_foreground(p, p[..., :1]),
    lambda p: device_augment._fill(jnp.dstack([p, p[..., :1]])[None] * 1.0)[0],
    lambda p: device_augment._blur(
      jnp.asarray(p[None] * 1.0), jnp.full((1, 1, 1, 1), 1.3), reach=5
    )[0],
  ],
  ids=['reduce', 'enlarge', 'blur', 'fill', 'device fill', 'device blur'],
)
def test_what_is_done_to_a_mirrored_picture_is_mirrored(change, rng):
  photo = _photo(rng, (64, 128)).copy()
  photo[20:, :, 0] = 0  # Known background, where that is asked for.
  expected = np.asarray(change(photo)).astype(float)
  for axis in (0, 1):
    actual = np.flip(change(np.flip(photo, axis).copy()), axis)
    np.testing.assert_allclose(actual, expected, atol=1.01)


def test_color_is_pillows_and_keeps_grey(rng):
  photo = _photo(rng)
  still = {'brightness': 1.0, 'contrast': 1.0, 'saturation': 1.0, 'hue': 0.0}
  np.testing.assert_array_equal(effects.change_color(photo, **still), photo)
  for name, enhance in (
    ('brightness', ImageEnhance.Brightness),
    ('saturation', ImageEnhance.Color),
  ):
    for factor in (0.6, 1.3):
      ours = effects.change_color(photo, **{**still, name: factor})
      theirs = np.asarray(enhance(Image.fromarray(photo)).enhance(factor))
      np.testing.assert_allclose(ours, theirs.astype(int), atol=1.5)
  contrast = effects.change_color(photo, **{**still, 'contrast': 0.5})
  np.testing.assert_allclose(contrast, photo * 0.5 + 63.75, atol=0.51)
  grey = np.repeat(photo[..., :1], 3, axis=-1)
  turned = effects.change_color(grey, **{**still, 'hue': 0.3})
  np.testing.assert_allclose(turned.astype(int), grey, atol=1)
  turned = effects.change_color(photo, **{**still, 'hue': 0.02})
  assert np.abs(turned.astype(int) - photo).max() > 3
  luma = [np.asarray(Image.fromarray(p).convert('L')) for p in (photo, turned)]
  np.testing.assert_allclose(*[p.astype(int) for p in luma], atol=1.5)


def test_blur_noise_and_jpeg(rng):
  photo = _photo(rng, (64, 64))
  expected = ndimage.gaussian_filter(
    photo.astype(float), (1.5, 1.5, 0), mode='nearest'
  )
  blurred = effects.blur(photo, radius=1.5)
  np.testing.assert_allclose(blurred, expected, atol=3)
  flat = np.full((100, 100, 3), 128, np.uint8)
  noisy = effects.add_noise(flat, deviation=6.0, seed=1)
  assert noisy.mean() == pytest.approx(128, abs=0.2)
  assert noisy.std() == pytest.approx(6, abs=0.2)
  assert (noisy == effects.add_noise(flat, deviation=6.0, seed=1)).all()
  errors = [
    np.abs(effects.compress(photo, quality=quality).astype(int) - photo).mean()
    for quality in (90, 30)
  ]
  assert 0 < errors[0] < errors[1] < 10


def test_a_replaced_background_leaves_no_rim(rng):
  y, x = np.mgrid[:48, :64]
  alpha = np.clip((16 - np.hypot(x - 30, y - 20)) / 6, 0, 1)[..., None]
  first, old, new = (np.array(c) for c in ([250, 20, 90], [10, 200, 30], 180))
  photo = np.round(alpha * first + (1 - alpha) * old).astype(np.uint8)
  mask = np.round(alpha * 255).astype(np.uint8)
  background = np.full((48, 64, 3), new, np.uint8)
  # The old background is found to the pixel, under the disc too.
  np.testing.assert_allclose(
    effects.fill_foreground(photo, mask),
    np.broadcast_to(old, (48, 64, 3)),
    atol=8,
  )
  changed = effects.replace_background(photo, mask, background)
  np.testing.assert_allclose(changed, alpha * first + (1 - alpha) * new, atol=6)
  everything = np.full_like(mask, 255)
  same = effects.replace_background(photo, everything, background)
  np.testing.assert_array_equal(same, photo)


def test_a_plain_background_changes_evenly_from_one_colour_to_another():
  colors = np.array([[200.0, 100, 0], [240, 60, 0]])
  right = effects.make_plain_background((30, 40), colors=colors, angle=0.0)
  assert right.shape == (30, 40, 3)
  assert (right == right[:1]).all()
  steps = np.diff(right[0].astype(int), axis=0)
  assert (steps[:, 0] >= 0).all() and (steps[:, 1] <= 0).all()
  assert right[..., 0].min() >= 200 and right[..., 0].max() <= 240
  down = effects.make_plain_background((30, 40), colors=colors, angle=np.pi / 2)
  assert (down == down[:, :1]).all()


def test_plain_backgrounds_are_as_many_as_asked_for(pairs):
  decode = transforms.Decode((32, 48), allow_empty=False, label_weights=WEIGHTS)
  element = decode.map(pairs[0])
  empty = element['alpha'][..., 0] == 0

  def count_smooth(plain):
    augment = transforms.Augment(background=1.0, plain=plain)
    random = transforms.RandomDecode(decode, augment, pairs[1:])
    images = [
      random.random_map(pairs[0], np.random.default_rng(seed))['image']
      for seed in range(40)
    ]
    return sum(
      int(np.ptp(image[empty], axis=0).max()) <= 90 for image in images
    )

  assert count_smooth(1.0) == 40
  assert count_smooth(0.0) < 5
  assert 10 < count_smooth(0.5) < 30


def test_photometric_effects_leave_alpha_and_geometry_alone(tmp_path, rng):
  photo = _photo(rng)
  grey = np.repeat(photo[..., :1], 3, axis=-1)
  pair = _write_pair(tmp_path, grey, photo[..., :1])
  geometry = {**ALL, 'background': 0.0}
  geometry |= {'color': 0.0, 'blur': 0.0, 'noise': 0.0, 'jpeg': 0.0}
  decode = transforms.Decode((48, 64), allow_empty=False, label_weights=WEIGHTS)
  plain, full = (
    transforms.RandomDecode(decode, transforms.Augment(**settings), [pair])
    for settings in (geometry, ALL)
  )
  views = set()
  for seed in range(20):
    moved = plain.random_map(pair, np.random.default_rng(seed))
    np.testing.assert_array_equal(moved['image'][..., :1], moved['alpha'])
    changed = full.random_map(pair, np.random.default_rng(seed))
    np.testing.assert_array_equal(changed['alpha'], moved['alpha'])
    assert (changed['image'] != moved['image']).any()
    views.add(moved['alpha'].tobytes())
  assert len(views) == 20


def test_backgrounds_come_from_other_photos(tmp_path, pairs):
  decode = transforms.Decode((32, 48), allow_empty=True, label_weights=WEIGHTS)
  always = transforms.RandomDecode(
    decode,
    transforms.Augment(flip=0.0, min_scale=1.0, background=1.0),
    pairs[1:],
  )
  element = decode.map(pairs[0])
  solid = element['alpha'][..., 0] == 255
  empty = element['alpha'][..., 0] == 0
  for seed in range(5):
    result = always.random_map(pairs[0], np.random.default_rng(seed))
    np.testing.assert_array_equal(result['alpha'], element['alpha'])
    np.testing.assert_array_equal(
      result['image'][solid], element['image'][solid]
    )
    assert (result['image'][empty] != element['image'][empty]).mean() > 0.5
  photo = element['image']
  none = _write_pair(tmp_path, photo, np.zeros_like(photo[..., :1]))
  same = always.random_map(none, np.random.default_rng(0))
  np.testing.assert_array_equal(same['image'], photo)


def test_all_effects_depend_on_seed_epoch_and_element_alone(pairs):
  alone = _iterate(pairs, threads=1, augment=ALL)
  reference = [next(alone) for _ in range(6)]  # Three epochs.
  threads = _iterate(pairs, threads=6, augment=ALL)
  parts = [
    _iterate(
      pairs,
      threads=2,
      augment=ALL,
      sharding=loader.Sharding(index=index, count=2),
    )
    for index in range(2)
  ]
  for step, whole in enumerate(reference):
    same = next(threads)
    if step == 2:
      state = threads.get_state()
    halves = [next(part) for part in parts]
    for key in whole:
      np.testing.assert_array_equal(same[key], whole[key])
      mixed = np.stack([half[key] for half in halves], axis=1)
      np.testing.assert_array_equal(mixed.reshape(whole[key].shape), whole[key])
  resumed = _iterate(pairs, threads=3, augment=ALL)
  resumed.set_state(state)
  for whole in reference[3:]:
    batch = next(resumed)
    np.testing.assert_array_equal(batch['image'], whole['image'])
  pictures = np.concatenate([b['image'] for b in reference]).reshape(24, -1)
  assert len(np.unique(pictures, axis=0)) == 24  # Each epoch anew.


@pytest.mark.parametrize(
  ('key', 'value'),
  [('rotate', 60.0), ('color', 1.5), ('jpeg', -0.1), ('min_scale', 0.0)],
)
def test_wrong_values_are_named(key, value):
  with pytest.raises(ValueError, match=rf'augment\.{key}={value} is not in'):
    transforms.Augment(**{**ALL, key: value})


def test_reduced_decoding_is_a_good_downscale(tmp_path):
  """As near to an ideal filter as a box filter on the whole photo is."""
  rng = np.random.default_rng(2)
  octaves = [
    Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)).resize(
      (1000, 1000), Image.Resampling.BICUBIC
    )
    for n in (8, 32, 128, 500)
  ]
  shares = (0.4, 0.3, 0.2, 0.1)
  mixed = sum(
    s * np.asarray(o, float) for s, o in zip(shares, octaves, strict=True)
  )
  path = tmp_path / 'photo.jpg'
  Image.fromarray(mixed.astype(np.uint8)).save(path, quality=95)
  whole = Image.open(path)
  ideal = np.asarray(whole.resize((512, 512), Image.Resampling.LANCZOS), float)

  def error(picture):
    return np.sqrt(((np.asarray(picture, float) - ideal) ** 2).mean())

  mask = Image.new('L', (1000, 1000), 255)
  mask.save(tmp_path / 'mask.png')
  decoded = transforms.Decode(
    (512, 512), allow_empty=False, label_weights=WEIGHTS
  ).map(
    records.Pair(
      name='a',
      category='',
      image_path=path,
      mask_path=tmp_path / 'mask.png',
    )
  )['image']
  box = error(whole.resize((512, 512), Image.Resampling.BOX))
  crude = error(whole.resize((512, 512), Image.Resampling.NEAREST))
  assert error(decoded) < 1.2 * box < crude
