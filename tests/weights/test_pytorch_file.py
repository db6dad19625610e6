"""PyTorch's files are read without PyTorch, and never run."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from data_pipelines.io.errors import UserError
from rmbg_jax.weights import pytorch_file
from tests.support import pth_files

WRITERS = {'.pth': pth_files.write_archive, '.pt': pth_files.write_legacy}


@pytest.fixture
def arrays(rng):
  shared = rng.normal(size=24).astype(np.float32)
  return {
    'conv.weight': rng.normal(size=(5, 3, 2, 4)).astype(np.float32),
    'half': rng.normal(size=(3, 4)).astype(np.float16),
    'part': shared[6:18].reshape(3, 4),
    'transposed': shared.reshape(4, 6).T,
    'scalar': np.float32([2.5])[0:1].reshape(()),
    'empty': np.zeros((0, 3), np.float32),
    'bn.num_batches_tracked': np.array(7),
  }


@pytest.mark.parametrize('ending', WRITERS)
def test_tensors_are_read(ending, arrays, tmp_path):
  path = tmp_path / f'model{ending}'
  WRITERS[ending](path, arrays)
  weights = pytorch_file.read_weights(path)
  assert list(weights) == list(arrays)[:-1]
  # Kernels are (h, w, in, out) here.
  expected = {
    **arrays,
    'conv.weight': arrays['conv.weight'].transpose(2, 3, 1, 0),
  }
  for name, weight in weights.items():
    np.testing.assert_array_equal(weight, expected[name], err_msg=name)
    assert weight.dtype == expected[name].dtype


def test_a_state_dict_inside_of_a_checkpoint_is_found(arrays, tmp_path):
  path = tmp_path / 'checkpoint.pth'
  pth_files.write_archive(
    path, arrays, wrap=lambda state: {'epoch': 3, 'state_dict': state}
  )
  assert 'half' in pytorch_file.read_weights(path)


class _Attack:
  def __reduce__(self):
    return os.mkdir, ('attacked',)


@pytest.mark.parametrize('inside', [False, True])
def test_nothing_is_run(inside, arrays, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  path = tmp_path / 'model.pth'
  if inside:
    pth_files.write_archive(
      path, arrays, wrap=lambda state: {**state, 'extra': _Attack()}
    )
  else:
    path.write_bytes(pickle.dumps(_Attack()))
  with pytest.raises(UserError, match='model.pth: it asks for .*mkdir'):
    pytorch_file.read_weights(path)
  assert not (tmp_path / 'attacked').exists()


def test_a_pickle_cannot_change_a_type():
  """Its last opcode but one hands a state to what a type's name stands for."""
  state = pickle.dumps((3, '<', None, None, None, -1, -1, 0), protocol=0)
  content = b'ctorch\nFloatStorage\n' + state[:-1] + b'b.'
  with pytest.raises(pickle.UnpicklingError):
    pytorch_file._Unpickler(io.BytesIO(content)).load()


@pytest.mark.parametrize('ending', WRITERS)
def test_damaged_files_are_named(ending, arrays, tmp_path):
  path = tmp_path / f'model{ending}'
  WRITERS[ending](path, arrays)
  content = path.read_bytes()
  # An archive's index is at its end; cut anywhere, no other error escapes.
  for keep in (0, 1, 20, 200, len(content) // 2, len(content) - 3):
    path.write_bytes(content[:keep])
    with pytest.raises(UserError, match=f'model{ending}'):
      pytorch_file.read_weights(path)


def test_a_tensor_beyond_its_values_is_refused(arrays, tmp_path):
  path = tmp_path / 'model.pth'
  pth_files.write_archive(path, {'half': arrays['half']})
  with zipfile.ZipFile(path) as archive:
    index = archive.read('model/data.pkl')
  assert b'K\x04K\x01' in index  # The strides (4, 1).
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr(
      'model/data.pkl', index.replace(b'K\x04K\x01', b'K\x09K\x01')
    )
    archive.writestr('model/data/0', arrays['half'].tobytes())
  with pytest.raises(UserError, match='beyond its values'):
    pytorch_file.read_weights(path)


@pytest.mark.parametrize('content', [[1, 2], {}, {'a': 1}])
def test_other_content_is_refused(content, tmp_path):
  path = tmp_path / 'model.pth'
  pth_files.write_archive(path, {}, wrap=lambda state: content)
  with pytest.raises(UserError, match='state_dict'):
    pytorch_file.read_weights(path)
