"""Small trees of files with the publishers' names."""

import itertools
from pathlib import Path

import numpy as np
from PIL import Image

NONCAM = ('5-Background-5-Vegetation', '3-Flying')


def make_p3m(
  root: Path,
  *,
  train: int = 6,
  test: int = 2,
  size: tuple[int, int] = (40, 32),
) -> None:
  """Makes P3M's folders, with soft 8-bit mattes."""
  numbers = itertools.count()
  for place, images, count in (
    ('train', 'blurred_image', train),
    ('validation/P3M-500-P', 'blurred_image', test),
    ('validation/P3M-500-NP', 'original_image', test),
  ):
    for _ in range(count):
      number = next(numbers)
      alpha = _disc(size, number, softness=6)
      _save(root / place / images / f'p_{number:08x}.jpg', alpha, number)
      _save_mask(root / place / 'mask' / f'p_{number:08x}.png', alpha)


def make_cod10k(
  root: Path,
  *,
  cam: tuple[int, int] = (4, 4),
  noncam: tuple[int, int] = (4, 4),
  size: tuple[int, int] = (36, 28),
) -> None:
  """Counts of Train and Test; half of NonCAM are backgrounds."""
  numbers = itertools.count(1000)
  for index, place in enumerate(('Train', 'Test')):
    names = [
      f'COD10K-CAM-1-Aquatic-1-BatFish-{next(numbers)}'
      for _ in range(cam[index])
    ]
    names += [
      f'COD10K-NonCAM-{NONCAM[k % 2]}-{next(numbers)}'
      for k in range(noncam[index])
    ]
    for name in names:
      seed = 100_000 + int(name.rpartition('-')[2])
      alpha = _disc(size, seed, softness=1)
      _save(root / place / 'Image' / f'{name}.jpg', alpha, seed)
      mask = alpha * 0 if 'NonCAM' in name else alpha
      _save_mask(root / place / 'GT_Object' / f'{name}.png', mask)


def make_people(
  root: Path,
  *,
  train: int = 5,
  val: int = 2,
  size: tuple[int, int] = (30, 34),
) -> None:
  """Masks of 0 and 1."""
  (root / 'segmentation').mkdir(parents=True)
  stems = [f'ache-adult-depression-{5000 + i}' for i in range(train + val)]
  for seed, stem in enumerate(stems, start=200_000):
    alpha = _disc(size, seed, softness=1)
    _save(root / 'images' / f'{stem}.jpg', alpha, seed)
    _save_mask(root / 'masks' / f'{stem}.png', (alpha > 127).astype(np.uint8))
  for split, names in (('train', stems[:train]), ('val', stems[train:])):
    (root / f'segmentation/{split}.txt').write_text('\n'.join(names) + '\n')


def _disc(size, number, *, softness):
  """Draws a disc in [0, 255] whose place and size depend on the number."""
  width, height = size
  rng = np.random.default_rng(number)
  y, x = np.mgrid[:height, :width]
  centre = rng.uniform(0.35, 0.65, 2) * (width, height)
  radius = rng.uniform(0.15, 0.3) * min(size)
  inside = radius - np.hypot(x - centre[0], y - centre[1])
  return (np.clip(0.5 + inside / softness, 0, 1) * 255).astype(np.uint8)


def _save(path, alpha, number):
  """Saves a photo in which the disc is bright and textured."""
  path.parent.mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng([1, number])
  coarse = rng.integers(0, 128, (9, 9, 3), np.uint8)
  ground = np.asarray(Image.fromarray(coarse).resize(alpha.shape[::-1]))
  photo = np.maximum(ground, alpha[..., None])
  Image.fromarray(photo).save(path, quality=90)


def _save_mask(path, alpha):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(alpha).save(path)
