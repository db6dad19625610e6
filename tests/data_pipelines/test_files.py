"""Files are written whole or not at all, whatever their names."""

import pytest

from data_pipelines.io import files


@pytest.mark.parametrize('name', ['a', 'x' * 255, 'ü' * 127, '写' * 85])
def test_names_as_long_as_file_systems_take(name, tmp_path):
  path = tmp_path / 'new' / name
  with files.write_atomically(path) as partial:
    partial.write_bytes(b'1')
    # What stacked file systems leave of the 255 bytes.
    assert len(partial.name.encode()) <= 143
  assert [p.name for p in path.parent.iterdir()] == [name]
  assert path.read_bytes() == b'1'


def test_names_that_begin_alike_do_not_meet(tmp_path):
  paths = [tmp_path / ('x' * 200 + end) for end in 'ab']
  with (
    files.write_atomically(paths[0]) as one,
    files.write_atomically(paths[1]) as other,
  ):
    one.write_bytes(b'1')
    other.write_bytes(b'2')
  assert [path.read_bytes() for path in paths] == [b'1', b'2']
