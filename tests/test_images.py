"""Odd image files are read on purpose, bad ones refused by name."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data_pipelines import images


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
  for convert in (images.to_rgb, images.to_mask):
    result = np.asarray(convert(images.open_image(path)))
    np.testing.assert_array_equal(result.reshape(3, 4, -1)[..., 0], expected)


def test_masks_of_zero_and_one_are_scaled(tmp_path):
  mask = np.array([[0, 1], [1, 0]], np.uint8)
  path = tmp_path / 'mask.png'
  Image.fromarray(mask).save(path)
  result = np.asarray(images.to_mask(images.open_image(path)))
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
  with pytest.raises(ValueError, match=r'bomb\.png'):
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
      np.asarray(images.resize_image(picture, size=wanted), int)
      for picture in (reduced, whole)
    )
    assert np.abs(ours - theirs).mean() < 2
  assert reduced.width <= 110  # An eighth.


def test_reduced_masks_keep_their_mean(rng):
  mask = rng.integers(0, 256, (601, 902), np.uint8)
  reduced = images.reduce_image(Image.fromarray(mask), size=(200, 300))
  assert reduced.size == (301, 201)
  assert np.asarray(reduced).mean() == pytest.approx(mask.mean(), abs=0.5)
  same = Image.fromarray(mask)
  assert images.reduce_image(same, size=(400, 600)) is same


def test_masks_with_palettes_and_transparency():
  values = np.array([[0, 1], [1, 0]], np.uint8)
  red = Image.fromarray(values)
  red.putpalette([0, 0, 0, 128, 0, 0])
  np.testing.assert_array_equal(np.asarray(images.to_mask(red)), values * 255)
  grey = Image.fromarray(values + 1)
  grey.putpalette([9, 9, 9, 0, 0, 0, 255, 255, 255])
  np.testing.assert_array_equal(np.asarray(images.to_mask(grey)), values * 255)
  classes = Image.fromarray(values + np.array([[0, 0], [1, 0]], np.uint8))
  classes.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
  with pytest.raises(ValueError, match=r'classes \[0, 1, 2\]'):
    images.to_mask(classes)
  cut_out = Image.new('RGBA', (2, 2), 'white')
  cut_out.putalpha(Image.fromarray(values * 200))
  np.testing.assert_array_equal(
    np.asarray(images.to_mask(cut_out)), values * 200
  )
  drawn = Image.fromarray(values * 255).convert('RGBA')
  np.testing.assert_array_equal(np.asarray(images.to_mask(drawn)), values * 255)
