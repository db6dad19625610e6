"""Reads predictions: from a checkpoint, or from a folder of masks."""

import collections
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines.datasets import records
from data_pipelines.io import files, images, masks, parallel, ranges
from data_pipelines.io.errors import MissingFileError, UserError
from rmbg_jax.models import layers

# Kinds of values by the first letter of Pillow's modes.
_KINDS = {'F': 'floats', 'I': 'wide integers'}
# A value above this shows which value is full foreground, by kind of file.
_TELLING = {'integers': 1, 'wide integers': 32767, 'floats': 127}
_ENOUGH = 50


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
    raise MissingFileError(
      f'--predictions={directory}: no masks in it. Pass a folder of masks.'
    )
  return dict(index)


def find_scales(paths: Iterable[Path]) -> dict[str, int]:
  """Returns the values of full foreground in predictions, by kind of storage.

  A nearly black one does not tell. So files are read until one does, as a rule
  the first, or until `_ENOUGH` of a kind have been read.

  Args:
    paths: Paths of the predictions in a folder.

  Returns:
    1, 255 or 65535 for those of `masks.SCALED` that there are.

  Raises:
    UserError: if it is unclear; a file is named.
  """
  seen = collections.defaultdict(list)
  scales: dict[str, int] = {}
  for path in paths:
    try:
      with images.opened(path) as image:
        kind = _KINDS.get(image.mode[:1], 'integers')
        if kind in scales:
          continue  # Before anything is decoded.
        plane = masks.read_plane(images.turn_upright(image))
        low, high = ranges.find_extremes(plane.values)
    except UserError:
      continue  # Scoring reports it.
    if plane.stored != kind:
      continue  # Its range is known.
    seen[kind].append((low, high, path))
    if len(seen[kind]) == _ENOUGH or high > _TELLING[kind]:
      scales[kind] = _find_scale(kind, seen[kind])
  left = {k: _find_scale(k, seen[k]) for k in seen if k not in scales}
  return scales | left


def _find_scale(kind: str, seen: list[tuple[float, float, Path]]) -> int:
  low = min(low for low, _, _ in seen)
  _, high, path = max(seen, key=lambda extremes: extremes[1])
  with images.named(path):
    return ranges.find_scale(low, high, floats=kind == 'floats')


def find_mask(
  index: Mapping[str, Sequence[Path]], pair: records.Pair, data_set: str
) -> Path | Exception:
  """Returns the mask of a photo, or what is wrong.

  Args:
    index: Paths by stem and name, from `index_masks`.
    pair: The photo; its mask has its stem (`a.png` for `a.jpg`) or its name
      (`a.jpg.png`).
    data_set: Its name. Of several masks, the one in a folder of that name is
      taken, or in one named `mask`.
  """
  found = index.get(pair.image_path.stem) or index.get(pair.image_path.name)
  if not found:
    return MissingFileError(f'no prediction for {pair.image_path.name}')
  for name in (data_set, 'mask'):
    matching = [path for path in found if name in path.parts]
    found = matching or found
  if len(found) > 1:
    return UserError(
      f'{len(found)} predictions for {pair.image_path.name}: '
      f'{", ".join(map(str, found))}'
    )
  return found[0]


def predict_alphas(
  predict: Callable[[Sequence[Image.Image]], Sequence[np.ndarray]],
  pairs: Sequence[records.Pair],
  *,
  batch_size: int,
) -> Iterator[np.ndarray | Exception]:
  """Yields alpha (h, w) in [0, 1] of each photo at its own size, in order.

  It is the alpha that `predict` writes: where a photo is transparent, 0. A
  photo that cannot be read costs no other: its exception is yielded.

  Args:
    predict: `BackgroundRemover.alphas`.
    pairs: Pairs with the photos.
    batch_size: Number of photos that are passed together.
  """
  # While one batch is in the network, the next one is read.
  paths = [pair.image_path for pair in pairs]
  reading = parallel.map_in_order(_open_photo, paths, ahead=2)
  while photos := list(itertools.islice(reading, batch_size)):
    good = [photo for photo in photos if not isinstance(photo, Exception)]
    alphas = iter(predict([photo.seen for photo in good]) if good else ())
    for photo in photos:
      if isinstance(photo, Exception):
        yield photo
      else:
        yield photo.hide_transparent(next(alphas))


def name_masks(pairs: Sequence[records.Pair]) -> dict[str, str]:
  """Returns each pair's mask name by pair name; photos of one stem keep theirs.

  Sub-folders in names stay. Names come from lists of others too: none leads out
  of the folder, to a file of the user's.
  """
  paths = {}
  for pair in pairs:
    path = Path(pair.name)
    inside = [part for part in path.parts if part not in (path.anchor, '..')]
    paths[pair.name] = Path(*inside or ['mask'])
  masks = {name: str(p.with_suffix('.png')) for name, p in paths.items()}
  counts = collections.Counter(masks.values())
  return {
    name: mask if counts[mask] == 1 else f'{paths[name]}.png'
    for name, mask in masks.items()
  }


def describe_checkpoint(
  path: str,
  loaded: Any,  # A `LoadedModel`; its module imports JAX.
) -> dict[str, Any]:
  """Returns the facts about a checkpoint that a table states.

  Those are its path, its hash (of the file, or of the weights if it is a
  folder), its input size, and what its description has of configuration and
  step. `training_data` is None where no network of it names any.
  """
  description = loaded.description
  networks = (loaded, *loaded.partners)
  named = [one.description.get('training_data') for one in networks]
  named = [sources for sources in named if sources is not None]
  return {
    'checkpoint': path,
    **_hash(Path(path), loaded),
    'input': 'x'.join(map(str, loaded.preprocessing.size)),
    'training_data': sorted({*itertools.chain(*named)}) if named else None,
    **{k: description[k] for k in ('step', 'config') if k in description},
  }


def _open_photo(path: Path) -> Any:
  from rmbg_jax.inference import photos

  try:
    return photos.read_photo(path)
  except (OSError, ValueError) as error:
    return error


# Any: a `LoadedModel`, as above.
def _hash(path: Path, loaded: Any) -> dict[str, str]:
  if digest := loaded.description['architecture'].get('sha256'):
    return {'sha256': digest}  # Digest of a foreign file.
  if path.is_file():
    return {'sha256': files.hash_file(path)}
  # Hash the weights, not the folder's files, which hold times and paths.
  digest = hashlib.sha256()
  for network in (loaded, *loaded.partners):
    flat = layers.flatten(network.variables)
    for key in sorted(flat):
      digest.update(key.encode())
      digest.update(np.ascontiguousarray(flat[key]).tobytes())
  return {'sha256_of_weights': digest.hexdigest()}
