"""Other programs read the PNG files that are written here."""

import io
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from rmbg_jax.inference import png

SHAPES = [(1, 1), (5, 7), (64, 1, 3), (1, 64, 4), (200, 300, 3), (33, 70, 4)]


def _make_pixels(rng, shape, dtype):
  """Noise over gradients: both filters have something to do."""
  top = np.iinfo(dtype).max
  slope = np.linspace(0, top / 2, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
  return (slope + rng.integers(0, top // 3, shape)).astype(dtype)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('turned', [False, True])
def test_pillow_reads_8_bits(rng, shape, turned):
  pixels = _make_pixels(rng, shape, np.uint8)
  pixels = np.swapaxes(pixels, 0, 1) if turned else pixels
  with Image.open(io.BytesIO(png.encode(pixels))) as image:
    image.load()
    assert image.format == 'PNG'
    np.testing.assert_array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize('shape', SHAPES)
def test_opencv_reads_16_bits(rng, shape):
  pixels = _make_pixels(rng, shape, np.uint16)
  content = np.frombuffer(png.encode(pixels), np.uint8)
  found = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
  if pixels.ndim == 3:
    found = found[..., [2, 1, 0, 3][: shape[2]]]
  np.testing.assert_array_equal(found, pixels)


def test_the_profile_is_kept(rng):
  profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
  pixels = _make_pixels(rng, (9, 9, 4), np.uint8)
  content = png.encode(pixels, icc_profile=profile)
  with Image.open(io.BytesIO(content)) as image:
    assert image.info['icc_profile'] == profile


def test_large_pictures_are_several_chunks(rng):
  pixels = rng.integers(0, 256, (900, 900, 4), dtype=np.uint8)
  content = png.encode(pixels)
  assert content.count(b'IDAT') >= 3
  with Image.open(io.BytesIO(content)) as image:
    np.testing.assert_array_equal(np.asarray(image), pixels)
  # As the standard wants it, checksums included: Pillow reads over some.
  at, seen = 8, b''
  while at < len(content):
    size = int.from_bytes(content[at : at + 4], 'big')
    chunk = content[at + 4 : at + 8 + size]
    checksum = int.from_bytes(content[at + 8 + size : at + 12 + size], 'big')
    assert zlib.crc32(chunk) == checksum
    seen += chunk[4:] if chunk.startswith(b'IDAT') else b''
    at += 12 + size
  assert len(zlib.decompress(seen)) == 900 * (900 * 4 + 1)
