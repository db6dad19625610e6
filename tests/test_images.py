"""Odd image files are read on purpose, bad ones refused by name."""

import io

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
  small = images.resize_image(Image.fromarray(stripes), size=(4, 8))
  assert small.shape == (4, 8)
  assert np.abs(small.astype(int) - 127).max() < 20
