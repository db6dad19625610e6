"""Inspects pairs and data sets before a training."""

import collections
import dataclasses
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt64
from PIL import Image

from data_pipelines.datasets import decoding, records
from data_pipelines.io import images, masks
from data_pipelines.io.errors import UserError

# Bits of 128 that may differ; unrelated photos differ in about half.
NEAR = 4
# Values of 255 that are neither foreground nor background.
_BETWEEN = slice(26, 230)
TROUBLES = ('unreadable', 'size mismatch', 'unclear mask')
_MOST_DUPLICATES = 1000  # A set of one picture has millions.


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairSummary:
  """Properties found in a pair's files.

  Attributes:
    pair: The pair, with a split.
    trouble: Why it cannot be used, or ''.
    kind: Kind of trouble: one of `TROUBLES` or ''.
    rotated: Whether the photo's EXIF tag turns or mirrors it.
    stored: Storage of the mask's values, such as '0-1' or '16 bits'.
    largest: The mask's largest value as training reads it, of 255.
    grey: The share of the mask that is neither fore- nor background.
    shades: Number of values that share has.
    coverage: The foreground's share of the picture, in [0, 1].
    border: The mask's mean along the picture's edge, in [0, 1].
    signature: Two halves of a perceptual hash, None of a photo without texture.
  """

  pair: records.Pair
  trouble: str = ''
  kind: str = ''
  rotated: bool = False
  stored: str = ''
  largest: int = 0
  grey: float = 0.0
  shades: int = 0
  coverage: float = 0.0
  border: float = 0.0
  signature: tuple[int, int] | None = None


class Finding(NamedTuple):
  """Something that several pairs have in common.

  Attributes:
    kind: Such as 'empty mask'.
    wrong: Whether training on the set as it is would be wrong.
    items: A line of text each.
    summaries: Summaries of the pairs, for pictures of them.
  """

  kind: str
  wrong: bool
  items: list[str]
  summaries: Sequence[PairSummary] = ()


def inspect_pair(pair: records.Pair) -> PairSummary:
  """Reads a pair's files completely."""
  try:
    with images.opened(pair.image_path) as header:
      rotated = images.read_orientation(header) != 1
    # Small: nothing but the signature is made of it.
    photo, size = images.open_reduced(pair.image_path, size=(64, 64))
    with images.named(pair.image_path):
      grey_photo = images.to_rgb(photo).convert('L')
    stored = images.open_image(pair.mask_path)
  except UserError as error:
    return PairSummary(pair=pair, trouble=str(error), kind='unreadable')
  stored_size = stored.height, stored.width
  if problem := decoding.compare_sizes(pair, size, stored_size):
    return PairSummary(pair=pair, trouble=problem, kind='size mismatch')
  try:
    values = np.asarray(decoding.convert_mask(stored, pair))
  except UserError as error:
    return PairSummary(pair=pair, trouble=str(error), kind='unclear mask')
  mask = values.astype(np.float32) / 255
  between = np.bincount(values.ravel(), minlength=256)[_BETWEEN]
  edges = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
  return PairSummary(
    pair=pair,
    rotated=rotated,
    stored=_name_range(masks.read_plane(stored)),
    largest=int(values.max(initial=0)),
    grey=float(between.sum() / values.size),
    shades=int(np.count_nonzero(between)),
    coverage=float(mask.mean()),
    border=float(np.concatenate(edges).mean()),
    signature=_compute_signature(grey_photo),
  )


def find_duplicates(
  signatures: UInt64[np.ndarray, 'n 2'],
) -> list[tuple[int, int]]:
  """Returns index pairs (smaller, larger) of pictures that look the same."""
  found = []
  for index in range(len(signatures) - 1):
    # Bits that differ, of this picture and all behind it.
    different = signatures[index + 1 :] ^ signatures[index]
    distances = np.bitwise_count(different).sum(axis=1)
    near = np.nonzero(distances <= NEAR)[0]
    found += [(index, index + 1 + int(offset)) for offset in near]
    if len(found) >= _MOST_DUPLICATES:
      break
  return found[:_MOST_DUPLICATES]


def find_problems(
  summaries: Sequence[PairSummary], *, allow_empty: bool
) -> list[Finding]:
  """Returns the findings in the pairs, the worst first."""
  good = [f for f in summaries if not f.trouble]
  findings = []
  for kind in TROUBLES:
    bad = [f for f in summaries if f.kind == kind]
    findings.append(Finding(kind, True, [f.trouble for f in bad], bad))
  for source, group in _group_by_source(good):
    findings += _find_ranges(source, group)
  findings += _find_same_pictures(good)
  findings.append(_find_same_names(summaries))
  turned = [f for f in good if f.rotated]
  photos = [str(f.pair.image_path) for f in turned]
  findings += [
    _list('empty mask', [f for f in good if not f.largest], not allow_empty),
    _list('full mask', [f for f in good if f.coverage > 0.995]),
    Finding('rotated by EXIF (read upright)', False, photos, turned),
  ]
  found = [finding for finding in findings if finding.items]
  return sorted(found, key=lambda finding: not finding.wrong)


def describe_sources(summaries: Sequence[PairSummary]) -> dict[str, dict]:
  """Returns by source: pairs, ranges of stored masks, mean coverage."""
  described = {}
  for source, group in _group_by_source(
    [f for f in summaries if not f.trouble]
  ):
    ranges = collections.Counter(f.stored for f in group)
    described[source] = {
      'pairs': len(group),
      'mask ranges': dict(sorted(ranges.items())),
      'mean coverage': round(float(np.mean([f.coverage for f in group])), 4),
    }
  return described


def _find_ranges(source: str, group: list[PairSummary]) -> list[Finding]:
  """Returns what is odd about the values of a source's masks."""
  findings = []
  name = source or 'all'
  full = [f for f in group if f.largest]
  dim = [f for f in full if f.largest < 128]
  if dim and len(dim) == len(full):
    problem = (
      f'{name}: none of {len(full)} masks reaches 128 of 255; the largest '
      f'value is {max(f.largest for f in full)}'
    )
    findings.append(Finding('unclear mask range', True, [problem], dim))
  elif dim:
    findings.append(_list('mask below 128 of 255', dim))
  grey = [f for f in group if f.grey > 0.5]
  # What most masks of a source have in common: one object may touch all edges.
  for kind, wrong, found, problem in (
    (
      'trimaps, or a third class',
      True,
      # A soft edge has many shades, a third class has one.
      [f for f in group if f.shades == 1 and f.grey > 0.002],
      'have one value that is neither foreground nor background',
    ),
    (
      'grey masks',
      any(f.pair.label != 'alpha' for f in grey),
      grey,
      'are mostly neither foreground nor background, as photos are',
    ),
    (
      'inverted masks',
      True,
      [f for f in group if f.border > 0.5 and f.border > f.coverage],
      'are white at the edges and darker inside; to invert them, use '
      f'data_pipelines.prepare --folder=DIR --invert={source or "folder"}',
    ),
  ):
    if len(found) > len(group) / 2:
      item = f'{name}: {len(found)} of {len(group)} masks {problem}'
      findings.append(Finding(kind, wrong, [item], found))
  if len({f.stored for f in full}) > 1:
    few = [f for f in group if f.stored == '0-1']
    findings.append(_list('mask of 0 and 1 among others', few))
  return findings


def _find_same_pictures(summaries: Sequence[PairSummary]) -> list[Finding]:
  textured = [f for f in summaries if f.signature is not None]
  signatures = np.array([f.signature for f in textured], np.uint64)
  couples = [
    (textured[first], textured[second])
    # (0, 2) if there is none.
    for first, second in find_duplicates(signatures.reshape(-1, 2))
  ]
  findings = []
  for where, wrong in (('across splits', True), ('within a split', False)):
    chosen = [
      (one, two)
      for one, two in couples
      if (one.pair.split != two.pair.split) == wrong
    ]
    items = [
      ' and '.join(f'{f.pair.image_path} ({f.pair.split})' for f in couple)
      for couple in chosen
    ]
    findings.append(
      Finding(f'same picture {where}', wrong, items, list(chain(*chosen)))
    )
  return findings


def _find_same_names(summaries: Sequence[PairSummary]) -> Finding:
  by_stem = collections.defaultdict(list)
  for summary in summaries:
    name = summary.pair.name  # A list's names need no ending.
    by_stem[(name.rpartition('.')[0] or name).lower()].append(summary)
  same = [group for group in by_stem.values() if len(group) > 1]
  items = [
    ' and '.join(f'{f.pair.name} ({f.pair.split})' for f in group)
    for group in same
  ]
  kind = 'same name but for its case or extension'
  return Finding(kind, False, items, list(chain(*same)))


def _list(
  kind: str, summaries: list[PairSummary], wrong: bool = False
) -> Finding:
  items = [str(f.pair.mask_path) for f in summaries]
  return Finding(kind, wrong, items, summaries)


def _group_by_source(
  summaries: Sequence[PairSummary],
) -> list[tuple[str, list[PairSummary]]]:
  groups = collections.defaultdict(list)
  for summary in summaries:
    groups[summary.pair.source].append(summary)
  return sorted(groups.items())


def _name_range(plane: masks.Plane) -> str:
  largest = plane.values.max(initial=0)
  if not largest:
    return 'empty'
  if plane.stored not in ('integers', 'wide integers'):
    return plane.stored
  if largest == 1:
    return '0-1'
  return '0-255' if largest <= 255 else '16 bits'


def _compute_signature(grey: Image.Image) -> tuple[int, int] | None:
  """Returns where brightness rises, to the right and down, in an 8x8 grid."""
  if np.asarray(grey).std() < 2:
    return None  # Noise alone would decide, and all such photos be alike.
  halves = []
  for size, axis in (((8, 9), 1), ((9, 8), 0)):
    cells = np.asarray(images.resize_image(grey, size=size), int)
    rises = (np.diff(cells, axis=axis) > 0).ravel()
    halves.append(int(np.packbits(rises).view('>u8')[0]))
  return halves[0], halves[1]
