"""Keeps data sets as TFDS ones: few large array_record files, no TensorFlow.

Kept are the files' own bytes: nothing is encoded anew, and decoding is that of
the folder layout.
"""

import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from data_pipelines.datasets import (
  dataset_csv,
  decoding,
  folder,
  published,
  records,
)
from data_pipelines.io import errors, files, images

READERS = {
  **{name: known.read for name, known in published.DATA_SETS.items()},
  'combined': folder.read_folder,
}

_TEXTS = ('name', 'category', 'source', 'label', 'split')
_KEPT_RECORDS = 32  # In memory, of each split.


class RmbgPairs(tfds.core.GeneratorBasedBuilder):
  """Photos and masks; each data set and their combination is a config."""

  VERSION = tfds.core.Version('1.1.0')
  RELEASE_NOTES = {'1.1.0': 'The rows of a combined set keep their own splits.'}
  BUILDER_CONFIGS = [
    tfds.core.BuilderConfig(name=name, description=f'{name}, as published')
    for name in published.DATA_SETS
  ] + [
    tfds.core.BuilderConfig(
      name='combined', description='the folder layout, as prepare.py makes it'
    )
  ]
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'Put the data set into manual_dir as its publisher ships it, for '
    '"combined" the folder that data_pipelines.prepare made.'
  )

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description='Photographs and masks of what is in their foreground.',
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(shape=(None, None, 3)),
          'mask': tfds.features.Image(shape=(None, None, 1)),
          **{key: tfds.features.Text() for key in _TEXTS},
        }
      ),
      disable_shuffling=True,  # The loader shuffles; evaluation is in order.
    )

  def _split_generators(self, dl_manager) -> dict[str, Iterator]:
    pairs = READERS[self.builder_config.name](dl_manager.manual_dir)
    decoding.check_pairs(pairs)
    folder.report(
      [str(p.image_path) for p in pairs if dataset_csv.is_foreign(p.name)],
      remedy='TFDS sets take UTF-8 alone; rename these files',
    )
    splits: dict[str, list[records.Pair]] = {}
    for pair in pairs:
      split = name_split(pair, self.builder_config.name)
      splits.setdefault(split, []).append(pair)
    return {
      split: self._generate_examples(part) for split, part in splits.items()
    }

  def _generate_examples(
    self, pairs: Sequence[records.Pair]
  ) -> Iterator[tuple[str, dict[str, str | bytes]]]:
    for pair in pairs:
      yield (
        pair.name,
        {
          'image': pair.image_path.read_bytes(),
          'mask': pair.mask_path.read_bytes(),
          **{key: getattr(pair, key) for key in _TEXTS},
        },
      )


def name_split(pair: records.Pair, name: str) -> str:
  """Returns the TFDS split of a pair of a data set of `READERS`.

  That is train, val or test; of a published set, what is not meant to be used
  beside the rest has a split of its own. A combined set's list has the say.
  """
  split = pair.split or 'train'
  if name == 'combined':
    return split
  if pair.source in ('p3m-500-p', 'p3m-500-np'):
    return pair.source.replace('-', '_')
  return f'noncam_{split}' if pair.source == 'cod10k-noncam' else split


def build(
  name: str, directory: str | os.PathLike, *, out: str | os.PathLike
) -> dict[str, int]:
  """Writes a set of `READERS` into TFDS' `data_dir`; a complete one is kept.

  Returns:
    The number of pairs by split.

  Raises:
    UserError: if there is a set of other pairs, or they have changed since.
  """
  builder = _make_builder(name, out)
  path = _index_path(builder)
  if path.exists():
    _check_kept(READERS[name](directory), path)
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir=Path(directory))
  )
  # Last: a set without it does not count as built.
  if not path.exists():
    # Reading the texts from the records would read all photos at every start.
    index = {
      split: [
        {key: record[key].decode() for key in _TEXTS}
        for record in _open_records(builder, split)
      ]
      for split in builder.info.splits
    }
    files.write_text(path, json.dumps(index))
  return {key: split.num_examples for key, split in builder.info.splits.items()}


def _check_kept(pairs: Sequence[records.Pair], path: Path) -> None:
  """Checks that a stored set, by its index, has these pairs as they are."""
  kept = [list(x.values()) for part in _read_index(path).values() for x in part]
  wanted = [[getattr(pair, key) for key in _TEXTS] for pair in pairs]
  sources = [file for p in pairs for file in (p.image_path, p.mask_path)]
  changed = max(file.stat().st_mtime_ns for file in sources)
  if sorted(kept) != sorted(wanted) or changed > path.stat().st_mtime_ns:
    raise errors.UserError(
      f'{path.parent} was made of other pairs, or these have changed since. '
      'Pass another --output, or delete that folder first.'
    )


def load(
  name: str, out: str | os.PathLike
) -> list[records.Pair[images.Encoded]]:
  """Returns the pairs for training, then those for validation.

  Their files are read when they are asked for.

  Raises:
    MissingFileError: if it has not been built there.
  """
  builder = _make_builder(name, out)
  path = _index_path(builder)
  if not (builder.is_prepared() and path.exists()):
    raise errors.MissingFileError(
      f'{out}: no TFDS data set {name}. Make it: python -m '
      f'data_pipelines.tfds_sets --name={name} --data=FOLDER --output={out}'
    )
  index = _read_index(path)
  pairs = []
  for split in [name for name in ('train', 'val') if name in index]:
    stored = _open_records(builder, split)

    # A record has both files of a pair; each thread wants one, then the other.
    @functools.lru_cache(_KEPT_RECORDS)
    def read(place, stored=stored):
      return stored[place]

    stamp = f'{path} {path.stat().st_mtime_ns} {split}'
    for place, texts in enumerate(index[split]):
      photo, mask = (
        images.Encoded(
          f'{texts["name"]} ({kind})',
          stamp=f'{stamp} {place} {key}',
          read_bytes=lambda read=read, place=place, key=key: read(place)[key],
        )
        for kind, key in (('photo', 'image'), ('mask', 'mask'))
      )
      pairs.append(records.Pair(image_path=photo, mask_path=mask, **texts))
  return pairs


def _index_path(builder: RmbgPairs) -> Path:
  return Path(builder.data_dir) / 'pairs.json'


def _read_index(path: Path) -> dict[str, list[dict[str, str]]]:
  remedy = f'Delete {path.parent} and build the data set again.'
  return files.parse_json(path.read_bytes(), path, remedy=remedy)


def _open_records(
  builder: RmbgPairs, split: str
) -> Sequence[Mapping[str, bytes]]:
  skip = tfds.decode.SkipDecoding()
  return builder.as_data_source(
    split=split, decoders={'image': skip, 'mask': skip}
  )


def _make_builder(name: str, out: str | os.PathLike) -> RmbgPairs:
  return RmbgPairs(
    config=name, data_dir=os.fspath(out), file_format='array_record'
  )
