"""Reads the benchmarks of salient object detection, in their usual layouts.

Copies differ, so a folder is known by its name. It holds photos and masks in
two folders of usual names, or photos (.jpg) and masks (.png) in one:

```
ECSSD/{images,ground_truth_mask}     HKU-IS/{imgs,gt}
DUTS-TE/{DUTS-TE-Image,DUTS-TE-Mask}
DUT-OMRON/{DUT-OMRON-image,pixelwiseGT-new-PNG}
PASCAL-S/{Image,GT}                  SOD/{im,gt}
```
"""

import dataclasses
import os
from pathlib import Path
from typing import NamedTuple

from data_pipelines.datasets import folder, records
from data_pipelines.io import errors, suffixes


class Benchmark(NamedTuple):
  """A published set: its source, its name in papers, its number of pairs."""

  source: str
  title: str
  count: int


BENCHMARKS = (
  Benchmark('ecssd', 'ECSSD', 1000),
  Benchmark('pascals', 'PASCAL-S', 850),
  Benchmark('sod', 'SOD', 300),
  Benchmark('duts-te', 'DUTS-TE', 5019),
  Benchmark('dut-omron', 'DUT-OMRON', 5168),
  Benchmark('hku-is', 'HKU-IS', 4447),
)

# Letters and digits alone, in lower case.
_PHOTO_FOLDERS = (
  *('images', 'image', 'imgs', 'img', 'im'),
  *('dutsteimage', 'dutomronimage'),
)
_MASK_FOLDERS = (
  *('masks', 'mask', 'gt', 'gts', 'groundtruth', 'groundtruthmask'),
  *('dutstemask', 'dutomrongt', 'pixelwisegtnewpng'),
)


def find_benchmark(directory: str | os.PathLike) -> Benchmark | None:
  """Returns the set that a folder's name names, None if it names none."""
  name = _simplify(Path(directory).resolve().name)
  for benchmark in BENCHMARKS:
    if name == _simplify(benchmark.title):
      return benchmark
  return None


def read_saliency(
  directory: str | os.PathLike, problems: list[str] | None = None
) -> list[records.Pair]:
  """Reads the pairs of a folder with the name of a set of `BENCHMARKS`.

  They are sorted by name, of split 'test'. `problems` collects, if given, what
  is wrong with single files, which are left out; otherwise that is an error.

  Raises:
    MissingFileError: if there is no such folder.
    UserError: for another name or tree, or files without a partner.
  """
  directory = Path(directory)
  if not directory.is_dir():
    raise errors.MissingFileError(f'{directory}: no such folder.')
  benchmark = find_benchmark(directory)
  if benchmark is None:
    raise errors.UserError(
      f'{directory}: not named like one of '
      f'{", ".join(known.title for known in BENCHMARKS)}. Rename the folder, '
      'or pass a folder with Images/ and Masks/.'
    )
  directory = (
    # Some copies have the set in a second folder of its name.
    _find_folder(directory, (_simplify(benchmark.title),)) or directory
  )
  photo_dir = _find_folder(directory, _PHOTO_FOLDERS)
  if photo_dir is None:
    raise errors.UserError(
      f'{directory}: no folder of photos in it. Expected the folders '
      'Image/ and GT/, or Imgs/ with .jpg photos and .png masks.'
    )
  mask_dir = _find_folder(directory, _MASK_FOLDERS) or photo_dir
  # In one folder, photos are .jpg and masks .png.
  endings = (suffixes.JPEG, {'.png'}) if photo_dir == mask_dir else ()
  pairs, found = folder.pair_by_stem(photo_dir, mask_dir, *endings)
  folder.report(found, remedy=folder.PAIRING_REMEDY, problems=problems)
  if not pairs:
    raise errors.UserError(f'{directory}: no photo has a mask.')
  return [
    dataclasses.replace(pair, source=benchmark.source, split='test')
    for pair in sorted(pairs, key=lambda pair: pair.name)
  ]


def _simplify(name: str) -> str:
  return ''.join(character for character in name.lower() if character.isalnum())


def _find_folder(directory: Path, names: tuple[str, ...]) -> Path | None:
  """Returns the sub-folder of one of the names, or what it is nested in."""
  for entry in sorted(directory.iterdir()):
    if entry.is_dir() and _simplify(entry.name) in names:
      return _find_folder(entry, names) or entry
  return None
