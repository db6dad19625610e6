"""P3M-10k: portraits with soft mattes, as published (Li et al., 2021).

Faces are blurred in the training set and in P3M-500-P, not in P3M-500-NP.
"Privacy-Preserving Portrait Matting", ACM Multimedia 2021.
"""

import os

from data_pipelines.datasets import directories, folder, records

LAYOUT = """P3M-10k/
  train/{blurred_image,mask}
  validation/P3M-500-P/{blurred_image,mask,trimap}
  validation/P3M-500-NP/{original_image,mask,trimap}"""


def _subset(place: str, images: str, source: str, split: str, count: int):
  return directories.Subset(
    images=f'{place}/{images}',
    masks=f'{place}/mask',
    source=source,
    split=split,
    category='human',
    label='alpha',
    count=count,
  )


SUBSETS = (
  _subset('train', 'blurred_image', 'p3m-10k', 'train', 9421),
  _subset('validation/P3M-500-P', 'blurred_image', 'p3m-500-p', 'test', 500),
  _subset('validation/P3M-500-NP', 'original_image', 'p3m-500-np', 'test', 500),
)
PUBLISHED = {(subset.source, subset.split): subset.count for subset in SUBSETS}


def read_p3m(
  directory: str | os.PathLike, problems: list[str] | None = None
) -> list[records.Pair]:
  """Reads P3M-10k's pairs, sorted by name.

  Args:
    directory: The tree above or a folder that it is in; one of its three parts
      is enough. P3M-500's trimaps are beside `mask/`, with equal names.
    problems: Given, it collects what is wrong with single files, which are
      left out; otherwise that is an error.

  Returns:
    Pairs of the sources 'p3m-10k' (split 'train'), 'p3m-500-p' and
    'p3m-500-np' (split 'test'), labelled 'alpha', of the category 'human'.

  Raises:
    FileNotFoundError: if there is no such folder.
    ValueError: for another tree, or files without a partner.
  """
  found: list[str] = []
  _, pairs = directories.read_subsets(
    directory, SUBSETS, expected=LAYOUT, found=found
  )
  folder.report(found, remedy=folder.PAIRING_REMEDY, problems=problems)
  return sorted(pairs, key=lambda pair: pair.name)
