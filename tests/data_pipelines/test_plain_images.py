"""What OpenCV decodes for training has the pixels that prediction sees."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data_pipelines.batches import effects, transforms
from data_pipelines.datasets import decoding, records
from data_pipelines.io import images, plain_images


def _encode(image, form, **options):
  file = io.BytesIO()
  image.save(file, form, **options)
  return file.getvalue()


def _photo(width=403, height=301):
  rng = np.random.default_rng(width)
  coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8))
  return coarse.resize((width, height), Image.Resampling.BICUBIC)


def _mask(width=403, height=301):
  return _photo(width, height).convert('L').point(lambda v: 2 * v - 128)


def _exif(orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  return exif


def _pair(tmp_path, photo, mask):
  paths = tmp_path / 'photo.jpg', tmp_path / 'mask.png'
  for path, content in zip(paths, (photo, mask), strict=True):
    path.write_bytes(content)
  return records.Pair(
    name='a', category='', image_path=paths[0], mask_path=paths[1]
  )


def _read(pair, size):
  return plain_images.read_pair(pair.image_path, pair.mask_path, reduce_to=size)


@pytest.mark.parametrize(
  'options',
  [
    {},
    {'progressive': True},
    {'subsampling': 0, 'quality': 100},
    {'exif': _exif(1), 'dpi': (72, 72), 'comment': 'of no matter'},
    {'icc_profile': b'x' * 70_000},
    {'restart_marker_rows': 1},
  ],
)
@pytest.mark.parametrize('size', [(300, 400), (151, 200), (90, 90), (16, 16)])
def test_plain_pairs_have_pillows_pixels(options, size, tmp_path):
  pair = _pair(
    tmp_path, _encode(_photo(), 'jpeg', **options), _encode(_mask(), 'png')
  )
  expected = decoding.read_pair(pair, allow_empty=False, reduce_to=size)
  for ours, theirs in zip(_read(pair, size), expected, strict=True):
    np.testing.assert_array_equal(ours, np.asarray(theirs))
  content = images.Encoded('a', stamp='', read_bytes=pair.image_path.read_bytes)
  assert (
    plain_images.read_pair(content, pair.mask_path, reduce_to=size) is not None
  )


def _png_of(rows, *, chunks=b''):
  """A PNG of 403x301 with that data, all its checksums right."""
  first = struct.pack('>IIBBBBB', 403, 301, 8, 0, 0, 0, 0)
  parts = (b'IHDR', first), (b'IDAT', zlib.compress(rows)), (b'IEND', b'')
  return b'\x89PNG\r\n\x1a\n' + b''.join(
    struct.pack('>I', len(body))
    + kind
    + body
    + struct.pack('>I', zlib.crc32(kind + body))
    for kind, body in parts
  )


def _not_plain():
  """Yields (name, photo, mask) of which OpenCV must not be asked."""
  photo, mask = _encode(_photo(), 'jpeg'), _encode(_mask(), 'png')
  for tenth in range(10):
    yield f'photo cut at {tenth}', photo[: len(photo) * tenth // 10], mask
    yield f'mask cut at {tenth}', photo, mask[: len(mask) * tenth // 10]
  yield 'photo with more behind', photo + b'more', mask
  yield 'mask with more behind', photo, mask + b'more'
  changed = bytearray(mask)
  changed[len(mask) // 2] ^= 1
  yield 'mask damaged', photo, bytes(changed)
  yield 'mask too short', photo, _png_of(b'\0' * 5000)
  yield 'mask of another filter', photo, _png_of(b'\7' * 404 * 301)
  other = _encode(_mask(402, 301), 'png')
  yield 'sizes differ', photo, other
  yield 'empty', photo, _encode(Image.new('L', (403, 301)), 'png')
  ones = Image.new('L', (403, 301), 1)
  yield 'mask of ones', photo, _encode(ones, 'png')
  for mode in ('1', 'P', 'LA', 'RGB', 'RGBA', 'I;16'):
    stored = _mask().convert('I').convert(mode) if mode == 'I;16' else None
    stored = stored or _mask().convert(mode)
    yield f'mask in {mode}', photo, _encode(stored, 'png')
  see_through = _encode(_mask(), 'png', transparency=7)
  yield 'mask with a transparent grey', photo, see_through
  yield 'grey photo', _encode(_mask(), 'jpeg'), mask
  yield 'CMYK photo', _encode(_photo().convert('CMYK'), 'jpeg'), mask
  yield 'PNG photo', _encode(_photo(), 'png'), mask
  for orientation in (3, 6, 8):
    turned = _encode(_photo(), 'jpeg', exif=_exif(orientation))
    yield f'photo turned by {orientation}', turned, mask
  broken = _encode(_photo(), 'jpeg', exif=b'Exif\0\0broken')
  yield 'photo with broken EXIF', broken, mask
  several = _encode(
    _photo(), 'mpo', save_all=True, append_images=[_photo(403, 301)]
  )
  yield 'two photos in one', several, mask
  wide = photo.replace(b'\xff\xc0\x00\x11\x08', b'\xff\xc0\x00\x11\x0c')
  yield 'photo of 12 bits', wide, mask
  yield 'text', b'photo', b'mask'
  yield 'nothing', b'', b''


@pytest.mark.parametrize(
  ('name', 'photo', 'mask'), [pytest.param(*c, id=c[0]) for c in _not_plain()]
)
def test_all_else_is_left_to_pillow(name, photo, mask, tmp_path):
  pair = _pair(tmp_path, photo, mask)
  assert _read(pair, (64, 64)) is None
  decode = transforms.Decode(
    (64, 64),
    allow_empty=False,
    label_weights=dict.fromkeys(records.LABELS, 1.0),
  )
  try:
    expected = decoding.read_pair(pair, allow_empty=False, reduce_to=(64, 64))
  except ValueError as error:
    with pytest.raises(type(error)) as raised:
      decode.map(pair)
    assert str(raised.value) == str(error)
  else:
    alpha = effects.apply_view(
      np.asarray(expected[1]), effects.View(), size=(64, 64)
    )
    np.testing.assert_array_equal(decode.map(pair)['alpha'][..., 0], alpha)


def test_missing_files_and_pixels_without_end(tmp_path, monkeypatch):
  pair = _pair(tmp_path, _encode(_photo(), 'jpeg'), _encode(_mask(), 'png'))
  assert _read(pair, (64, 64)) is not None
  assert (
    plain_images.read_pair(
      tmp_path / 'none.jpg', pair.mask_path, reduce_to=(64, 64)
    )
    is None
  )
  assert plain_images.read_pair(tmp_path, tmp_path, reduce_to=(64, 64)) is None
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
  assert _read(pair, (64, 64)) is None


@pytest.mark.parametrize('size', [(288, 288), (96, 160), (512, 48), (31, 500)])
@pytest.mark.parametrize('sides', [(403, 301), (1000, 667), (64, 64), (1, 900)])
def test_training_and_prediction_see_the_same(size, sides, tmp_path):
  """Of the same decoded pixels within rounding: OpenCV's against NumPy's."""
  for picture in (_photo(*sides), _mask(*sides)):
    trained = effects.apply_view(np.asarray(picture), effects.View(), size=size)
    predicted = np.asarray(images.resize_input(picture, size=size), int)
    difference = np.abs(trained - predicted)
    assert difference.max() <= 2
    assert difference.mean() < 0.5


def test_a_photo_from_its_file_is_the_same_for_training(tmp_path):
  """Decoded at a half for training: a little more than rounding."""
  pair = _pair(
    tmp_path,
    _encode(_photo(1203, 801), 'jpeg', quality=95),
    _encode(_mask(1203, 801), 'png'),
  )
  trained = transforms.Decode(
    (288, 288),
    allow_empty=True,
    label_weights=dict.fromkeys(records.LABELS, 1.0),
  ).map(pair)
  photo = images.open_image(pair.image_path)
  predicted = np.asarray(images.resize_input(photo, size=(288, 288)), int)
  assert np.abs(trained['image'] - predicted).mean() < 0.5
  mask = images.resize_input(images.open_image(pair.mask_path), size=(288, 288))
  difference = trained['alpha'][..., 0] - np.asarray(mask, int)
  assert np.abs(difference).max() <= 2
