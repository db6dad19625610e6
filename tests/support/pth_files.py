"""Writes PyTorch's files in both layouts, without PyTorch."""

import collections
import contextlib
import io
import pickle
import sys
import types
import zipfile

import numpy as np

_TYPES = {
  'float32': 'FloatStorage',
  'float16': 'HalfStorage',
  'int64': 'LongStorage',
}


class _Storage:
  def __init__(self, values, key, kind):
    self.values, self.key, self.kind = values, key, kind


class _Tensor:
  def __init__(self, storage, array):
    self.storage, self.array = storage, array

  def __reduce__(self):
    strides = tuple(s // self.array.itemsize for s in self.array.strides)
    offset = self.array.ctypes.data - self.storage.values.ctypes.data
    return sys.modules['torch._utils']._rebuild_tensor_v2, (
      self.storage,
      offset // self.array.itemsize,
      self.array.shape,
      strides,
      False,
      collections.OrderedDict(),
    )


@contextlib.contextmanager
def _pretend_torch():
  """Gives pickle the names that PyTorch's files refer to."""
  torch, utils = types.ModuleType('torch'), types.ModuleType('torch._utils')
  for name in _TYPES.values():
    kind = type(name, (), {'__module__': 'torch', '__qualname__': name})
    setattr(torch, name, kind)

  def _rebuild_tensor_v2():
    pass

  _rebuild_tensor_v2.__module__ = 'torch._utils'
  _rebuild_tensor_v2.__qualname__ = '_rebuild_tensor_v2'
  utils._rebuild_tensor_v2 = _rebuild_tensor_v2
  torch._utils = utils
  before = {name: sys.modules.get(name) for name in ('torch', 'torch._utils')}
  sys.modules.update({'torch': torch, 'torch._utils': utils})
  try:
    yield torch
  finally:
    for name, module in before.items():
      if module is None:
        del sys.modules[name]
      else:
        sys.modules[name] = module


def _wrap(torch, arrays):
  """Tensors by name; views of the same values share a storage."""
  storages, state = {}, collections.OrderedDict()
  for name, array in arrays.items():
    base = array if array.base is None else array.base
    values = base.reshape(-1)
    if id(base) not in storages:
      kind = getattr(torch, _TYPES[values.dtype.name])
      storages[id(base)] = _Storage(values, str(len(storages)), kind)
    state[name] = _Tensor(storages[id(base)], array)
  return state, list(storages.values())


def _dump(content, file, *, legacy):
  class Pickler(pickle.Pickler):
    def persistent_id(self, thing):
      if not isinstance(thing, _Storage):
        return None
      pid = ('storage', thing.kind, thing.key, 'cpu', thing.values.size)
      return (*pid, None) if legacy else pid

  Pickler(file, protocol=2).dump(content)


def write_archive(path, arrays, *, wrap=lambda state: state):
  """As PyTorch 1.6 and newer write; `wrap` changes what is pickled."""
  with _pretend_torch() as torch:
    state, storages = _wrap(torch, arrays)
    index = io.BytesIO()
    _dump(wrap(state), index, legacy=False)
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('model/data.pkl', index.getvalue())
    archive.writestr('model/byteorder', 'little')
    for storage in storages:
      archive.writestr(f'model/data/{storage.key}', storage.values.tobytes())


def write_legacy(path, arrays):
  """As PyTorch before 1.6 wrote."""
  with _pretend_torch() as torch, path.open('wb') as file:
    state, storages = _wrap(torch, arrays)
    pickle.dump(0x1950A86A20F9469CFC6C, file, protocol=2)
    pickle.dump(1001, file, protocol=2)
    pickle.dump({'little_endian': True}, file, protocol=2)
    _dump(state, file, legacy=True)
    pickle.dump([storage.key for storage in storages], file, protocol=2)
    for storage in storages:
      file.write(np.int64(storage.values.size).tobytes())
      file.write(storage.values.tobytes())
