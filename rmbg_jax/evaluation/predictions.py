"""Where predictions come from: a checkpoint, or a folder of masks."""

import collections
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines import errors, folder, images


def index_masks(directory: Path) -> dict[str, list[Path]]:
  """Returns a folder's image files by stem, those of sub-folders too.

  Raises:
    MissingFileError: if there are none.
  """
  index = collections.defaultdict(list)
  for path in sorted(directory.rglob('*')):
    if images.is_image_file(path) and not path.name.startswith('.'):
      index[path.stem].append(path)
  if not index:
    raise errors.MissingFileError(f'--predictions={directory}: no masks in it.')
  return dict(index)


def find_mask(
  index: Mapping[str, Sequence[Path]], pair: folder.Pair, data_set: str
) -> Path | Exception:
  """Returns the mask of a photo, or what is wrong.

  Args:
    index: as `index_masks` makes it.
    pair: the photo; its mask has its stem (`a.png` for `a.jpg`) or its name
      (`a.jpg.png`).
    data_set: its name. Of several masks, the one in a folder of that name is
      taken, or in one named `mask`.
  """
  found = index.get(pair.image_path.stem) or index.get(pair.image_path.name)
  if not found:
    return FileNotFoundError(f'no prediction for {pair.image_path.name}')
  for name in (data_set, 'mask'):
    matching = [path for path in found if name in path.parts]
    found = matching or found
  if len(found) > 1:
    return ValueError(
      f'{len(found)} predictions for {pair.image_path.name}: '
      f'{", ".join(map(str, found))}'
    )
  return found[0]


def predict_alphas(
  remover: Any, pairs: Sequence[folder.Pair]
) -> Iterator[np.ndarray | Exception]:
  """Yields alpha (h, w) in [0, 1] of each photo at its own size, in order.

  A photo that cannot be read costs no other: its exception is yielded.

  Args:
    remover: a `BackgroundRemover`.
    pairs: with the photos; the next ones are read ahead.
  """
  size = remover.batch_size
  batches = [pairs[i : i + size] for i in range(0, len(pairs), size)]
  with futures.ThreadPoolExecutor(size) as pool:

    def read(batch):
      return [pool.submit(_open_photo, pair.image_path) for pair in batch]

    reading = read(batches[0]) if batches else []
    for index in range(len(batches)):
      photos = [future.result() for future in reading]
      reading = read(batches[index + 1]) if index + 1 < len(batches) else []
      good = [photo for photo in photos if not isinstance(photo, Exception)]
      alphas = iter(remover.alphas(good) if good else ())
      for photo in photos:
        yield photo if isinstance(photo, Exception) else next(alphas)


def name_masks(pairs: Sequence[folder.Pair]) -> dict[str, str]:
  """Returns each pair's mask name by pair name; photos of one stem keep theirs.

  Sub-folders in names stay.
  """
  stems = collections.Counter(Path(pair.name).with_suffix('') for pair in pairs)
  return {
    pair.name: str(Path(pair.name).with_suffix('.png'))
    if stems[Path(pair.name).with_suffix('')] == 1
    else f'{pair.name}.png'
    for pair in pairs
  }


def describe_checkpoint(path: Path, loaded: Any) -> dict[str, Any]:
  """Returns what a table says of a checkpoint.

  Args:
    path: as `load_model` takes it.
    loaded: as `load_model` returns it.

  Returns:
    Its path, its hash (of the file, or of the weights if it is a folder), its
    input size, and what its description has of configuration and step.
    `training_data` is None where the checkpoint does not name it.
  """
  description = loaded.description
  details = {
    'checkpoint': str(path),
    **_hash(path, loaded.variables),
    'input': 'x'.join(map(str, loaded.preprocessing.size)),
    'training_data': description.get('training_data'),
  }
  if 'step' in description:
    details['step'] = description['step']
  if 'config' in description:
    details['config'] = description['config']
  return details


def _open_photo(path: Path) -> Any:
  from rmbg_jax import remover

  try:
    return remover.open_photo(path)
  except (OSError, ValueError) as error:
    return error


def _hash(path: Path, variables: Any) -> dict[str, str]:
  if path.is_file():
    with path.open('rb') as file:
      return {'sha256': hashlib.file_digest(file, 'sha256').hexdigest()}
  from flax import traverse_util

  # Not the files of a training's folder: they hold times and paths.
  digest = hashlib.sha256()
  flat = traverse_util.flatten_dict(variables, sep='/')
  for key in sorted(flat):
    digest.update(key.encode())
    digest.update(np.ascontiguousarray(flat[key]).tobytes())
  return {'sha256_of_weights': digest.hexdigest()}
