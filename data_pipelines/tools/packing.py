"""A data set in a few files of limited size, to take to another machine."""

import dataclasses
import io
import re
import tempfile
import zipfile
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path

from PIL import Image

from data_pipelines.datasets import folder
from data_pipelines.io import files, images
from data_pipelines.io.errors import MissingFileError, UserError

_QUALITY = 90  # Of photos that are encoded anew ...
_WORTHWHILE = 0.75  # ... because they are too large, or shrink to this share.
_PART = re.compile(r'(?P<name>.+)\.(?P<number>\d+)of(?P<count>\d+)')


def pack_pairs(
  pairs: Sequence[folder.Pair], path: Path, *, size: int, part_bytes: int
) -> list[Path]:
  """Writes a data set as a zip file in parts, and returns these.

  Files of photos are kept as they are, but for those larger than `size`, and
  for those that need much more space than a good JPEG.

  Args:
    pairs: what to pack.
    path: of the zip file; parts have `.1of3` and so on behind it.
    size: longest side of a packed photo in pixels.
    part_bytes: size of the parts.

  Raises:
    FileNotFoundError: if a file is missing.
    ValueError: naming a file that is not as it should be.
  """
  with tempfile.TemporaryDirectory() as staging:
    staging = Path(staging)
    for name in ('Images', 'Masks'):
      (staging / name).mkdir()

    def stage(numbered):
      number, pair = numbered  # Names may have folders in them.
      return _write_small(pair, staging, stem=f'{number:06}', size=size)

    with futures.ThreadPoolExecutor() as pool:
      staged = list(pool.map(stage, enumerate(pairs)))
    folder.write_csv(staging / 'Dataset.csv', staged)
    archive = staging / 'archive.zip'
    with zipfile.ZipFile(archive, 'w') as file:  # Pictures are compressed.
      for pair in staged:
        for picture in (pair.image_path, pair.mask_path):
          file.write(picture, picture.relative_to(staging))
      file.write(staging / 'Dataset.csv', 'Dataset.csv')
    return split_file(archive, path, part_bytes=part_bytes)


def unpack_pairs(path: Path, directory: Path) -> None:
  """Makes the folder again that `pack_pairs` was given the pairs of.

  Args:
    path: of the zip file, as it was given to `pack_pairs`.
    directory: to make; if it is there, nothing is done.

  Raises:
    FileNotFoundError: if a part is missing.
    ValueError: if a part is damaged.
  """
  if directory.exists():
    return
  directory.parent.mkdir(parents=True, exist_ok=True)
  with (
    tempfile.TemporaryDirectory(dir=directory.parent) as staging,
    io.BytesIO(join_file(path)) as content,
  ):
    whole = Path(staging) / 'whole'
    try:
      with zipfile.ZipFile(content) as archive:
        archive.extractall(whole)  # It checks every file's sum.
    except zipfile.BadZipFile as error:
      raise UserError(f'{path}: {error}. Copy its parts again.') from error
    whole.replace(directory)


def split_file(source: Path, path: Path, *, part_bytes: int) -> list[Path]:
  """Writes a file's content as `path.1of3` and so on; returns the parts.

  Parts of an earlier, other content are removed.
  """
  content = source.read_bytes()
  count = max(1, -(-len(content) // part_bytes))
  parts = []
  for number in range(1, count + 1):
    part = path.with_name(f'{path.name}.{number}of{count}')
    with files.write_atomically(part) as partial:
      partial.write_bytes(content[part_bytes * (number - 1) :][:part_bytes])
    parts.append(part)
  for old in _find_parts(path):
    if old not in parts:
      old.unlink()
  return parts


def join_file(path: Path) -> bytes:
  """Returns the content of a file that `split_file` has split.

  Raises:
    FileNotFoundError: if a part is missing.
  """
  found = _find_parts(path)
  count = max(found.values(), default=1)
  expected = [
    path.with_name(f'{path.name}.{number}of{count}')
    for number in range(1, count + 1)
  ]
  for part in expected:
    if part not in found:
      raise MissingFileError(f'{part}: this part is missing.')
  return b''.join(part.read_bytes() for part in expected)


def _find_parts(path: Path) -> dict[Path, int]:
  """Returns a file's parts, each with the number of them in its name."""
  if not path.parent.is_dir():
    return {}
  matches = {p: _PART.fullmatch(p.name) for p in path.parent.iterdir()}
  return {
    part: int(match['count'])
    for part, match in matches.items()
    if match and match['name'] == path.name
  }


def _write_small(
  pair: folder.Pair, directory: Path, *, stem: str, size: int
) -> folder.Pair:
  """Writes a pair as small files, and returns it with their paths."""
  photo, mask = folder.read_pair(pair, allow_empty=True)
  original = None
  if max(photo.size) > size:
    photo, mask = _shrink(photo, size), _shrink(mask, size)
  else:
    original = pair.image_path.read_bytes()
  encoded = io.BytesIO()
  photo.save(encoded, 'jpeg', quality=_QUALITY, optimize=True)
  content, suffix = encoded.getvalue(), '.jpg'
  if original and len(content) > _WORTHWHILE * len(original):
    content, suffix = original, pair.image_path.suffix
  image_path = directory / 'Images' / f'{stem}{suffix}'
  image_path.write_bytes(content)
  mask_path = directory / 'Masks' / f'{stem}.png'
  mask.save(mask_path, optimize=True)
  return dataclasses.replace(pair, image_path=image_path, mask_path=mask_path)


def _shrink(image: Image.Image, size: int) -> Image.Image:
  share = size / max(image.size)
  width, height = (max(1, round(side * share)) for side in image.size)
  return images.resize_image(image, size=(height, width))
