"""Decodes and augments single pairs.

An element becomes a dictionary of arrays: `image` (h, w, 3) RGB and `alpha`
(h, w, 1), both uint8 in [0, 255], so that a quarter of the bytes of float32
travels to the device (the training step normalises them there), and `weight`,
a float32 number that says how much the pair counts in the loss.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from data_pipelines.batches import effects
from data_pipelines.datasets import decoding, records
from data_pipelines.io import errors, plain_images

Element = dict[str, np.ndarray]


# Fills the last batch of an evaluation. (Grain drops elements that are None.)
PADDING = object()

_WHOLE = effects.View()

# Share of its pixels, in each direction, that a crop is at least decoded with,
# where the file has them. With all, many a JPEG would be decoded at a finer
# scale, which takes longer.
_CROP_DETAIL = 0.75


@dataclasses.dataclass(frozen=True)
class Decode:
  """Reads a pair's files at a fixed size.

  Attributes:
    size: (height, width) that photo and mask are stretched to.
    allow_empty: Whether a mask without any foreground is accepted.
    label_weights: The weight of each kind of label (`records.LABELS`).
  """

  size: tuple[int, int]
  _: dataclasses.KW_ONLY
  allow_empty: bool
  label_weights: Mapping[str, float]

  def map(self, element: records.Pair | object) -> Element:
    """Returns the decoded pair; raises ValueError naming a bad file.

    `PADDING` becomes zeros with weight 0.
    """
    if not isinstance(element, records.Pair):  # It is `PADDING`.
      return {
        'image': np.zeros((*self.size, 3), np.uint8),
        'alpha': np.zeros((*self.size, 1), np.uint8),
        'weight': np.array(0, np.float32),
      }
    return self.read(element)

  def read(self, pair: records.Pair, view: effects.View = _WHOLE) -> Element:
    """Returns what `view` shows of a pair; raises ValueError as `map`."""
    # A photo need not be decoded at more than the scale it is wanted at.
    factor = max(1, _CROP_DETAIL / view.scale)
    height, width = (math.ceil(side * factor) for side in self.size)
    arrays = plain_images.read_pair(
      pair.image_path, pair.mask_path, reduce_to=(height, width)
    )
    photo, mask = arrays or map(
      np.asarray,
      decoding.read_pair(
        pair, allow_empty=self.allow_empty, reduce_to=(height, width)
      ),
    )
    # Decoding at a part of the scale rounds the size up.
    part = 2 ** round(math.log2(mask.shape[1] / photo.shape[1]))
    extent = mask.shape[1] / part, mask.shape[0] / part
    return {
      'image': effects.apply_view(photo, view, size=self.size, extent=extent),
      'alpha': effects.apply_view(mask, view, size=self.size)[..., np.newaxis],
      'weight': np.array(self.label_weights[pair.label], np.float32),
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augment:
  """Changes pairs at random.

  A part of the photo is seen, flipped or turned; then, of the image alone,
  come colour, blur, noise and JPEG artefacts, in the order in which a photo
  gets them. Each is off at its default.

  Attributes:
    flip: Probability of a horizontal flip.
    min_scale: The smallest side of the random crop as a share of the image's
      side; the crop keeps the aspect and is resized to the size of all. 1 turns
      it off.
    rotate: The largest angle in degrees, to either side, of one photo in five;
      the others stay level, as most are. The crop is made as small as it takes
      to stay within the image.
    color: Brightness, contrast and saturation are multiplied by up to 1 -
      color to 1 + color, the hue is turned by up to color / 10 of the circle.
    blur: Probability of a Gaussian blur.
    noise: Probability of Gaussian noise.
    jpeg: Probability of JPEG artefacts.
    background: Probability of another background.
    plain: Share of the other backgrounds that are a colour, even or graded, as
      in shops and studios; the rest are other photos' backgrounds.
  """

  flip: float = 0.0
  min_scale: float = 1.0
  rotate: float = 0.0
  color: float = 0.0
  blur: float = 0.0
  noise: float = 0.0
  jpeg: float = 0.0
  background: float = 0.0
  plain: float = 0.0

  def __post_init__(self):
    for name in (
      *('flip', 'color', 'blur', 'noise', 'jpeg', 'background', 'plain'),
    ):
      value = getattr(self, name)
      _check(name, value, 0 <= value <= 1, '[0, 1]')
    _check('min_scale', self.min_scale, 0 < self.min_scale <= 1, '(0, 1]')
    _check('rotate', self.rotate, 0 <= self.rotate <= 45, '[0, 45]')

  # Every number is drawn whether it is used or not: switching one augmentation
  # off leaves the others as they were.

  def draw_view(self, rng: np.random.Generator) -> effects.View:
    """Draws the part of a pair to show."""
    flip = rng.random() < self.flip
    scale = rng.uniform(self.min_scale, 1)
    down, right = rng.random(2).tolist()
    turn = rng.uniform(-1, 1)
    # Other than 0 for one value in five.
    angle = float(np.sign(turn) * max(0, 5 * abs(turn) - 4)) * self.rotate
    return effects.View(
      flip=flip, scale=scale, angle=angle, offset=(down, right)
    )

  def draw_plain(
    self, size: tuple[int, int], rng: np.random.Generator
  ) -> effects.Photo | None:
    """Draws a plain background of (height, width), None for another photo's."""
    is_plain, is_light = rng.random(2) < (self.plain, 0.5)
    light, color = rng.uniform(200, 255), rng.uniform(0, 255, 3)
    if is_light:  # Shops want white.
      color = np.full(3, light)
    change = rng.uniform(-40, 40)
    angle = rng.uniform(0, 2 * np.pi)
    if not is_plain:
      return None
    colors = np.stack([color, color + change])
    return effects.make_plain_background(size, colors=colors, angle=angle)

  def change_photo(
    self, image: effects.Photo, rng: np.random.Generator
  ) -> effects.Photo:
    """Returns the photo in another light and quality."""
    brightness, contrast, saturation = 1 + rng.uniform(-1, 1, 3) * self.color
    hue = rng.uniform(-1, 1) * self.color / 10
    blur, noise, jpeg = rng.random(3) < (self.blur, self.noise, self.jpeg)
    # .5 to 2 pixels at 512, so that the blur looks alike at any size.
    radius = rng.uniform(0.5, 2) * min(image.shape[:2]) / 512
    deviation = rng.uniform(2, 12)
    # Of the noise: a picture of numbers need not be drawn where it is off.
    seed = int(rng.integers(2**31))
    quality = int(rng.integers(30, 90))
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
    return image


@dataclasses.dataclass(frozen=True)
class RandomDecode:
  """Reads a pair and changes it at random; image and alpha move together.

  Attributes:
    decode: Reads it.
    augment: Says how it is changed.
    pairs: Pairs to draw other photos from, for their backgrounds.
  """

  decode: Decode
  augment: Augment
  pairs: Sequence[records.Pair]

  def random_map(self, pair: records.Pair, rng: np.random.Generator) -> Element:
    """Returns the changed pair; raises ValueError as `Decode.map`."""
    element = self.decode.read(pair, self.augment.draw_view(rng))
    image, alpha = element['image'], element['alpha']
    replace = rng.random() < self.augment.background
    other = self.pairs[int(rng.integers(len(self.pairs)))]
    behind = self.augment.draw_plain(alpha.shape[:2], rng)
    # A photo without foreground would become another, unrelated photo.
    if replace and alpha.any():
      if behind is None:
        read = self.decode.read(other)
        behind = effects.fill_foreground(read['image'], read['alpha'])
      image = effects.replace_background(image, alpha, behind)
    return {**element, 'image': self.augment.change_photo(image, rng)}


def _check(name: str, value: float, valid: bool, span: str) -> None:
  if not valid:
    raise errors.UserError(
      f'config.data.augment.{name}={value} is not in {span}.'
    )
