"""What is saved: kinds, formats, backgrounds, depth."""

import dataclasses
import importlib
import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageCms

from data_pipelines.io import errors
from rmbg_jax import choices
from rmbg_jax.inference import foreground, photos, refinement, rendering

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()


def _disc(size=(60, 80), softness=6.0):
  y, x = np.mgrid[: size[0], : size[1]]
  distance = np.hypot(y - size[0] / 2, x - size[1] / 2) - size[0] / 3
  return np.clip(0.5 - distance / softness, 0, 1).astype(np.float32)


def _scene(size=(60, 80)):
  """A red disc before green, blended by a soft alpha."""
  alpha = _disc(size)
  red, green = np.array([230, 20, 30]), np.array([10, 200, 40])
  pixels = alpha[..., None] * red + (1 - alpha[..., None]) * green
  photo = photos.Photo(rgb=Image.fromarray(pixels.astype(np.uint8)))
  return photo, alpha


def _render(kind, style, photo, alpha):
  content = style.render(photo, alpha, (kind,))[kind]
  image = Image.open(io.BytesIO(content))
  image.load()
  return image


@pytest.fixture(params=['small', 'large'])
def any_size(request, monkeypatch):
  """Both ways: of large photos, the next to finest level is left out."""
  if request.param == 'large':
    monkeypatch.setattr(foreground, '_LARGE', 0)


@pytest.mark.usefixtures('any_size')
def test_foreground_colours_have_no_halo():
  photo, alpha = _scene()
  image = np.asarray(photo.rgb, np.float32) / 255
  estimate = foreground.estimate_foreground(image, alpha)
  band = (alpha > 0.05) & (alpha < 0.95)
  truth = np.array([230, 20, 30]) / 255
  before = np.abs(image - truth)[band].mean()
  assert before > 0.2 and np.abs(estimate - truth)[band].mean() < 0.1 * before
  np.testing.assert_array_equal(
    estimate[~band & (alpha == 1)], image[alpha == 1]
  )


@pytest.mark.usefixtures('any_size')
def test_foreground_colours_equal_pymatting_s():
  pymatting = pytest.importorskip('pymatting')
  rng = np.random.default_rng(0)
  alpha = _disc((90, 120), softness=25.0)
  coarse = [rng.random((6, 8, 3)).astype(np.float32) for _ in range(2)]
  front, back = (
    np.dstack(
      [
        np.asarray(Image.fromarray(plane[..., c]).resize((120, 90), 2))
        for c in range(3)
      ]
    )
    for plane in coarse
  )
  image = alpha[..., None] * front + (1 - alpha[..., None]) * back
  actual = foreground.estimate_foreground(image, alpha)
  # Its levels are half of a pixel off, to the other side if mirrored: the mean
  # has the colours at their places.
  expected = np.mean(
    [
      np.flip(
        pymatting.estimate_foreground_ml(
          np.flip(image, axes).copy(), np.flip(alpha, axes).copy()
        ),
        axes,
      )
      for axes in ((), (0,), (1,), (0, 1))
    ],
    axis=0,
  )
  weight = alpha[..., None] * ((alpha > 0.01) & (alpha < 0.99))[..., None]
  near = (weight * np.abs(actual - expected)).sum() / weight.sum()
  effect = (weight * np.abs(image - expected)).sum() / weight.sum()
  assert near < 0.2 * effect


@pytest.mark.parametrize('shape', [(90, 120), (101, 151)])
def test_foreground_colours_of_a_mirrored_photo_are_mirrored(shape):
  rng = np.random.default_rng(0)
  image = np.asarray(
    Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize(
      shape[::-1]
    )
  )
  alpha = _disc(shape, softness=12.0)
  expected = foreground.estimate_foreground(image, alpha).astype(int)
  for axis in (0, 1):
    actual = np.flip(
      foreground.estimate_foreground(
        np.flip(image, axis).copy(), np.flip(alpha, axis).copy()
      ),
      axis,
    )
    seen = alpha[..., None] * np.abs(actual - expected)
    assert seen.mean(axis=-1)[(alpha > 0) & (alpha < 1)].mean() < 0.5


@pytest.mark.parametrize('shape', [(90, 120), (33, 200)])
def test_foreground_colours_do_not_depend_on_the_tiles(shape, monkeypatch):
  rng = np.random.default_rng(0)
  image = rng.random((*shape, 3)).astype(np.float32)
  alpha = _disc(shape, softness=9.0)
  found = []
  for tile in ((8, 16), (33, 50), (999, 999)):
    monkeypatch.setattr(foreground, '_TILE', tile)
    found.append(foreground.estimate_foreground(image, alpha))
  # Tiles without a mixed alpha are not computed; their colours hardly matter.
  for other in found[1:]:
    assert np.abs(other - found[0]).mean() < 2e-3
  soft = 0.1 + 0.8 * rng.random(shape).astype(np.float32)
  found = []
  for tile in ((8, 16), (33, 50), (999, 999)):
    monkeypatch.setattr(foreground, '_TILE', tile)
    found.append(foreground.estimate_foreground(image, soft))
  for other in found[1:]:
    np.testing.assert_array_equal(other, found[0])


@pytest.mark.parametrize('kind', [np.uint8, np.uint16])
def test_foreground_colours_of_integers_are_those_of_floats(kind):
  photo, alpha = _scene()
  pixels = np.asarray(photo.rgb, kind)
  top = np.iinfo(kind).max
  pixels = pixels * kind(top // 255)
  floats = foreground.estimate_foreground(pixels / np.float32(top), alpha)
  found = foreground.estimate_foreground(pixels, alpha)
  assert found.dtype == kind
  np.testing.assert_allclose(found, floats * top, atol=0.51 + top * 1e-5)


def test_foreground_colours_take_little_memory(monkeypatch):
  # What a tile takes on each core does not grow with the photo.
  monkeypatch.setattr(foreground.parallel, 'count_cores', lambda: 2)
  shape = (600, 800)
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (*shape, 3), np.uint8)
  alpha = np.full(shape, 0.5, np.float32)
  tracemalloc.start()
  foreground.estimate_foreground(pixels, alpha)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak / alpha.size < 50


@pytest.mark.parametrize('kind', choices.KINDS)
def test_results_take_little_memory_beside_the_photo(kind):
  shape = (1200, 1600)
  pixels = np.zeros((*shape, 3), np.uint8)
  photo = photos.Photo(rgb=Image.fromarray(pixels))
  style = rendering.Style(background='#102030')
  alpha = np.full(shape, 0.5, np.float32)
  tracemalloc.start()
  style.encode(kind, photo, alpha, pixels)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak / alpha.size < 25


@pytest.mark.parametrize(('form', 'side'), [('webp', 16_383), ('jpeg', 65_500)])
def test_results_too_large_for_their_format_are_named(form, side):
  style = rendering.Style(format=form, background='white')
  for width in (side, side + 1):
    photo = photos.Photo(rgb=Image.new('RGB', (width, 1)))
    alpha = np.ones((1, width), np.float32)
    if width == side:
      assert style.render(photo, alpha, ('composite',))['composite']
      continue
    with pytest.raises(errors.UserError, match=f'{width}x1 .*--format=png'):
      style.render(photo, alpha, ('composite',))


@pytest.mark.parametrize('shape', [(1, 1), (1, 50), (50, 1), (2, 3)])
def test_thin_images_have_a_foreground(shape):
  image = np.full((*shape, 3), 0.5, np.float32)
  alpha = np.full(shape, 0.5, np.float32)
  estimate = foreground.estimate_foreground(image, alpha)
  np.testing.assert_allclose(estimate, image, atol=1e-3)


def test_cutout_and_composite_carry_no_green():
  photo, alpha = _scene()
  band = (alpha > 0.3) & (alpha < 0.7)
  cutout = np.asarray(_render('cutout', rendering.Style(), photo, alpha))
  np.testing.assert_array_equal(cutout[..., 3], np.round(alpha * 255))
  assert cutout[band][:, 1].max() < 45
  style = rendering.Style(background='#ffffff')
  composite = np.asarray(_render('composite', style, photo, alpha), float)
  expected = alpha[..., None] * cutout[..., :3] + 255 * (1 - alpha[..., None])
  np.testing.assert_allclose(composite, expected, atol=1)
  plain = rendering.Style(estimate_foreground=False)
  kept = np.asarray(_render('cutout', plain, photo, alpha))
  np.testing.assert_array_equal(kept[..., :3], np.asarray(photo.rgb))


def test_side_by_side_is_photo_line_product():
  photo, alpha = _scene()
  picture = np.asarray(_render('side_by_side', rendering.Style(), photo, alpha))
  pixels = np.asarray(photo.rgb)
  np.testing.assert_array_equal(picture[:, :80], pixels)
  assert (picture[:, 80:90] == 128).all()
  np.testing.assert_array_equal(
    picture[:, 90:], np.round(pixels * alpha[..., None])
  )


@pytest.mark.parametrize('form', choices.FORMATS)
def test_formats_and_profiles(form):
  photo, alpha = _scene()
  photo = photos.Photo(rgb=photo.rgb, icc_profile=PROFILE)
  style = rendering.Style(format=form, background='white')
  for kind in choices.KINDS:
    image = _render(kind, style, photo, alpha)
    lossless = form == 'jpeg' and kind in ('mask', 'trimap')
    assert image.format == ('PNG' if lossless else form.upper())
    suffix = '.' + image.format.lower().replace('jpeg', 'jpg')
    assert style.suffix(kind) == suffix
    profile = image.info.get('icc_profile')
    assert profile == (None if kind in ('mask', 'trimap') else PROFILE)
    if kind == 'mask':
      # WebP has no grey: three equal channels.
      values = np.asarray(image.convert('L'))
      np.testing.assert_array_equal(values, np.round(alpha * 255))


def test_backgrounds(tmp_path):
  photo, alpha = _scene()
  path = tmp_path / 'blue.png'
  Image.new('RGB', (7, 5), (0, 0, 255)).save(path)
  far = alpha == 0
  style = rendering.Style(background=str(path))
  composite = np.asarray(_render('composite', style, photo, alpha))
  assert (composite[far] == (0, 0, 255)).all()
  blurred = _render(
    'composite', rendering.Style(background='blur'), photo, alpha
  )
  # The foreground's red does not bleed into what is behind.
  assert np.asarray(blurred)[far][:, 0].max() < 60  # Of 230.


def test_backgrounds_keep_their_colours(tmp_path):
  # Of this profile, red and green are exchanged.
  swapped = _exchange_red_and_green(PROFILE)
  photo, alpha = _scene()
  photo = dataclasses.replace(photo, icc_profile=swapped)
  far = alpha == 0

  def find(background):
    style = rendering.Style(background=str(background))
    composite = np.asarray(_render('composite', style, photo, alpha))[far]
    assert (composite == composite[0]).all()
    return composite[0]

  np.testing.assert_allclose(find('#c81e1e'), (30, 200, 30), atol=2)
  picture = Image.new('RGB', (7, 5), (200, 30, 30))
  picture.save(tmp_path / 'plain.png')
  found = find(tmp_path / 'plain.png')
  np.testing.assert_allclose(found, (30, 200, 30), atol=2)
  picture.save(tmp_path / 'swapped.png', icc_profile=swapped)
  assert find(tmp_path / 'swapped.png').tolist() == [200, 30, 30]
  Image.new('RGBA', (7, 5)).save(tmp_path / 'transparent.png')
  found = find(tmp_path / 'transparent.png')
  np.testing.assert_allclose(found, (255, 255, 255), atol=2)
  with pytest.raises(ValueError, match='#ff000040: .*no transparency'):
    rendering.Style(background='#ff000040')


def _exchange_red_and_green(profile):
  """Returns an ICC profile of RGB with two columns of its matrix exchanged."""
  return (
    profile.replace(b'rXYZ', b'????')
    .replace(b'gXYZ', b'rXYZ')
    .replace(b'????', b'gXYZ')
  )


def test_colours_stored_with_transparency_stay():
  photo, alpha = _scene()
  opacity = np.full(alpha.shape, 255, np.uint8)
  opacity[:, ::2] = 128
  soft = dataclasses.replace(photo, opacity=Image.fromarray(opacity))
  pixels = np.asarray(photo.rgb)
  colours = rendering.Style().find_colours(
    soft, soft.hide_transparent(alpha), ('cutout',)
  )
  np.testing.assert_array_equal(colours[:, ::2], pixels[:, ::2])
  # What is opaque has the foreground's colours as without transparency.
  expected = rendering.Style().find_colours(photo, alpha, ('cutout',))
  np.testing.assert_allclose(
    colours[:, 1::2].astype(int), expected[:, 1::2], atol=2
  )
  assert (expected != pixels).any()


def test_trim_cuts_to_what_is_visible():
  photo, alpha = _scene()
  rows, columns = np.nonzero(alpha >= 0.5 / 255)
  style = rendering.Style(trim=True)
  image = _render('cutout', style, photo, alpha)
  assert image.size == (np.ptp(columns) + 1, np.ptp(rows) + 1)
  assert _render('mask', style, photo, alpha).size == photo.rgb.size
  nothing = np.zeros_like(alpha)
  assert _render('cutout', style, photo, nothing).size == photo.rgb.size


def test_16_bits_reach_the_cutout_with_their_profile():
  cv2 = pytest.importorskip('cv2')
  photo, alpha = _scene()
  deep = np.asarray(photo.rgb).astype(np.uint16) * 257 - 3
  photo = photos.Photo(rgb=photo.rgb, deep=deep, icc_profile=PROFILE)
  style = rendering.Style(estimate_foreground=False)
  content = style.render(photo, alpha, ('cutout',))['cutout']
  decoded = cv2.imdecode(np.frombuffer(content, np.uint8), -1)
  assert decoded.dtype == np.uint16
  np.testing.assert_array_equal(decoded[..., 2::-1], deep)
  np.testing.assert_array_equal(decoded[..., 3], np.round(alpha * 65535))
  assert Image.open(io.BytesIO(content)).info['icc_profile'] == PROFILE


def test_guided_edges_follow_the_photo():
  truth = (_disc((240, 320), softness=1.0) > 0.5).astype(np.float32)
  pixels = np.where(truth[..., None] > 0, (200, 60, 50), (60, 90, 160))
  photo = Image.fromarray(pixels.astype(np.uint8))
  small = Image.fromarray(truth).resize((40, 30), Image.Resampling.BOX)
  probs = np.asarray(small)
  errors = {
    method: np.abs(
      refinement.Refinement(method=method).apply(probs, photo) - truth
    ).mean()
    for method in ('none', 'guided')
  }
  assert errors['guided'] < 0.5 * errors['none']


def _soft_disc():
  """Returns alpha, its photo, and alpha as a network finds it."""
  truth = _disc((120, 160), softness=12.0)
  pixels = truth[..., None] * (230, 30, 20) + (1 - truth[..., None]) * (
    9,
    30,
    200,
  )
  photo = Image.fromarray(pixels.astype(np.uint8))
  return truth, photo, np.asarray(Image.fromarray(truth).resize((32, 24), 4))


def test_matting_solves_the_band():
  pytest.importorskip('pymatting')
  truth, photo, probs = _soft_disc()
  errors = {
    method: np.abs(
      refinement.Refinement(method=method).apply(probs, photo) - truth
    ).mean()
    for method in ('none', 'matting')
  }
  assert errors['matting'] < 0.5 * errors['none']
  # Nothing to solve: all foreground.
  ones = np.ones((24, 32), np.float32)
  result = refinement.Refinement(method='matting').apply(ones, photo)
  assert (result == 1).all()


def test_largest_part_holes_and_threshold():
  probs = np.zeros((40, 40), np.float32)
  probs[2:30, 2:30] = 0.9
  probs[10:14, 10:14] = 0  # A hole.
  probs[34:38, 34:38] = 0.8  # An island.
  photo = Image.new('RGB', (40, 40))

  def apply(**options):
    return refinement.Refinement(**options).apply(probs, photo)

  assert apply(keep_largest=True)[36, 36] == 0
  assert apply(keep_largest=True)[20, 20] == np.float32(0.9)
  filled = apply(fill_holes=True)
  assert filled[12, 12] == 1 and filled[0, 0] == 0
  assert set(np.unique(apply(threshold=0.85))) == {0, 1}
  assert apply(threshold=0.85)[36, 36] == 0
  with pytest.raises(ValueError, match='Unknown refinement'):
    refinement.Refinement(method='magic')


@pytest.mark.parametrize(
  'error', [RuntimeError('no locator available'), PermissionError('denied')]
)
def test_matting_where_nothing_compiled_can_be_kept(error, monkeypatch):
  def fail(name):
    raise error

  monkeypatch.setattr(importlib, 'import_module', fail)
  with pytest.raises(errors.UserError, match='NUMBA_CACHE_DIR'):
    refinement.Refinement(method='matting')
