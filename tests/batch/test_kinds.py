"""The kinds of results for compositing, matting and looking."""

import io

import numpy as np
import pytest
from PIL import Image

from data_pipelines.io import errors
from rmbg_jax.inference import photos, rendering


def _scene(kind=np.uint8):
  """A red box with soft edges before green, and its alpha."""
  alpha = np.zeros((60, 80), np.float32)
  alpha[20:40, 20:60] = 1
  alpha[20:40, 60:64] = 0.5
  top = np.iinfo(kind).max
  red, green = np.float32([1, 0, 0]), np.float32([0, 1, 0])
  pixels = alpha[..., None] * red + (1 - alpha[..., None]) * green
  rgb = Image.fromarray(np.round(pixels * 255).astype(np.uint8))
  deep = np.round(pixels * top).astype(kind) if kind != np.uint8 else None
  return photos.Photo(rgb=rgb, deep=deep), alpha


def _render(kind, style, photo, alpha):
  content = style.render(photo, alpha, (kind,))[kind]
  return np.asarray(Image.open(io.BytesIO(content)))


def test_foregrounds_have_no_background_anywhere():
  photo, alpha = _scene()
  colours = _render('foreground', rendering.Style(), photo, alpha)
  assert colours.shape == (60, 80, 3)
  assert colours[..., 1].max() < 60 and colours[..., 0].min() > 190
  # Over any background with the mask it is the composite.
  style = rendering.Style(background='#102030')
  mask = _render('mask', style, photo, alpha)[..., None] / 255
  mixed = colours * mask + np.float32([16, 32, 48]) * (1 - mask)
  composite = _render('composite', style, photo, alpha)
  np.testing.assert_allclose(composite, mixed, atol=1)


def test_foregrounds_of_16_bits():
  cv2 = pytest.importorskip('cv2')
  photo, alpha = _scene(np.uint16)
  content = rendering.Style().render(photo, alpha, ('foreground',))
  array = np.frombuffer(content['foreground'], np.uint8)
  colours = cv2.imdecode(array, cv2.IMREAD_UNCHANGED)
  assert colours.dtype == np.uint16
  assert colours[..., 2].min() > 190 * 257 > 60 * 257 > colours[..., 1].max()


@pytest.mark.parametrize('value', [0.0, 1.0])
def test_foregrounds_where_there_is_none_or_nothing_else(value):
  photo, alpha = _scene()
  alpha = np.full_like(alpha, value)
  colours = _render('foreground', rendering.Style(), photo, alpha)
  np.testing.assert_array_equal(colours, np.asarray(photo.rgb))


def test_a_tiny_foreground_in_a_large_photo():
  photo = photos.Photo(rgb=Image.new('RGB', (3000, 100), (0, 255, 0)))
  photo.rgb.putpixel((5, 5), (255, 0, 0))
  alpha = np.zeros((100, 3000), np.float32)
  alpha[5, 5] = 1
  colours = _render('foreground', rendering.Style(), photo, alpha)
  assert colours[..., 0].min() > 200 and colours[..., 1].max() < 50


@pytest.mark.parametrize('width', [0, 3])
def test_trimaps_have_a_band_of_the_given_width(width):
  photo, alpha = _scene()
  style = rendering.Style(trimap_width=width)
  trimap = _render('trimap', style, photo, alpha)
  expected = np.full(alpha.shape, 128, np.uint8)
  expected[20 + width : 40 - width, 20 + width : 60 - width] = 255
  outside = np.ones(alpha.shape, bool)
  outside[20 - width : 40 + width, 20 - width : 64 + width] = False
  expected[outside] = 0
  np.testing.assert_array_equal(trimap, expected)


def test_overlays_show_the_foreground_as_it_is():
  photo, alpha = _scene()
  picture = _render('overlay', rendering.Style(), photo, alpha)
  np.testing.assert_array_equal(
    picture[alpha == 1], np.asarray(photo.rgb)[alpha == 1]
  )
  assert (picture[alpha == 0] == (153, 102, 48)).all()


def test_what_contradicts_itself_is_refused():
  with pytest.raises(errors.UserError, match='--trimap_width=-1: choose 0'):
    rendering.Style(trimap_width=-1)
  style = rendering.Style(estimate_foreground=False)
  with pytest.raises(errors.UserError, match='--save=foreground is what'):
    style.check_kinds(('foreground',))
