"""Reads the files of a pair, or only their headers."""

from collections.abc import Sequence
from concurrent import futures

from PIL import Image

from data_pipelines.datasets import folder
from data_pipelines.datasets.records import Pair
from data_pipelines.io import images, masks
from data_pipelines.io.errors import UserError


def read_pair(
  pair: Pair, *, allow_empty: bool, reduce_to: tuple[int, int] | None = None
) -> tuple[Image.Image, Image.Image]:
  """Reads a photo as RGB and its mask as 8-bit grey, of equal size.

  If the photo is to be resized, `reduce_to` is the (height, width): it comes
  reduced where that is cheap; the mask never does.

  Raises:
    FileNotFoundError: if a file is missing.
    ValueError: if a file is unreadable, the sizes differ, or the mask is empty
      though `allow_empty` is False. The message names the file.
  """
  if reduce_to is None:
    photo = images.open_image(pair.image_path)
    size = photo.height, photo.width
  else:
    photo, size = images.open_reduced(pair.image_path, size=reduce_to)
  mask = images.open_image(pair.mask_path)
  if problem := compare_sizes(pair, size, (mask.height, mask.width)):
    raise UserError(f'{problem}. Repair or remove the pair.')
  mask = convert_mask(mask, pair)
  if not allow_empty and mask.getextrema()[1] == 0:
    raise UserError(
      f'{pair.mask_path}: the mask is empty (all values are 0). Remove the '
      'pair, or if the photo really has no foreground, allow it '
      '(--allow_empty_masks; in training --config.data.allow_empty_masks=true).'
    )
  with images.named(pair.image_path):
    return images.to_rgb(photo), mask


def compare_sizes(
  pair: Pair, photo: tuple[int, int], mask: tuple[int, int]
) -> str:
  """Returns how a pair's (height, width) differ, '' if they do not."""
  if photo == mask:
    return ''
  return (
    f'{pair.image_path} is {photo[1]}x{photo[0]} pixels, its mask '
    f'{pair.mask_path.name} {mask[1]}x{mask[0]}'
  )


def convert_mask(
  stored: Image.Image, pair: Pair, *, is_graded: bool = False
) -> Image.Image:
  """Converts a pair's mask to 8-bit grey, 255 for all foreground.

  Every use of a truth goes through here.

  Args:
    stored: Image that `images.open_image` returned for `pair.mask_path`.
    pair: Names it, and says whether it is a soft matte.
    is_graded: Whether the mask is an average of several people's, and may be
      low everywhere.

  Raises:
    UserError: if it is unclear what is foreground; the file is named.
  """
  with images.named(pair.mask_path):
    plane = masks.read_plane(stored)
    mask = masks.to_8_bit_mask(plane)
    highest = plane.values.max(initial=0)
    # In a soft matte, a lower value may mean next to nothing, or all of a mask
    # of {0, 1} or, in a wide type, of 8 bits.
    clear = {'integers': 2, 'wide integers': 128}.get(plane.stored, 0)
    if pair.label == 'alpha' and 0 < highest < clear:
      raise UserError(
        f'its largest value is {highest}: next to nothing in a soft matte, or '
        'all of a mask of another range. Store it in 8 bits, from 0 to 255'
      )
    is_soft = is_graded or pair.label == 'alpha'
    if 0 < mask.max(initial=0) < 128 and not is_soft:
      raise UserError(
        f'its largest value is {highest:g}; foreground must be 1, or 255 (in '
        'a soft matte it may be less: set its Label to alpha)'
      )
  return Image.fromarray(mask)


def check_pairs(pairs: Sequence[Pair]) -> None:
  """Checks from the headers that all files are images of matching sizes.

  Raises:
    ValueError: naming up to ten files and what is wrong with each.
  """
  # Threads: reading headers is waiting for the disk.
  with futures.ThreadPoolExecutor() as pool:
    problems = list(filter(None, pool.map(_find_problem, pairs)))
  folder.report(problems, remedy='Repair or remove these pairs')


def _find_problem(pair: Pair) -> str:
  try:
    sizes = images.read_size(pair.image_path), images.read_size(pair.mask_path)
  except (OSError, ValueError) as error:
    return str(error)
  return compare_sizes(pair, *sizes)
