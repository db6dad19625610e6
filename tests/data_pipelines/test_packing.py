"""Packing a data set into parts and back."""

import numpy as np
import pytest
from PIL import Image

from data_pipelines.datasets import demo, folder
from data_pipelines.tools import packing


@pytest.fixture
def pairs(tmp_path):
  demo.make_demo(tmp_path / 'demo', count=5, size=(40, 56), seed=3)
  # A photo that is much larger than it need be.
  photo = tmp_path / 'demo' / 'Images' / 'ring_00001.jpg'
  with Image.open(photo) as image:
    image.load()
  image.save(photo, quality=100, subsampling=0)
  return folder.read_folder(tmp_path / 'demo')


def _unpack(path, tmp_path):
  packing.unpack_pairs(path, tmp_path / 'again')
  return folder.read_folder(tmp_path / 'again')


def test_small_pictures_come_back(pairs, tmp_path):
  path = tmp_path / 'packed' / 'data.zip'
  parts = packing.pack_pairs(pairs, path, size=56, part_bytes=5000)
  assert len(parts) > 1
  assert {part.stat().st_size for part in parts[:-1]} == {5000}
  again = _unpack(path, tmp_path)
  for old, new in zip(pairs, again, strict=True):
    for key in ('name', 'category', 'source', 'label', 'split'):
      assert getattr(old, key) == getattr(new, key)
    read = [folder.read_pair(p, allow_empty=True) for p in (old, new)]
    photos, masks = (
      [np.asarray(x) for x in kind] for kind in zip(*read, strict=True)
    )
    np.testing.assert_array_equal(*masks)
    if old.name != 'ring_00001.jpg':
      np.testing.assert_array_equal(*photos)
      assert new.image_path.read_bytes() == old.image_path.read_bytes()
    else:
      sizes = [p.image_path.stat().st_size for p in (old, new)]
      assert sizes[1] < 0.75 * sizes[0]
      assert np.abs(photos[0].astype(int) - photos[1]).mean() < 6


def test_large_pictures_shrink(pairs, tmp_path):
  path = tmp_path / 'data.zip'
  packing.pack_pairs(pairs, path, size=28, part_bytes=10**6)
  for pair in _unpack(path, tmp_path):
    photo, mask = folder.read_pair(pair, allow_empty=False)
    assert photo.size == mask.size == (28, 20)


def test_missing_and_damaged_parts_are_named(pairs, tmp_path):
  path = tmp_path / 'data.zip'
  parts = packing.pack_pairs(pairs, path, size=56, part_bytes=5000)
  content = bytearray(parts[0].read_bytes())
  content[200] ^= 1  # In the first photo.
  parts[0].write_bytes(content)
  with pytest.raises(ValueError, match=r'data\.zip: Bad CRC-32'):
    _unpack(path, tmp_path)
  parts[1].unlink()
  with pytest.raises(FileNotFoundError, match=r'data\.zip\.2of'):
    _unpack(path, tmp_path)
  assert not (tmp_path / 'again').exists()


def test_parts_of_an_older_file_go(tmp_path):
  source, path = tmp_path / 'source', tmp_path / 'file'
  for content in (b'0123456789', b'abc'):
    source.write_bytes(content)
    packing.split_file(source, path, part_bytes=4)
    assert packing.join_file(path) == content
  with pytest.raises(FileNotFoundError, match='absent.1of1'):
    packing.join_file(tmp_path / 'absent')
