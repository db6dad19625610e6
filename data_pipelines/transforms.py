"""Decoding and augmentation of single pairs.

An element becomes a dictionary of arrays: `image` (h, w, 3) RGB and `alpha`
(h, w, 1), both uint8 in [0, 255], so that a quarter of the bytes of float32
travels to the device (the training step normalises them there), and `weight`,
a float32 number that says how much the pair counts in the loss.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from data_pipelines import effects, folder, images

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
    # A photo need not be decoded at more than the scale it is wanted at.
    photo, mask = folder.read_pair(
      element, allow_empty=self.allow_empty, reduce_to=self.size
    )
    mask = images.reduce_image(mask, size=self.size)
    return {
      'image': images.resize_image(photo, size=self.size),
      'alpha': images.resize_image(mask, size=self.size)[..., np.newaxis],
      'weight': np.float32(self.label_weights[element.label]),
    }


class Augment:
  """Changes a pair at random; image and alpha move together.

  Flip, crop and rotation are one pass over the pixels; then, of the image
  alone, colour, blur, noise and JPEG artefacts, in the order in which a photo
  gets them. Each is off at its default.

  Attributes:
    flip: probability of a horizontal flip.
    min_scale: the smallest side of the random crop as a share of the image's
      side; the crop keeps the aspect and is resized back. 1 turns it off.
    rotate: the largest angle in degrees, to either side, of one photo in five;
      the others stay level, as most are. The crop is made as small as it takes
      to stay within the image.
    color: brightness, contrast and saturation are multiplied by up to 1 -
      color to 1 + color, the hue is turned by up to color / 10 of the circle.
    blur: probability of a Gaussian blur.
    noise: probability of Gaussian noise.
    jpeg: probability of JPEG artefacts.
    background: probability of another photo's background; `ReplaceBackground`
      does this before.
  """

  def __init__(
    self,
    *,
    flip: float,
    min_scale: float,
    rotate: float = 0.0,
    color: float = 0.0,
    blur: float = 0.0,
    noise: float = 0.0,
    jpeg: float = 0.0,
    background: float = 0.0,
  ):
    self.flip = flip
    self.min_scale = min_scale
    self.rotate = rotate
    self.color = color
    self.blur = blur
    self.noise = noise
    self.jpeg = jpeg
    self.background = background
    for name in ('flip', 'color', 'blur', 'noise', 'jpeg', 'background'):
      _check(name, getattr(self, name), 0 <= getattr(self, name) <= 1, '[0, 1]')
    _check('min_scale', min_scale, 0 < min_scale <= 1, '(0, 1]')
    _check('rotate', rotate, 0 <= rotate <= 45, '[0, 45]')

  def random_map(self, element: Element, rng: np.random.Generator) -> Element:
    """Returns the augmented pair, at the same size."""
    # Every number is drawn whether it is used or not: switching one
    # augmentation off leaves the others as they were.
    flip = rng.random() < self.flip
    scale = rng.uniform(self.min_scale, 1)
    offset = rng.random(2)
    turn = rng.uniform(-1, 1)
    angle = float(np.sign(turn) * max(0, 5 * abs(turn) - 4)) * self.rotate
    brightness, contrast, saturation = 1 + rng.uniform(-1, 1, 3) * self.color
    hue = rng.uniform(-1, 1) * self.color / 10
    blur, noise, jpeg = rng.random(3) < (self.blur, self.noise, self.jpeg)
    # What looks alike at different sizes: a blur of .5 to 2 pixels at 512.
    radius = rng.uniform(0.5, 2) * min(element['image'].shape[:2]) / 512
    deviation = rng.uniform(2, 12)
    seed = int(rng.integers(2**31))
    quality = int(rng.integers(30, 90))

    image, alpha = effects.move_pair(
      element['image'],
      element['alpha'],
      flip=flip,
      scale=scale,
      angle=angle,
      offset=(float(offset[0]), float(offset[1])),
    )
    if self.color:
      image = effects.change_color(
        image,
        brightness=float(brightness),
        contrast=float(contrast),
        saturation=float(saturation),
        hue=hue,
      )
    if blur:
      image = effects.blur(image, radius=radius)
    if noise:
      image = effects.add_noise(image, deviation=deviation, seed=seed)
    if jpeg:
      image = effects.compress(image, quality=quality)
    return {**element, 'image': image, 'alpha': alpha}


class ReplaceBackground:
  """Puts some foregrounds before the background of another photo.

  Attributes:
    probability: of it.
    pairs: to draw the other photo from; its own foreground is painted over.
    decode: reads it.
  """

  def __init__(
    self,
    *,
    probability: float,
    pairs: Sequence[folder.Pair],
    decode: Decode,
  ):
    self.probability = probability
    self.pairs = pairs
    self.decode = decode

  def random_map(self, element: Element, rng: np.random.Generator) -> Element:
    """Returns the pair with the same alpha, and perhaps another background."""
    chosen = rng.random() < self.probability
    index = int(rng.integers(len(self.pairs)))
    # A photo without foreground would become another, unrelated photo.
    if not chosen or not element['alpha'].any():
      return element
    other = self.decode.map(self.pairs[index])
    background = effects.fill_foreground(other['image'], other['alpha'])
    image = effects.replace_background(
      element['image'], element['alpha'], background
    )
    return {**element, 'image': image}


def _check(name: str, value: float, valid: bool, span: str) -> None:
  if not valid:
    raise ValueError(f'config.data.augment.{name}={value} is not in {span}.')
