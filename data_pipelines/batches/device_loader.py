"""Makes batches from pairs in device memory, faster than a host can decode.

The pairs are decoded once, as the Grain loader decodes them, into one uint8
array; if asked for, a file keeps it for the next time. From then on the host
only draws the order. A batch depends on the seed, the epoch and its number in
it alone, so a training resumes exactly. For one host, with any number of
devices, each of which holds all pairs.
"""

import ast
import collections
import contextlib
import hashlib
import inspect
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
import PIL
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import UInt8

from data_pipelines.batches import effects, transforms
from data_pipelines.batches.device_augment import DeviceAugment
from data_pipelines.datasets import decoding, records
from data_pipelines.io import (
  errors,
  files,
  images,
  masks,
  parallel,
  plain_images,
  ranges,
  tiff,
)
from data_pipelines.io.types import JsonObject


class DeviceIterator:
  """An endless iterator of training batches, on the devices.

  An epoch is floor(pairs / batch size) batches; no batch reaches across
  epochs. With equal shares each pair occurs at most once in it; otherwise as
  often as its category's share says, rounded up or down at random.
  """

  def __init__(
    self,
    pairs: Sequence[records.Pair],
    *,
    decode: transforms.Decode,
    augment: DeviceAugment,
    shares: Mapping[str, float],
    batch_size: int,
    seed: int,
    cache_dir: str | os.PathLike,
    mesh: Mesh,
  ):
    """Decodes the pairs and puts them on the devices.

    Args:
      pairs: Pairs to train on.
      decode: Reads a pair.
      augment: Changes pairs at random.
      shares: Shares of the categories in an epoch, up to a factor; all 0 for
        those of the pairs.
      batch_size: Number of images in the global batch.
      seed: Seed of order and augmentation.
      cache_dir: See `load_pixels`.
      mesh: The devices.

    Raises:
      UserError: if there are several hosts, fewer pairs than a batch needs,
        pairs of categories that the shares do not name, or a bad file.
    """
    if jax.process_count() > 1:
      raise errors.UserError(
        "config.data.loader='device' is for one host, this training has "
        f"{jax.process_count()}. Use config.data.loader='grain'."
      )
    self._steps = len(pairs) // batch_size
    if not self._steps:
      raise errors.UserError(
        f'{len(pairs)} training images are fewer than one batch: lower '
        f'config.data.batch_size (={batch_size}) or add images.'
      )
    self._batch_size = batch_size
    self._seed = seed
    self._expected = _expected_counts(
      pairs, shares, total=self._steps * batch_size
    )
    self._next = 0
    self._order = (-1, np.empty(0, np.int32))  # Of no epoch yet.
    on_all = NamedSharding(mesh, PartitionSpec())
    # Once, to every device: batches are picked there.
    self._data = jax.device_put(
      (
        load_pixels(pairs, decode=decode, cache_dir=cache_dir),
        _smallest_windows(pairs, max(decode.size), augment.max_enlargement),
        _list_weights(pairs, decode),
      ),
      on_all,
    )

    def make_batch(data, index, step):
      pixels, smallest, weight = data
      key = jax.random.fold_in(jax.random.key(seed), step)
      image, alpha = augment(pixels, index, smallest[index], key)
      return {'image': image, 'alpha': alpha, 'weight': weight[index]}

    along_batch = NamedSharding(mesh, PartitionSpec('data'))
    self._make_batch = jax.jit(
      make_batch,
      in_shardings=(on_all, along_batch, on_all),
      out_shardings=along_batch,
    )

  def __iter__(self) -> Iterator[dict[str, jax.Array]]:
    """Returns itself."""
    return self

  def __next__(self) -> dict[str, jax.Array]:
    """Returns the next batch: as the Grain loader's, on the devices."""
    epoch, step = divmod(self._next, self._steps)
    if self._order[0] != epoch:
      rng = np.random.default_rng([self._seed, epoch])
      self._order = epoch, _draw_order(self._expected, rng)
    start = step * self._batch_size
    index = self._order[1][start : start + self._batch_size]
    batch = self._make_batch(self._data, index, np.int32(self._next))
    self._next += 1
    return batch

  def get_state(self) -> dict[str, Any]:
    """Returns the position after the last batch, JSON-compatible."""
    return {'next_batch': self._next}

  def set_state(self, state: JsonObject) -> None:
    """Goes to a position that `get_state` has returned."""
    self._next = state['next_batch']


class EvalBatches:
  """One pass over pairs in order, each exactly once, to be repeated.

  Batches are NumPy arrays as the Grain loader's, the last one filled with
  padding of weight 0.
  """

  def __init__(
    self,
    pairs: Sequence[records.Pair],
    *,
    decode: transforms.Decode,
    batch_size: int,
    cache_dir: str | os.PathLike,
  ):
    """Decodes the pairs; see `load_pixels` for the arguments."""
    self._pixels = load_pixels(pairs, decode=decode, cache_dir=cache_dir)
    self._weights = _list_weights(pairs, decode)
    self._batch_size = batch_size

  def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
    """Walks over all pairs."""
    for start in range(0, len(self._pixels), self._batch_size):
      part = slice(start, start + self._batch_size)
      pixels, weight = self._pixels[part], self._weights[part]
      missing = self._batch_size - len(weight)
      pixels = np.pad(pixels, [(0, missing), (0, 0), (0, 0), (0, 0)])
      yield {
        'image': pixels[..., :3],
        'alpha': pixels[..., 3:],
        'weight': np.pad(weight, (0, missing)),
      }


def load_pixels(
  pairs: Sequence[records.Pair],
  *,
  decode: transforms.Decode,
  cache_dir: str | os.PathLike,
) -> UInt8[np.ndarray, 'n h w 4']:
  """Returns all pairs as RGB and alpha, decoded once.

  Args:
    pairs: Pairs to decode.
    decode: Reads a pair.
    cache_dir: Folder for a file of the decoded pairs, which is used as long as
      neither a file nor the decoder has changed; '' for none.

  Raises:
    MissingFileError: if a file is missing.
    UserError: naming a file that is not as it should be.
  """
  shape = (len(pairs), *decode.size, 4)
  if not cache_dir:
    pixels = np.empty(shape, np.uint8)
    _decode_into(pixels, pairs, decode)
    return pixels
  path = Path(cache_dir) / f'{_fingerprint(pairs, decode)}.npy'
  with contextlib.suppress(FileNotFoundError, ValueError, EOFError):
    pixels = np.load(path, mmap_mode='r')
    if pixels.shape == shape:  # Else the file is damaged.
      return pixels
  with files.write_atomically(path) as partial:
    pixels = np.lib.format.open_memmap(partial, 'w+', np.uint8, shape)
    if hasattr(os, 'posix_fallocate'):  # Not on all systems.
      # The file is sparse: on a full disk, the process would die writing to it.
      with partial.open('rb+') as file:
        os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)
    # Into the file, not through memory: all pairs may be larger than it.
    _decode_into(pixels, pairs, decode)
    pixels.flush()
  return np.load(path, mmap_mode='r')


def _decode_into(pixels, pairs, decode):
  def decode_one(number):
    element = decode.map(pairs[number])
    pixels[number, ..., :3] = element['image']
    pixels[number, ..., 3:] = element['alpha']

  with futures.ThreadPoolExecutor(parallel.count_cores()) as pool:
    for _ in pool.map(decode_one, range(len(pairs))):  # Raises what they raise.
      pass


def _fingerprint(pairs, decode):
  """Returns a digest of the pairs' files and of how they are decoded."""
  # Weights of labels are not in the pixels.
  settings = {k: v for k, v in vars(decode).items() if k != 'label_weights'}
  digest = hashlib.sha256(repr(sorted(settings.items())).encode())
  digest.update(f'{cv2.__version__} {PIL.__version__}'.encode())
  # The source of all that decodes: another version makes another file.
  for module in (
    *(images, masks, plain_images, ranges, tiff),
    *(decoding, effects, transforms),
  ):
    # But for comments: decoding anew for these would waste hours.
    digest.update(ast.dump(ast.parse(inspect.getsource(module))).encode())
  for pair in pairs:
    for path in (pair.image_path, pair.mask_path):
      if isinstance(path, images.Encoded):
        digest.update(path.stamp.encode())
        continue
      status = path.stat()
      facts = f'{path} {status.st_size} {status.st_mtime_ns}'
      digest.update(os.fsencode(facts))  # Names may be of any bytes.
  return digest.hexdigest()[:16]


def _list_weights(pairs, decode):
  weights = [decode.label_weights[pair.label] for pair in pairs]
  return np.asarray(weights, np.float32)


def _smallest_windows(pairs, size, max_enlargement):
  """Returns the smallest windows, as shares of the pictures' sides."""
  if not max_enlargement:
    return np.zeros(len(pairs), np.float32)
  sides = [max(images.read_size(pair.image_path)) for pair in pairs]
  return np.float32(size / max_enlargement) / np.asarray(sides, np.float32)


def _expected_counts(pairs, shares, *, total):
  """Returns how often each pair is to occur in an epoch, on average."""
  if not any(shares.values()):
    return np.full(len(pairs), total / len(pairs))
  counts = collections.Counter(pair.category for pair in pairs)
  unknown = {c: n for c, n in counts.items() if c not in shares}
  if unknown or not any(shares[c] for c in counts):
    none = ', '.join(f'{c or "(none)"}: {n:,}' for c, n in unknown.items())
    raise errors.UserError(
      'config.data.device.shares would leave out '
      f'{f"categories that it does not name ({none})" if unknown else "all"} '
      f'of {len(pairs):,} training pairs. Make the Category of each one of '
      f'{", ".join(shares)}, or set all shares to 0.'
    )
  # A category's share is divided among its pairs.
  wanted = np.asarray([shares[p.category] / counts[p.category] for p in pairs])
  return wanted * total / wanted.sum()


def _draw_order(expected, rng):
  """Returns a random order of pairs, each as often as expected, or so.

  One uniform offset rounds all running sums: each count is the expectation
  rounded up or down, and their sum is exact.
  """
  order = rng.permutation(len(expected))
  ends = np.floor(np.cumsum(expected[order]) + rng.random())
  ends[-1] = total = round(math.fsum(expected))
  counts = np.diff(np.minimum(ends, total), prepend=0).astype(int)
  # Shuffled again, since a pair's repeats stand side by side.
  return rng.permutation(np.repeat(order, counts)).astype(np.int32)
