"""Describes pairs of photo and mask: data sets are lists of them."""

import dataclasses
from pathlib import Path
from typing import Generic, TypeVar

from data_pipelines.io import images

LABELS = ('gt', 'alpha', 'pseudo')
SPLITS = ('train', 'val', 'test')

File = TypeVar('File', Path, images.Encoded)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair(Generic[File]):
  """A photo and its mask.

  Attributes:
    name: Name of the photo, unique in its data set.
    category: Such as 'human', or '' where unknown.
    image_path: The photo's file; its content where there is no file of it.
    mask_path: The mask's, likewise.
    source: The data set that the pair is from, or ''.
    label: Origin of the mask: 'gt' (by people), 'alpha' (a soft matte),
      'pseudo' (by another model).
    split: 'train', 'val', 'test', or '' where the data set has none.
  """

  name: str
  category: str
  image_path: File
  mask_path: File
  source: str = ''
  label: str = 'gt'
  split: str = ''
