"""Reads PyTorch's state dicts, `.pth` or `.safetensors`, without PyTorch.

A `.pth` file is a pickle, which may call any function when it is loaded. Here
it may only build ordered dictionaries and tensors; a file that asks for
anything else is refused, and its name is given.

There are two layouts: a ZIP archive (PyTorch 1.6 and newer) with `data.pkl`
and a file per storage, and the one before it: three pickles that describe the
writer, the state dict, the list of storages, and each storage as an int64
count and raw values.
"""

import collections
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from data_pipelines.io.errors import UserError

_DTYPES = {
  'BFloat16Storage': ml_dtypes.bfloat16,
  'BoolStorage': np.bool_,
  'ByteStorage': np.uint8,
  'CharStorage': np.int8,
  'DoubleStorage': np.float64,
  'FloatStorage': np.float32,
  'HalfStorage': np.float16,
  'IntStorage': np.int32,
  'LongStorage': np.int64,
  'ShortStorage': np.int16,
}
_ORDERS: dict[bytes, Literal['<', '>']] = {b'little': '<', b'big': '>'}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# Raised by damaged files; a pickle's opcodes fail in many ways.
_DAMAGED = (
  pickle.UnpicklingError,
  zipfile.BadZipFile,
  ArithmeticError,
  AttributeError,
  EOFError,
  LookupError,
  MemoryError,
  TypeError,
  ValueError,
)


class _Storage(NamedTuple):
  """Names the values that tensors are views of."""

  key: str  # Its name in the file.
  dtype: np.dtype
  count: int


class _Tensor(NamedTuple):
  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]  # Counted in values, not bytes.


def read_weights(path: Path) -> dict[str, np.ndarray]:
  """Returns a state dict's weights by name, in Flax' layout.

  Convolution kernels (out, in, h, w) become (h, w, in, out). In a `.pth`, one
  under the key `state_dict` of a larger checkpoint is found too.

  Raises:
    UserError: if the file is damaged, holds no state dict, or asks for more
      than tensors.
  """
  if path.suffix.lower() == '.safetensors':
    try:
      tensors = safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
      raise UserError(
        f'{path}: not a readable .safetensors file ({error}).'
      ) from error
  else:
    tensors = _read_pickled(path)
  return {
    name: tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor
    for name, tensor in tensors.items()
    # Counts batches for PyTorch; nothing here reads it.
    if not name.endswith('.num_batches_tracked')
  }


def _read_pickled(path: Path) -> dict[str, np.ndarray]:
  try:
    with path.open('rb') as file:
      if zipfile.is_zipfile(file):
        content, read_storage = _open_archive(file)
      else:
        file.seek(0)
        content, read_storage = _open_legacy(file)
      return _collect(content, read_storage)
  except UserError as error:
    raise UserError(f'{path}: {error}') from error
  except _DAMAGED as error:
    raise UserError(
      f'{path}: not a readable PyTorch file ({type(error).__name__}: {error}). '
      'Download it again.'
    ) from error


def _collect(
  content: Any, read_storage: Callable[[_Storage], np.ndarray]
) -> dict[str, np.ndarray]:
  if isinstance(content, dict) and isinstance(content.get('state_dict'), dict):
    content = content['state_dict']
  if not isinstance(content, dict) or not content:
    raise UserError('it holds no state dict. Save `model.state_dict()`.')
  storages: dict[str, np.ndarray] = {}
  tensors = {}
  for name, tensor in content.items():
    if not isinstance(tensor, _Tensor):
      raise UserError(
        f'{name!r} is no tensor. Save `model.state_dict()` alone.'
      )
    key = tensor.storage.key
    if key not in storages:
      storages[key] = read_storage(tensor.storage)
    tensors[str(name)] = _view(tensor, storages[key])
  return tensors


def _view(tensor: _Tensor, values: np.ndarray) -> np.ndarray:
  """Returns a copy of the part of its storage that a tensor shows."""
  numbers = (tensor.offset, *tensor.shape, *tensor.strides)
  # They are the file's: `as_strided` would read any memory they lead to.
  if any(not isinstance(n, int) or n < 0 for n in numbers):
    raise ValueError(f'a tensor has the shape {tensor.shape}')
  last = tensor.offset + sum(
    (size - 1) * stride
    for size, stride in zip(tensor.shape, tensor.strides, strict=True)
  )
  if 0 in tensor.shape:
    return np.empty(tensor.shape, values.dtype)
  if last >= len(values):
    raise ValueError('a tensor reaches beyond its values')
  return np.lib.stride_tricks.as_strided(
    values[tensor.offset :],
    tensor.shape,
    [stride * values.itemsize for stride in tensor.strides],
    writeable=False,
  ).copy()


def _open_archive(
  file: io.BufferedIOBase,
) -> tuple[Any, Callable[[_Storage], np.ndarray]]:
  archive = zipfile.ZipFile(file)
  # Not exactly one is a ValueError, which says that the file is damaged.
  (index,) = (n for n in archive.namelist() if n.endswith('data.pkl'))
  folder = index.removesuffix('data.pkl')
  # Older archives do not say; they are taken to have the low byte first.
  order: Literal['<', '>'] = '<'
  if f'{folder}byteorder' in archive.namelist():
    order = _ORDERS[archive.read(f'{folder}byteorder')]

  def read_storage(storage: _Storage) -> np.ndarray:
    return _decode(archive.read(f'{folder}data/{storage.key}'), storage, order)

  return _Unpickler(io.BytesIO(archive.read(index))).load(), read_storage


def _open_legacy(
  file: io.BufferedIOBase,
) -> tuple[Any, Callable[[_Storage], np.ndarray]]:
  if _Unpickler(file).load() != _LEGACY_MAGIC:
    raise UserError('not a PyTorch file.')
  _Unpickler(file).load()  # The version of the layout.
  little = _Unpickler(file).load()['little_endian']
  order: Literal['<', '>'] = '<' if little else '>'
  reader = _Unpickler(file)
  content = reader.load()
  values = {}
  for key in _Unpickler(file).load():
    storage = reader.storages[key]
    (count,) = np.frombuffer(file.read(8), f'{order}i8')
    size = storage.dtype.itemsize * storage.count
    if count != storage.count:
      raise ValueError(f'storage {key} has {count} values')
    values[key] = _decode(file.read(size), storage, order)
  return content, lambda storage: values[storage.key]


def _decode(
  content: bytes, storage: _Storage, order: Literal['<', '>']
) -> np.ndarray:
  values = np.frombuffer(content, storage.dtype.newbyteorder(order))
  if len(values) < storage.count:
    raise ValueError(f'storage {storage.key} is cut off')
  return values[: storage.count].astype(storage.dtype)


class _Unpickler(pickle.Unpickler):
  """Admits ordered dictionaries and tensors."""

  def __init__(self, file: io.BufferedIOBase):
    super().__init__(file, encoding='utf-8')
    self.storages: dict[str, _Storage] = {}  # Named so far, by key.

  def find_class(self, module: str, name: str) -> Any:
    admitted = {
      ('collections', 'OrderedDict'): collections.OrderedDict,
      ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
      ('torch._utils', '_rebuild_parameter'): lambda tensor, *_: tensor,
    }
    if (module, name) in admitted:
      return admitted[module, name]
    if module == 'torch' and name in _DTYPES:
      return name  # A text: a pickle can neither call nor change it.
    raise UserError(
      f'it asks for {module}.{name}, which a file of weights does not need. It '
      'was not run.'
    )

  def persistent_load(self, pid: tuple) -> _Storage:
    kind, storage_type, key, _, count, *views = pid
    if kind != 'storage' or any(view is not None for view in views):
      raise ValueError(f'unknown kind of storage {pid}')
    if not isinstance(count, int) or count < 0:
      raise ValueError(f'storage {key} has {count} values')
    storage = _Storage(key, np.dtype(_DTYPES[storage_type]), count)
    return self.storages.setdefault(key, storage)


def _rebuild_tensor(
  storage: _Storage,
  offset: int,
  shape: tuple[int, ...],
  strides: tuple[int, ...],
  *_: Any,  # About gradients.
) -> _Tensor:
  return _Tensor(storage, offset, tuple(shape), tuple(strides))
