"""Photos of every kind, with their bits, colours and profiles."""

import io
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from data_pipelines.io import errors, images, masks
from rmbg_jax.inference import photos
from tests.support import tiff_files

cv2 = pytest.importorskip('cv2')


def _pixels(shape=(6, 9), seed=0, dtype=np.uint8):
  high = np.iinfo(dtype).max
  return np.random.default_rng(seed).integers(0, high, (*shape, 3), dtype, True)


def _encode(image, form, **options):
  file = io.BytesIO()
  image.save(file, form, **options)
  return file.getvalue()


def test_lossless_formats_keep_the_pixels():
  pixels = _pixels()
  image = Image.fromarray(pixels)
  for form, options in (
    ('png', {}),
    ('bmp', {}),
    ('tiff', {}),
    ('webp', {'lossless': True}),
  ):
    photo = photos.read_photo(_encode(image, form, **options))
    np.testing.assert_array_equal(np.asarray(photo.rgb), pixels)
    assert photo.deep is None and photo.opacity is None and not photo.notes


@pytest.mark.parametrize('form', ['jpeg', 'avif', 'heif', 'gif'])
def test_lossy_formats_are_near(form):
  smooth = np.linspace(60, 200, 64 * 48 * 3).reshape(48, 64, 3).astype(np.uint8)
  pytest.importorskip('pillow_heif')
  photo = photos.read_photo(_encode(Image.fromarray(smooth), form))
  assert photo.rgb.size == (64, 48)
  difference = np.abs(np.asarray(photo.rgb, int) - smooth)
  assert difference.mean() < 8


def test_heic_without_its_library_names_it(monkeypatch, tmp_path):
  pytest.importorskip('pillow_heif')
  content = _encode(Image.fromarray(_pixels((64, 48))), 'heif')
  monkeypatch.delitem(Image.OPEN, 'HEIF')
  path = tmp_path / 'misnamed.jpg'
  path.write_bytes(content)
  stored = images.Encoded('s3://a', stamp='', read_bytes=lambda: content)
  for source in (content, path, stored):
    with pytest.raises(ValueError, match='HEIC photos need pillow-heif') as got:
      photos.read_photo(source)
    assert "pip install -e '.[heic]'" in str(got.value)
    assert len(str(got.value)) < 300
  # A name alone says nothing.
  path = tmp_path / 'misnamed.HEIC'
  Image.fromarray(_pixels()).save(path, 'jpeg')
  assert photos.read_photo(path).rgb.size == (9, 6)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_all_orientations_at_8_and_16_bits(orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  pixels = _pixels()
  image = Image.fromarray(pixels)
  content = _encode(image, 'png', exif=exif)
  upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
  expected = np.asarray(upright, np.uint16)
  photo = photos.read_photo(content)
  np.testing.assert_array_equal(np.asarray(photo.rgb), expected)
  # The same picture with 16 bits: its header says so, the tag comes along.
  deep = _add_exif(_encode_16(pixels.astype(np.uint16) * 257), exif)
  photo = photos.read_photo(deep)
  np.testing.assert_array_equal(photo.deep, expected * 257)
  assert photo.rgb.size == upright.size
  # As a TIFF, with transparency, and in grey.
  opacity = (_pixels(seed=1)[..., :1] // 2).astype(np.uint16) * 257
  rgba = np.dstack([pixels.astype(np.uint16) * 257, opacity])
  content = tiff_files.encode(rgba, orientation=orientation, extra=2)
  photo = photos.read_photo(content)
  np.testing.assert_array_equal(photo.deep, expected * 257)
  np.testing.assert_array_equal(photo.rgb, expected)
  stored = Image.fromarray((opacity[..., 0] // 257).astype(np.uint8))
  stored = Image.open(io.BytesIO(_encode(stored, 'png', exif=exif)))
  turned = np.asarray(ImageOps.exif_transpose(stored))
  np.testing.assert_array_equal(photo.opacity, turned)
  for big_endian in (False, True):
    content = tiff_files.encode(
      opacity, orientation=orientation, big_endian=big_endian
    )
    photo = photos.read_photo(content)
    np.testing.assert_array_equal(photo.deep[..., 0], turned * np.uint16(257))
    np.testing.assert_array_equal(np.asarray(photo.rgb)[..., 1], turned)


@pytest.mark.parametrize('has_opencv', [True, False])
def test_forms_of_16_bit_tiffs(has_opencv, monkeypatch):
  if not has_opencv:
    monkeypatch.setitem(sys.modules, 'cv2', None)
  pixels = _pixels(dtype=np.uint16)
  grey = pixels[..., 0]
  negative = tiff_files.encode(65535 - grey, white_zero=True)
  photo = photos.read_photo(negative)
  np.testing.assert_allclose(
    np.asarray(photo.rgb, int)[..., 0], grey / 257, atol=1
  )
  mask = np.asarray(masks.to_mask(images.open_image(negative)), int)
  np.testing.assert_allclose(mask, grey / 257, atol=1)
  if has_opencv:
    np.testing.assert_array_equal(photo.deep[..., 2], grey)
  # What is premultiplied comes out with the colours that it was made from.
  share = np.linspace(0.2, 1, 54).reshape(6, 9, 1)
  opacity = np.round(share * 65535)
  content = tiff_files.encode(
    np.dstack([np.round(pixels * share), opacity]).astype(np.uint16), extra=1
  )
  photo = photos.read_photo(content)
  np.testing.assert_allclose(photo.rgb, pixels / 257, atol=8)
  np.testing.assert_allclose(photo.opacity, opacity[..., 0] / 257, atol=1)
  if has_opencv:
    np.testing.assert_allclose(photo.deep, pixels, atol=4)
  with pytest.raises(ValueError, match='one plane per channel'):
    photos.read_photo(tiff_files.encode(pixels, planar=True))


def test_16_bit_grey_is_converted_by_its_profile():
  grey = np.linspace(0, 65535, 54).reshape(6, 9).astype(np.uint16)
  content = _encode(
    Image.fromarray(grey), 'png', icc_profile=_make_linear_grey()
  )
  photo = photos.read_photo(content)
  assert photo.deep is None
  assert photo.notes == ('reduced from 16 to 8 bits to convert its colours',)
  linear = grey / 65535
  expected = np.where(
    linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
  )
  np.testing.assert_allclose(
    np.asarray(photo.rgb)[..., 0], expected * 255, atol=8
  )


def _make_linear_grey():
  """Returns an ICC profile of grey whose values are amounts of light."""
  white = b'XYZ \0\0\0\0' + struct.pack('>III', 0xF6D6, 0x10000, 0xD32D)
  curve = b'curv' + bytes(8)
  tags = {b'wtpt': white, b'kTRC': curve}
  table, body = struct.pack('>I', len(tags)), b''
  for name, data in tags.items():
    start = 128 + 4 + 12 * len(tags) + len(body)
    table += name + struct.pack('>II', start, len(data))
    body += data
  head = struct.pack('>I4xI', 132 + 24 + len(body), 0x02100000)
  head += b'mntrGRAYXYZ ' + bytes(12) + b'acsp'
  head = head.ljust(68, b'\0') + white[8:]
  return head.ljust(128, b'\0') + table + body


@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_one_transparent_colour_of_16_bits(mode):
  pixels = np.full((6, 9, 3), 40_000, np.uint16)
  pixels[2:4] = 300
  pixels[4:] = 301
  if mode == 'L':
    image = Image.fromarray(pixels[..., 0])
    content = _encode(image, 'png', transparency=300)
  else:
    content = _encode_16(pixels)
    key = b'tRNS' + struct.pack('>HHH', 300, 300, 300)
    chunk = struct.pack('>I', 6) + key + struct.pack('>I', zlib.crc32(key))
    content = content[:33] + chunk + content[33:]
  photo = photos.read_photo(content)
  np.testing.assert_array_equal(photo.deep, pixels)
  np.testing.assert_array_equal(
    np.asarray(photo.opacity)[:, 0], [255, 255, 0, 0, 255, 255]
  )


def _encode_16(pixels, form='.png'):
  return cv2.imencode(form, np.ascontiguousarray(pixels[..., ::-1]))[
    1
  ].tobytes()


def _add_exif(png, exif):
  """Moves the eXIf chunk that Pillow writes into another PNG."""
  donor = _encode(Image.new('RGB', (1, 1)), 'png', exif=exif)
  start = donor.index(b'eXIf') - 4
  length = int.from_bytes(donor[start : start + 4], 'big') + 12
  return png[:33] + donor[start : start + length] + png[33:]


@pytest.mark.parametrize('form', ['.png', '.tiff'])
def test_16_bits_are_kept(form):
  pixels = _pixels(dtype=np.uint16)
  photo = photos.read_photo(_encode_16(pixels, form))
  np.testing.assert_array_equal(photo.deep, pixels)
  rgb = np.asarray(photo.rgb, int)
  np.testing.assert_allclose(rgb, pixels / 257, atol=1)


def test_16_bits_without_opencv_are_reduced_and_it_is_said(monkeypatch):
  monkeypatch.setitem(sys.modules, 'cv2', None)
  photo = photos.read_photo(_encode_16(_pixels(dtype=np.uint16)))
  assert photo.deep is None
  assert 'reduced from 16 to 8 bits' in photo.notes[0]


def test_grey_of_16_bits():
  grey = np.linspace(0, 65535, 54).reshape(6, 9).astype(np.uint16)
  photo = photos.read_photo(_encode(Image.fromarray(grey), 'png'))
  np.testing.assert_array_equal(photo.deep[..., 1], grey)
  assert photo.rgb.getextrema()[0] == (0, 255)


def test_transparency_is_kept_beside_the_colours():
  rgba = np.dstack([_pixels(), np.full((6, 9), 255, np.uint8)])
  assert (
    photos.read_photo(_encode(Image.fromarray(rgba), 'png')).opacity is None
  )
  rgba[:3, :, 3] = 0
  photo = photos.read_photo(_encode(Image.fromarray(rgba), 'png'))
  np.testing.assert_array_equal(np.asarray(photo.opacity), rgba[..., 3])
  np.testing.assert_array_equal(np.asarray(photo.rgb), rgba[..., :3])
  seen = np.asarray(photo.seen)
  assert (seen[:3] == 255).all()
  np.testing.assert_array_equal(seen[3:], rgba[3:, :, :3])


@pytest.mark.parametrize(
  'mode', ['1', 'L', 'LA', 'P', 'CMYK', 'I', 'F', 'YCbCr']
)
def test_other_modes(mode):
  image = Image.fromarray(_pixels()).convert('L').convert(mode)
  form = {'F': 'tiff', 'I': 'tiff', 'CMYK': 'jpeg', 'YCbCr': 'jpeg'}
  photo = photos.read_photo(_encode(image, form.get(mode, 'png')))
  assert (photo.rgb.mode, photo.rgb.size) == ('RGB', (9, 6))


def test_profiles_of_rgb_are_kept_and_others_converted():
  profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
  image = Image.fromarray(_pixels())
  photo = photos.read_photo(_encode(image, 'png', icc_profile=profile))
  assert photo.icc_profile == profile
  lab = ImageCms.ImageCmsProfile(ImageCms.createProfile('LAB')).tobytes()
  photo = photos.read_photo(_encode(image, 'png', icc_profile=lab))
  assert photo.icc_profile is None
  assert 'ICC profile cannot be used' in photo.notes[0]


def test_the_first_picture_of_an_animation():
  frames = [Image.new('RGB', (9, 6), colour) for colour in ('red', 'blue')]
  content = _encode(frames[0], 'gif', save_all=True, append_images=frames[1:])
  photo = photos.read_photo(content)
  assert photo.rgb.getpixel((0, 0))[0] > 200
  assert photo.notes == ('the first of 2 pictures',)


def test_too_many_pixels_are_refused_before_decoding(tmp_path):
  path = tmp_path / 'large.png'
  Image.new('1', (3000, 2000)).save(path)
  with pytest.raises(
    ValueError, match='large.png: 3000x2000 are more pixels than .* 1000'
  ):
    photos.read_photo(path, max_pixels=1000)


@pytest.mark.parametrize('form', ['jpeg', 'png', 'webp', 'gif', 'tiff', 'bmp'])
def test_truncated_files_are_refused(form):
  content = _encode(Image.fromarray(_pixels((60, 80))), form)
  for tenth in range(10):
    part = content[: len(content) * tenth // 10]
    with pytest.raises(errors.UserError, match='cannot be read as an image'):
      photos.read_photo(part)
    try:
      image = Image.open(io.BytesIO(part))
    except (OSError, ValueError):  # Of its header already.
      continue
    with pytest.raises(errors.UserError, match='The given image: cannot be'):
      photos.read_photo(image)
