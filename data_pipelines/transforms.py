"""Decoding and augmentation of single pairs.

An element becomes a dictionary of arrays: `image` (h, w, 3) RGB and `alpha`
(h, w, 1), both uint8 in [0, 255], so that a quarter of the bytes of float32
travels to the device (the training step normalises them there), and `weight`,
a float32 number that says how much the pair counts in the loss.
"""

from collections.abc import Mapping

import numpy as np
from PIL import Image

from data_pipelines import folder, images

Element = dict[str, np.ndarray]


# Fills the last batch of an evaluation. (Grain drops elements that are None.)
PADDING = object()


class Decode:
  """Reads a pair's files at a fixed size.

  Attributes:
    size: (height, width) that photo and mask are stretched to.
    allow_empty: whether a mask without any foreground is accepted.
    label_weights: the weight of each kind of label (`folder.LABELS`).
  """

  def __init__(
    self,
    size: tuple[int, int],
    *,
    allow_empty: bool,
    label_weights: Mapping[str, float],
  ):
    self.size = size
    self.allow_empty = allow_empty
    self.label_weights = dict(label_weights)

  def map(self, element: folder.Pair | object) -> Element:
    """Returns the decoded pair; raises ValueError naming a bad file.

    `PADDING` becomes zeros with weight 0.
    """
    if element is PADDING:
      return {
        'image': np.zeros((*self.size, 3), np.uint8),
        'alpha': np.zeros((*self.size, 1), np.uint8),
        'weight': np.float32(0),
      }
    photo, mask = read_pair(element, allow_empty=self.allow_empty)
    return {
      'image': images.resize_image(photo, size=self.size),
      'alpha': images.resize_image(mask, size=self.size)[..., np.newaxis],
      'weight': np.float32(self.label_weights[element.label]),
    }


def read_pair(
  pair: folder.Pair, *, allow_empty: bool
) -> tuple[Image.Image, Image.Image]:
  """Reads a photo as RGB and its mask as 8-bit grey, of equal size.

  Raises:
    FileNotFoundError: if a file is missing.
    ValueError: if a file is unreadable, the sizes differ, or the mask is empty
      though `allow_empty` is False. The message names the file.
  """
  photo = images.to_rgb(images.open_image(pair.image_path))
  mask = images.to_mask(images.open_image(pair.mask_path))
  if photo.size != mask.size:
    raise ValueError(
      f'{pair.image_path} is {photo.width}x{photo.height} pixels, its mask '
      f'{pair.mask_path.name} {mask.width}x{mask.height}. Repair or remove '
      'the pair.'
    )
  if not allow_empty and mask.getextrema()[1] == 0:
    raise ValueError(
      f'{pair.mask_path}: the mask is empty (all values are 0). Remove the '
      'pair, or pass --config.data.allow_empty_masks=true if the photo really '
      'has no foreground.'
    )
  return photo, mask


class Augment:
  """Moves image and alpha together: horizontal flip and scale-crop.

  Attributes:
    flip: probability of a horizontal flip.
    min_scale: the smallest side of the random crop as a share of the image's
      side; the crop keeps the aspect and is resized back. 1 turns it off.
  """

  def __init__(self, *, flip: float, min_scale: float):
    if not 0 < min_scale <= 1 or not 0 <= flip <= 1:
      raise ValueError(
        'config.data.augment needs flip in [0, 1] and min_scale in (0, 1], '
        f'got flip={flip}, min_scale={min_scale}.'
      )
    self.flip = flip
    self.min_scale = min_scale

  def random_map(self, element: Element, rng: np.random.Generator) -> Element:
    """Returns the augmented pair, at the same size."""
    # Every number is drawn whether it is used or not: switching one
    # augmentation off leaves the others as they were.
    flip = rng.random() < self.flip
    scale = rng.uniform(self.min_scale, 1)
    offset = rng.random(2)
    height, width = element['image'].shape[:2]
    crop = max(1, round(height * scale)), max(1, round(width * scale))
    top = round(offset[0] * (height - crop[0]))
    left = round(offset[1] * (width - crop[1]))

    def move(array):
      array = array[top : top + crop[0], left : left + crop[1]]
      if array.shape[:2] != (height, width):
        squeezed = array[..., 0] if array.shape[-1] == 1 else array
        array = images.resize_image(
          Image.fromarray(np.ascontiguousarray(squeezed)),
          size=(height, width),
        ).reshape(height, width, -1)
      return np.ascontiguousarray(array[:, ::-1] if flip else array)

    return {
      **element,
      'image': move(element['image']),
      'alpha': move(element['alpha']),
    }
