"""Odd image files are read on purpose, bad ones refused by name."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import (
  EpsImagePlugin,
  Image,
  ImageFile,
  PngImagePlugin,
  TiffImagePlugin,
)

from data_pipelines.io import errors, images, masks


def _arrow():
  """A picture that looks different in every orientation."""
  pixels = np.zeros((16, 24, 3), np.uint8)
  pixels[:8, :12] = (255, 0, 0)
  pixels[8:, :12] = (0, 255, 0)
  pixels[:8, 12:] = (0, 0, 255)
  return Image.fromarray(pixels)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientations_come_out_upright(orientation, tmp_path):
  upright = _arrow()
  # What a camera stores so that the orientation turns it upright.
  undo = {
    2: [Image.Transpose.FLIP_LEFT_RIGHT],
    3: [Image.Transpose.ROTATE_180],
    4: [Image.Transpose.FLIP_TOP_BOTTOM],
    5: [Image.Transpose.TRANSPOSE],
    6: [Image.Transpose.ROTATE_90],
    7: [Image.Transpose.TRANSVERSE],
    8: [Image.Transpose.ROTATE_270],
  }
  stored = upright
  for operation in undo.get(orientation, []):
    stored = stored.transpose(operation)
  exif = Image.Exif()
  exif[0x0112] = orientation
  path = tmp_path / 'photo.png'
  stored.save(path, exif=exif)
  assert images.read_size(path) == (16, 24)
  result = images.to_rgb(images.open_image(path))
  np.testing.assert_array_equal(np.asarray(result), np.asarray(upright))


@pytest.mark.parametrize('mode', ['L', 'LA', 'RGBA', 'P', 'CMYK', '1'])
def test_modes_become_rgb(mode, tmp_path):
  source = _arrow().convert(mode)
  path = tmp_path / f'photo.{"tif" if mode == "CMYK" else "png"}'
  source.save(path)
  result = images.to_rgb(images.open_image(path))
  assert (result.mode, result.size) == ('RGB', (24, 16))
  expected = np.asarray(source.convert('RGB'))
  np.testing.assert_array_equal(np.asarray(result), expected)


def test_16_bit_grey_keeps_its_range(tmp_path):
  values = np.linspace(0, 65535, 12, dtype=np.uint16).reshape(3, 4)
  path = tmp_path / 'deep.png'
  Image.fromarray(values).save(path)
  expected = np.round(values / 257).astype(np.uint8)
  for convert in (images.to_rgb, masks.to_mask):
    result = np.asarray(convert(images.open_image(path)))
    np.testing.assert_array_equal(result.reshape(3, 4, -1)[..., 0], expected)


def test_masks_of_zero_and_one_are_scaled(tmp_path):
  mask = np.array([[0, 1], [1, 0]], np.uint8)
  path = tmp_path / 'mask.png'
  Image.fromarray(mask).save(path)
  result = np.asarray(masks.to_mask(images.open_image(path)))
  np.testing.assert_array_equal(result, mask * 255)


@pytest.mark.parametrize('share', [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize('suffix', ['jpg', 'png'])
def test_truncated_files_are_refused_by_name(share, suffix, tmp_path):
  noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(noise).save(buffer, {'jpg': 'jpeg'}.get(suffix, suffix))
  content = buffer.getvalue()
  path = tmp_path / f'cut.{suffix}'
  path.write_bytes(content[: int(len(content) * share)])
  with pytest.raises(ValueError, match=rf'cut\.{suffix}: cannot be read'):
    images.open_image(path)


def test_missing_file_and_bomb(tmp_path, monkeypatch):
  with pytest.raises(FileNotFoundError):
    images.open_image(tmp_path / 'absent.png')
  path = tmp_path / 'bomb.png'
  _arrow().save(path)
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)
  with pytest.raises(errors.TooManyPixelsError, match=r'bomb\.png'):
    images.open_image(path)


def test_resize_does_not_alias():
  stripes = np.zeros((8, 64), np.uint8)
  stripes[:, ::2] = 255
  small = np.asarray(images.resize_image(Image.fromarray(stripes), size=(4, 8)))
  assert small.shape == (4, 8)
  assert np.abs(small.astype(int) - 127).max() < 20


def _png_header(width, height):
  """The beginning of a PNG that promises so many pixels."""
  content = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  chunk = b'IHDR' + content
  return (
    b'\x89PNG\r\n\x1a\n'
    + struct.pack('>I', len(content))
    + chunk
    + struct.pack('>I', zlib.crc32(chunk))
    + struct.pack('>I', 8)
    + b'IDAT'
  )


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
  path = tmp_path / 'bomb.png'
  path.write_bytes(_png_header(40000, 40000))
  message = r'bomb\.png: .*1600000000 pixels.*exceeds limit.* Reduce the image'
  with pytest.raises(ValueError, match=message):
    images.open_image(path)
  with pytest.raises(ValueError, match=message):
    images.read_size(path)
  with pytest.raises(ValueError, match=message):
    images.open_reduced(path, size=(64, 64))


@pytest.mark.parametrize('orientation', [1, 6])
def test_reduced_jpegs_keep_enough_and_their_own_size(orientation, tmp_path):
  rng = np.random.default_rng(0)
  coarse = Image.fromarray(rng.integers(0, 256, (12, 20, 3), np.uint8))
  exif = Image.Exif()
  exif[0x0112] = orientation
  path = tmp_path / 'photo.jpg'
  coarse.resize((800, 480)).save(path, exif=exif, quality=95)
  whole = images.open_image(path)
  for wanted in ((480, 800), (240, 400), (250, 410), (100, 100), (30, 30)):
    if orientation == 6:
      wanted = wanted[::-1]
    reduced, size = images.open_reduced(path, size=wanted)
    assert size == images.read_size(path) == (whole.height, whole.width)
    assert reduced.height >= 0.95 * wanted[0]
    assert reduced.width >= 0.95 * wanted[1]
    ours, theirs = (
      np.asarray(images.resize_input(picture, size=wanted), int)
      for picture in (reduced, whole)
    )
    assert np.abs(ours - theirs).mean() < 0.5
  assert reduced.width <= 110  # An eighth.


@pytest.mark.parametrize(
  ('sides', 'wanted', 'blocks'),
  [
    ((902, 601), (200, 300), (2, 2)),
    ((902, 601), (400, 600), (1, 1)),
    ((4000, 3000), (288, 288), (8, 8)),
    ((1, 5000), (288, 288), (1, 18)),
  ],
)
def test_blocks_leave_enough(sides, wanted, blocks):
  assert images.find_blocks(sides, size=wanted) == blocks


def test_inputs_keep_the_mean_of_masks_and_place_of_edges(rng):
  mask = rng.integers(0, 256, (601, 902), np.uint8)
  resized = images.resize_input(Image.fromarray(mask), size=(200, 300))
  assert resized.size == (300, 200)
  assert np.asarray(resized).mean() == pytest.approx(mask.mean(), abs=0.5)
  # Blocks that do not divide the sides stretch nothing.
  edge = np.zeros((301, 301), np.uint8)
  edge[:, 271:] = 255
  row = np.asarray(images.resize_input(Image.fromarray(edge), size=(90, 90)))[0]
  assert row.sum() / 255 == pytest.approx(30 * 90 / 301, abs=0.15)


@pytest.mark.parametrize('wanted', [(64, 96), (65, 61), (128, 160), (300, 200)])
def test_inputs_are_bilinear_and_do_not_alias(rng, wanted):
  """Enlarged as Pillow does; shrunk about as well as Pillow does."""
  noise = rng.integers(0, 256, (48, 60, 3), np.uint8)
  enlarged = Image.fromarray(noise).resize((80, 64), Image.Resampling.BILINEAR)
  ours = np.asarray(images.resize_input(Image.fromarray(noise), size=(64, 80)))
  np.testing.assert_allclose(ours.astype(int), np.asarray(enlarged), atol=1)
  octaves = [
    Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)).resize(
      (523, 417), Image.Resampling.BICUBIC
    )
    for n in (8, 32, 128)
  ]
  shares = (0.5, 0.3, 0.2)
  mixed = sum(
    s * np.asarray(o, float) for s, o in zip(shares, octaves, strict=True)
  )
  photo = Image.fromarray(mixed.astype(np.uint8))
  ideal, pillows, ours = (
    np.asarray(picture, float)
    for picture in (
      photo.resize(wanted[::-1], Image.Resampling.LANCZOS),
      photo.resize(wanted[::-1], Image.Resampling.BILINEAR),
      images.resize_input(photo, size=wanted),
    )
  )
  error, usual = (((p - ideal) ** 2).mean() ** 0.5 for p in (ours, pillows))
  assert error < 1.5 * usual
  stripes = np.zeros((64, 900), np.uint8)
  stripes[:, ::2] = 255
  flat = images.resize_input(Image.fromarray(stripes), size=wanted)
  assert np.abs(np.asarray(flat, int) - 127).max() < 30


def test_masks_with_palettes_and_transparency():
  values = np.array([[0, 1], [1, 0]], np.uint8)
  red = Image.fromarray(values)
  red.putpalette([0, 0, 0, 128, 0, 0])
  np.testing.assert_array_equal(np.asarray(masks.to_mask(red)), values * 255)
  grey = Image.fromarray(values + 1)
  grey.putpalette([9, 9, 9, 0, 0, 0, 255, 255, 255])
  np.testing.assert_array_equal(np.asarray(masks.to_mask(grey)), values * 255)
  classes = Image.fromarray(values + np.array([[0, 0], [1, 0]], np.uint8))
  classes.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
  with pytest.raises(ValueError, match=r'classes \[0, 1, 2\]'):
    masks.to_mask(classes)
  # One class, whatever its number and colour.
  for colour in ((0, 0, 128), (128, 128, 128)):
    single = Image.fromarray(values * 15)
    single.putpalette([0, 0, 0, *(9, 0, 0) * 14, *colour])
    np.testing.assert_array_equal(
      np.asarray(masks.to_mask(single)), values * 255
    )
  cut_out = Image.new('RGBA', (2, 2), 'white')
  cut_out.putalpha(Image.fromarray(values * 200))
  np.testing.assert_array_equal(
    np.asarray(masks.to_mask(cut_out)), values * 200
  )
  drawn = Image.fromarray(values * 255).convert('RGBA')
  np.testing.assert_array_equal(np.asarray(masks.to_mask(drawn)), values * 255)


def _draw(background, foreground, shape=(8, 8)):
  """A square of one colour before another, and where it is."""
  inside = np.zeros(shape, bool)
  inside[2:6, 2:6] = True
  pixels = np.where(inside[..., None], foreground, background)
  return Image.fromarray(pixels.astype(np.uint8)), inside


@pytest.mark.parametrize(
  'colour', [(255, 0, 0), (0, 0, 255), (128, 64, 0), (255, 255, 255), (0, 1, 0)]
)
def test_one_colour_on_black_is_foreground(colour):
  drawn, inside = _draw((0, 0, 0), colour)
  mask = np.asarray(masks.to_mask(drawn))
  np.testing.assert_array_equal(mask, inside * np.uint8(255))
  if max(colour) > 1:
    # The shades of an edge are soft.
    soft = drawn.resize((32, 32), Image.Resampling.BILINEAR)
    expected = Image.fromarray(mask).resize((32, 32), Image.Resampling.BILINEAR)
    difference = np.asarray(masks.to_mask(soft), int) - np.asarray(expected)
    assert np.abs(difference).max() <= 4


def test_opaque_black_is_no_foreground():
  for mode in ('RGBA', 'LA'):
    black = Image.new(mode, (4, 4), 'black')
    assert np.asarray(masks.to_mask(black)).max() == 0
    white = Image.new(mode, (4, 4), 'white')
    assert np.asarray(masks.to_mask(white)).min() == 255
  nothing = Image.new('RGBA', (4, 4), (255, 255, 255, 0))
  assert np.asarray(masks.to_mask(nothing)).max() == 0


def test_transparency_of_a_cut_out_is_its_mask(rng):
  alpha = np.zeros((8, 8), np.uint8)
  alpha[2:6, 2:6] = 200
  for mode in ('RGB', 'L'):
    photo = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
    cut_out = photo.convert(mode)
    cut_out.putalpha(Image.fromarray(alpha))
    np.testing.assert_array_equal(np.asarray(masks.to_mask(cut_out)), alpha)
  # A premultiplied one, white on black.
  white = Image.fromarray(alpha).convert('RGB')
  white.putalpha(Image.fromarray(alpha))
  np.testing.assert_array_equal(np.asarray(masks.to_mask(white)), alpha)


def _unclear_masks():
  rng = np.random.default_rng(0)
  inside = _draw((0, 0, 0), (255, 255, 255))[1]
  photo = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
  classes = np.zeros((8, 8, 3), np.uint8)
  classes[:2], classes[2:4] = (128, 0, 0), (192, 0, 0)
  faint = photo.copy()
  faint.putalpha(128)
  both = Image.fromarray(inside).convert('RGB')
  both.putalpha(Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)))
  floats = inside.astype(np.float32)
  return {
    'photo': (photo, 'several colours'),
    'classes': (Image.fromarray(classes), 'several colours'),
    'red on white': (_draw((255, 255, 255), (255, 0, 0))[0], 'several colours'),
    'red on blue': (_draw((0, 0, 255), (255, 0, 0))[0], 'several colours'),
    'faint': (faint, 'opacity 128'),
    'both': (both, 'transparency says something else'),
    '12 bits': (Image.fromarray(inside * np.uint16(4095)), 'from 0 to 4095'),
    '32 bits': (Image.fromarray(inside * np.int32(2**30)), 'unclear'),
    'negative': (Image.fromarray(inside * np.int32(-5)), 'from -5 to 0'),
    'logits': (Image.fromarray(floats * 14 - 7), 'from -7 to 7'),
    'percent': (Image.fromarray(floats * 100), 'from 0 to 100'),
    'not numbers': (
      Image.fromarray(np.where(inside, np.float32(np.nan), 0)),
      'not numbers',
    ),
    'infinite': (
      Image.fromarray(np.where(inside, np.float32(np.inf), 0)),
      'not numbers',
    ),
  }


@pytest.mark.parametrize('kind', list(_unclear_masks()))
def test_unclear_masks_are_refused(kind):
  image, message = _unclear_masks()[kind]
  with pytest.raises(errors.UserError, match=message):
    masks.to_mask(image)


@pytest.mark.parametrize(
  ('values', 'expected'),
  [
    (np.float32([[0, 0.9]]), [[0, 230]]),
    (np.float32([[-0.02, 1.03]]), [[0, 255]]),
    (np.float32([[0, 255]]), [[0, 255]]),
    (np.float32([[0, 65535]]), [[0, 255]]),
    (np.int32([[0, 1]]), [[0, 255]]),
    (np.uint16([[0, 200]]), [[0, 200]]),
    (np.uint16([[0, 65535]]), [[0, 255]]),
  ],
)
def test_wide_values_are_scaled_to_8_bits(values, expected, tmp_path):
  path = tmp_path / 'mask.tif'
  Image.fromarray(values).save(path)
  mask = masks.to_mask(images.open_image(path))
  np.testing.assert_array_equal(np.asarray(mask), expected)


def test_grey_floats_and_transparent_16_bit_grey_become_photos(tmp_path):
  ramp = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
  for scale in (1, 255, 65535):
    photo = images.to_rgb(Image.fromarray(ramp * scale))
    difference = np.asarray(photo)[..., 0] - ramp * 255
    assert np.abs(difference).max() <= 0.51
  for wrong in (np.nan, np.inf, 30):
    with pytest.raises(errors.UserError):
      images.to_rgb(Image.fromarray(np.where(ramp > 0.5, wrong, ramp)))
  deep = np.round(ramp * 65535).astype(np.uint16)
  path = tmp_path / 'deep.png'
  Image.fromarray(deep).save(path, transparency=int(deep[1, 1]))
  colours, opacity = images.split_opacity(images.open_image(path))
  transparent = np.asarray(opacity) == 0
  np.testing.assert_array_equal(np.argwhere(transparent), [[1, 1]])
  expected = np.round(deep / 257)
  grey = np.asarray(images.to_rgb(colours))[..., 2]
  np.testing.assert_array_equal(grey, expected)


def _exif_with(*entries):
  """EXIF of (tag, type, count, four bytes) in a little-endian directory."""
  directory = struct.pack('<H', len(entries))
  for tag, kind, count, value in sorted(entries):
    directory += struct.pack('<HHI', tag, kind, count) + value
  return b'Exif\0\0II*\0\x08\0\0\0' + directory + b'\0\0\0\0'


@pytest.mark.filterwarnings('ignore:Truncated File Read:UserWarning')
@pytest.mark.parametrize(
  'odd',
  [
    (0x011A, 2, 4, b'abc\0'),  # A resolution in letters.
    (0x0128, 5, 1, b'\0\0\0\0'),  # Its unit as a fraction.
    (0x0213, 2, 2, b'1\0\0\0'),
    (0x8769, 2, 4, b'abc\0'),  # A directory that is a text.
    (0x9286, 12, 9, b'\xff\xff\xff\xff'),  # Beyond the end.
  ],
)
def test_odd_exif_turns_the_pixels_all_the_same(odd, tmp_path):
  path = tmp_path / 'photo.jpg'
  exif = _exif_with(odd, (0x0112, 3, 1, b'\6\0\0\0'))
  _arrow().save(path, exif=exif, quality=95)
  assert images.read_size(path) == (24, 16)
  upright = images.open_image(path)
  reduced, size = images.open_reduced(path, size=(24, 16))
  assert upright.size == reduced.size == (16, 24)
  assert size == (24, 16)
  expected = np.asarray(_arrow().transpose(Image.Transpose.ROTATE_270), int)
  assert np.abs(np.asarray(upright) - expected).mean() < 20
  assert images.read_orientation(upright) == 1


@pytest.mark.filterwarnings('ignore:Metadata Warning:UserWarning')
@pytest.mark.parametrize(
  ('tag', 'kind', 'value'), [(700, 3, 7), (700, 4, (1, 2)), (0x8769, 2, 'a')]
)
def test_odd_tags_of_tiffs_do_not_matter(tag, kind, value, tmp_path):
  directory = TiffImagePlugin.ImageFileDirectory_v2()
  directory.tagtype[tag] = kind
  directory[tag], directory[0x0112] = value, 6
  path = tmp_path / 'photo.tif'
  _arrow().save(path, tiffinfo=directory)
  expected = _arrow().transpose(Image.Transpose.ROTATE_270)
  upright = images.open_image(path)
  np.testing.assert_array_equal(np.asarray(upright), np.asarray(expected))


@pytest.mark.parametrize('orientation', [1, 3, 6, 8])
def test_turned_tiffs_have_one_size(orientation, tmp_path):
  path = tmp_path / 'photo.tif'
  exif = Image.Exif()
  exif[0x0112] = orientation
  _arrow().save(path, exif=exif)
  upright = images.open_image(path)
  assert images.read_size(path) == (upright.height, upright.width)
  assert images.open_reduced(path, size=(9, 9))[1] == images.read_size(path)


@pytest.mark.parametrize(
  'error', [struct.error, TypeError, RuntimeError, EOFError, MemoryError]
)
def test_no_error_of_a_decoder_escapes_unnamed(error, tmp_path, monkeypatch):
  def fail(self):
    raise error('no reason')

  path = tmp_path / 'photo.png'
  _arrow().save(path)
  monkeypatch.setattr(ImageFile.ImageFile, 'load', fail)
  with pytest.raises(errors.UserError, match=r'photo\.png: cannot be read'):
    images.open_image(path)


def test_only_formats_of_photos_are_opened(tmp_path, monkeypatch):
  called = []
  monkeypatch.setattr(EpsImagePlugin, 'Ghostscript', called.append)
  (tmp_path / 'drawing.jpg').write_bytes(
    b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n'
  )
  _arrow().save(tmp_path / 'photo.ppm')
  (tmp_path / 'photo.ppm').rename(tmp_path / 'map.png')
  for name in ('drawing.jpg', 'map.png'):
    for source in (tmp_path / name, (tmp_path / name).read_bytes()):
      with pytest.raises(errors.UserError, match='not in a known format'):
        images.open_image(source)
  assert not called


def test_long_texts_and_profiles_in_pngs_are_no_obstacle(tmp_path):
  texts = PngImagePlugin.PngInfo()
  texts.add_text('prompt', 'a' * 2_000_000, zip=True)
  texts.add_itxt('workflow', 'b' * 2_000_000, zip=True)
  texts.add_text('short', 'kept', zip=True)
  profile = b'profile' * 300_000
  path = tmp_path / 'photo.png'
  _arrow().save(path, pnginfo=texts, icc_profile=profile)
  for source in (path, path.read_bytes()):
    image = images.open_image(source)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(_arrow()))
    assert image.info['icc_profile'] == profile
    assert image.info['short'] == 'kept'


def test_names_of_photos(tmp_path):
  for name in ('a.jfif', 'a.JPE', 'a.jpg', '.a.png'):
    assert images.is_image_file(tmp_path / name)
  for name in ('._a.jpg', 'a.eps', 'jpg'):
    assert not images.is_image_file(tmp_path / name)
  os.mkfifo(tmp_path / 'pipe.jpg')
  with pytest.raises(errors.UserError, match=r'pipe\.jpg: it is a pipe'):
    images.open_image(tmp_path / 'pipe.jpg')
  (tmp_path / 'dead.jpg').symlink_to('nowhere')
  with pytest.raises(
    FileNotFoundError, match=r'dead\.jpg: a link to a missing'
  ):
    images.open_image(tmp_path / 'dead.jpg')
