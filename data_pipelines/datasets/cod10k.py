"""COD10K-v3: camouflaged animals, as published (Fan et al., 2020).

5,066 photos have a camouflaged object (CAM). The other 4,934 (NonCAM) have
empty masks: 3,000 backgrounds, and 1,934 photos that do show an object, which
would teach a network to remove it. "Camouflaged Object Detection", CVPR 2020;
"Concealed Object Detection", TPAMI 2021.
"""

import dataclasses
import os

from data_pipelines.datasets import directories, folder, records
from data_pipelines.io import errors

LAYOUT = """COD10K-v3/
  Train/{Image,GT_Object}
  Test/{Image,GT_Object}"""

SUBSETS = tuple(
  directories.Subset(
    images=f'{place}/Image',
    masks=f'{place}/GT_Object',
    source='cod10k',
    split=place.lower(),
    category='',  # In the name.
    label='gt',
    count=count,
  )
  for place, count in (('Train', 6000), ('Test', 4000))
)
# NonCAM: what is left of 6,000 and 4,000.
PUBLISHED = {
  ('cod10k', 'train'): 3040,
  ('cod10k', 'test'): 2026,
  ('cod10k-noncam', 'train'): 2960,
  ('cod10k-noncam', 'test'): 1974,
}
BACKGROUND = 'background'  # The category of NonCAM photos without any object.


def read_cod10k(
  directory: str | os.PathLike, problems: list[str] | None = None
) -> list[records.Pair]:
  """Reads COD10K-v3's pairs, sorted by name.

  Two photos are in both splits under the same name; both are returned.

  Args:
    directory: The tree above or a folder that it is in; one of its two parts
      is enough.
    problems: Given, it collects what is wrong with single files, which are
      left out; otherwise that is an error.

  Returns:
    Pairs of the sources 'cod10k' (CAM) and 'cod10k-noncam', split 'train' or
    'test', labelled 'gt'. The category is the super-class in lower case
    (aquatic, terrestrial, flying, amphibian, other), and `BACKGROUND` for
    NonCAM photos without an object.

  Raises:
    MissingFileError: if there is no such folder.
    UserError: for another tree, files without a partner, or unknown names.
  """
  found: list[str] = []
  _, unnamed = directories.read_subsets(
    directory, SUBSETS, expected=LAYOUT, found=found
  )
  pairs = []
  for pair in unnamed:
    try:
      source, category = _parse_name(pair.image_path.stem)
    except ValueError as error:
      found.append(f'{pair.image_path}: {error}')
      continue
    pairs.append(dataclasses.replace(pair, source=source, category=category))
  folder.report(found, remedy=folder.PAIRING_REMEDY, problems=problems)
  return sorted(pairs, key=lambda pair: (pair.name, pair.split))


def _parse_name(stem: str) -> tuple[str, str]:
  """Returns (source, category), such as of COD10K-CAM-1-Aquatic-1-BatFish-2.

  NonCAM names may lack the parts of the sub-class: COD10K-NonCAM-3-Flying-15.
  """
  parts = stem.split('-')
  sources = {'CAM': 'cod10k', 'NonCAM': 'cod10k-noncam'}
  if not 5 <= len(parts) <= 7 or parts[1] not in sources:
    raise errors.UserError(
      'the name is not COD10K-{CAM|NonCAM}-NUMBER-CLASS[-NUMBER-CLASS]-NUMBER'
    )
  return sources[parts[1]], parts[3].lower()
