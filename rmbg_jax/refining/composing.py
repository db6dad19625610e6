"""Puts foregrounds with true alpha before other backgrounds, for the refiner.

Of each photo with true alpha, a folder is made, within one whose name stands
for all that decides the compositions:

```
NAME/foreground.png   the foreground's own colours, and alpha
NAME/00.jpg           a composition; 00 is the photo itself
NAME/00_0.png         the coarse alpha that the first network sees in it
```
"""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import tqdm
from jaxtyping import Float, UInt8
from PIL import Image

from data_pipelines.datasets import decoding, records
from data_pipelines.io import errors, files, images
from rmbg_jax.inference import foreground, remover

# Shares of backgrounds that are photos, and of these that are blurred.
_PHOTOS, _BLURRED = 0.75, 0.4
# Share of the other backgrounds that are nearly white; the rest is graded.
_WHITE = 0.4
_TINTED = 0.5  # Share of foregrounds in another light.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Composition:
  """A photo with true alpha.

  Attributes:
    name: Name of the foreground; compositions of one subject share it.
    photo: Path of the photo.
    alpha: Path of the foreground's colours and alpha.
    coarse: Paths of what networks see in it.
    is_taken: Whether it is a photo as it was taken.
  """

  name: str
  photo: Path
  alpha: Path
  coarse: tuple[Path, ...]
  is_taken: bool


def compose_all(
  pairs: Sequence[records.Pair],
  backgrounds: Sequence[Path],
  directory: Path,
  *,
  count: int,
  checkpoints: Sequence[str],
  reduce: int,
  seed: int,
) -> list[Composition]:
  """Makes missing compositions, and returns all.

  Each pair of a photo and true alpha gets `count` compositions, before photos
  without a subject that matters. They are in a folder of the directory that
  other photos, networks or seeds do not share. Sides are divided by `reduce`
  first: masks that people drew are sharp and exact then.
  """
  facts = [checkpoints, reduce, seed, *map(_identify, backgrounds)]
  facts += [
    _identify(path) for p in pairs for path in (p.image_path, p.mask_path)
  ]
  digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:8]

  # Networks are loaded only if a composition is missing.
  @functools.cache
  def load_removers() -> list[remover.BackgroundRemover]:
    return list(map(remover.BackgroundRemover.from_checkpoint, checkpoints))

  made = []
  for number, pair in enumerate(tqdm.tqdm(pairs, 'Composing', unit='photo')):
    name = f'{number:04d}_{Path(pair.name).stem}'
    folder = directory / digest / name
    folder.mkdir(parents=True, exist_ok=True)
    layer = None
    for index in range(count):
      composition = Composition(
        name=name,
        photo=folder / f'{index:02d}.jpg',
        alpha=folder / 'foreground.png',
        coarse=tuple(
          folder / f'{index:02d}_{network}.png'
          for network in range(len(checkpoints))
        ),
        is_taken=index == 0 and reduce == 1,
      )
      made.append(composition)
      if composition.coarse[-1].exists():  # Written last.
        continue
      if layer is None:
        layer = _read_layer(pair, reduce)
        _write(composition.alpha, Image.fromarray(layer))
      # The photo itself has edges as cameras make them.
      if composition.is_taken:
        photo = images.to_rgb(images.open_image(pair.image_path))
      else:
        # Of its own, so that it does not matter what is there already.
        rng = np.random.default_rng([seed, number, index])
        photo = _compose(layer, backgrounds, rng)
      # No subsampling: edges keep the full resolution of their colours.
      _write(composition.photo, photo, quality=95, subsampling=0)
      # From the file, with JPEG's errors, as the refiner will see it.
      seen = images.open_image(composition.photo)
      for path, one in zip(composition.coarse, load_removers(), strict=True):
        probs = one.predict(one.resize([seen]))[0]
        _write(path, Image.fromarray((probs * 255 + 0.5).astype(np.uint8)))
  return made


def _identify(path: Path) -> tuple[str, int]:
  return str(path.absolute()), path.stat().st_size


def _read_layer(pair: records.Pair, reduce: int) -> UInt8[np.ndarray, 'h w 4']:
  """Returns the foreground's own colours, and alpha."""
  photo, mask = decoding.read_pair(pair, allow_empty=False)
  alpha = np.asarray(mask)
  if reduce > 1:
    # Drawn outlines lie a pixel or two beside the subject's.
    alpha = cv2.erode(alpha, np.ones((5, 5), np.uint8))
    alpha = np.asarray(Image.fromarray(alpha).reduce(reduce))
    photo = photo.reduce(reduce)
  if not alpha.any():
    raise errors.UserError(f'{pair.mask_path}: its foreground is too small.')
  share = alpha.astype(np.float32) / 255
  colours = foreground.estimate_foreground(np.asarray(photo), share)
  return np.dstack([colours, alpha])


def _compose(
  layer: UInt8[np.ndarray, 'h w 4'],
  backgrounds: Sequence[Path],
  rng: np.random.Generator,
) -> Image.Image:
  """Returns the foreground before a background that is drawn."""
  alpha = layer[..., 3:].astype(np.float32) / 255
  colours = layer[..., :3].astype(np.float32)
  if rng.random() < _TINTED:
    colours = colours * rng.uniform(0.75, 1.2, 3) + rng.uniform(-20, 20)
  behind = _make_background(alpha.shape[:2], backgrounds, rng)
  noise = rng.normal(0, rng.uniform(0, 4), alpha.shape)
  mixed = alpha * np.clip(colours, 0, 255) + (1 - alpha) * behind + noise
  return Image.fromarray(np.clip(mixed + 0.5, 0, 255).astype(np.uint8))


def _make_background(
  size: tuple[int, int], backgrounds: Sequence[Path], rng: np.random.Generator
) -> Float[np.ndarray, 'h w 3']:
  if rng.random() < _PHOTOS:
    path = backgrounds[int(rng.integers(len(backgrounds)))]
    photo = _cover(images.to_rgb(images.open_image(path)), size, rng)
    if rng.random() < _BLURRED:
      photo = cv2.GaussianBlur(photo, (0, 0), rng.uniform(0.5, 6))
    return photo.astype(np.float32)
  colours = rng.uniform(0, 255, (2, 3))
  if rng.random() < _WHITE:
    colours[:] = rng.uniform(225, 255)
  grade = np.linspace(0, 1, size[0])[:, None, None]
  graded = colours[0] * (1 - grade) + colours[1] * grade
  return np.broadcast_to(graded, (*size, 3)).astype(np.float32)


def _cover(
  photo: Image.Image, size: tuple[int, int], rng: np.random.Generator
) -> UInt8[np.ndarray, 'h w 3']:
  """Returns a part of a photo, enlarged where it is too small."""
  height, width = size
  scale = max(width / photo.width, height / photo.height)
  scale *= rng.uniform(1, 1.3)
  part = width / scale, height / scale
  left = rng.uniform(0, photo.width - part[0])
  top = rng.uniform(0, photo.height - part[1])
  box = left, top, left + part[0], top + part[1]
  resized = photo.resize((width, height), Image.Resampling.BICUBIC, box=box)
  return np.asarray(resized)


def _write(path: Path, image: Image.Image, **options: int) -> None:
  with files.write_atomically(path) as partial:
    kind = 'jpeg' if path.suffix == '.jpg' else 'png'
    image.save(partial, kind, **options)
