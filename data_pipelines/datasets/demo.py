"""Draws a data set from a seed: the embedded default, with exact alpha.

Large textured figures (blobs, stars, rings, animals) stand before a textured,
cluttered background; thin things in front occlude them. Edges are soft, some
furry. What makes a figure the foreground can be learnt: it is large, and its
texture is colourful and rich in contrast, which clutter and background are not.
"""

import colorsys
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from data_pipelines.datasets import dataset_csv, folder, records
from data_pipelines.io import errors, files, images

Plane = Float[np.ndarray, 'h w']
Picture = Float[np.ndarray, 'h w 3']


def make_demo(
  directory: Path, *, count: int, size: tuple[int, int], seed: int
) -> None:
  """Writes pictures of (height, width) pixels in the folder layout.

  A complete set is kept; of another count or size it is refused, not drawn
  anew: whether the folder holds anything else is not known. The CSV is written
  last, so an interrupted call leaves no set behind that looks complete. Picture
  k of a seed is the same whatever the count.

  Raises:
    UserError: if the folder holds another data set, or it cannot be written.
  """
  if (directory / dataset_csv.NAME).exists():
    _check_kept(directory, count, size)
    return
  # An interrupted call, or another one at this moment, has none but these.
  own = rf'\..*|({"|".join(_FIGURES)})_\d{{5}}\.(jpg|png)|{dataset_csv.NAME}'
  for file in directory.rglob('*'):
    if file.is_file() and not re.fullmatch(own, file.name):
      raise errors.UserError(
        f'{file} is not of the demo set, which would be drawn beside it. Take '
        'another folder; to train on this one, pass --config.data.name=folder.'
      )
  image_dir, mask_dir = directory / 'Images', directory / 'Masks'
  image_dir.mkdir(parents=True, exist_ok=True)
  mask_dir.mkdir(exist_ok=True)
  pairs = []
  for index in range(count):
    photo, alpha, kind = draw_pair(np.random.default_rng([seed, index]), size)
    name = f'{kind}_{index:05d}'
    pair = records.Pair(
      name=f'{name}.jpg',
      category=kind,
      image_path=image_dir / f'{name}.jpg',
      mask_path=mask_dir / f'{name}.png',
      source='demo',
      label='alpha',
    )
    try:
      with files.write_atomically(pair.image_path) as partial:
        Image.fromarray(photo).save(partial, 'jpeg', quality=92)
      with files.write_atomically(pair.mask_path) as partial:
        Image.fromarray(alpha).save(partial, 'png')
    except OSError as error:
      raise errors.UserError(
        f'{error.filename}: {error.strerror or error}; {index} of {count} '
        'pairs are drawn. Make room and run the same command again.'
      ) from error
    pairs.append(pair)
  dataset_csv.write(directory / dataset_csv.NAME, pairs)


def _check_kept(directory: Path, count: int, size: tuple[int, int]) -> None:
  pairs = folder.read_folder(directory)
  found = images.read_size(pairs[0].image_path)
  if (len(pairs), found) != (count, size):
    raise errors.UserError(
      f'{directory} holds {len(pairs)} pictures of {found[1]}x{found[0]} '
      f'pixels, not {count} drawn ones of {size[1]}x{size[0]}. Take another '
      'folder for these (--config.data.dir, or --output of '
      'data_pipelines.demo); to train on this one, pass '
      '--config.data.name=folder.'
    )


def draw_pair(
  rng: np.random.Generator, size: tuple[int, int]
) -> tuple[UInt8[np.ndarray, 'h w 3'], UInt8[np.ndarray, 'h w'], str]:
  """Draws one picture of (height, width) pixels.

  Returns:
    (RGB photo, exact alpha, kind of figure), arrays in [0, 255].
  """
  height, width = size
  # Coordinates in units of half the shorter side, the centre at 0.
  unit = min(height, width) / 2
  y, x = np.mgrid[:height, :width] + 0.5
  x, y = (x - width / 2) / unit, (y - height / 2) / unit

  photo = _draw_background(rng, x, y)
  for _ in range(rng.integers(3, 9)):
    coverage = _draw_clutter(rng, x, y, unit)
    photo = _mix(photo, _muted_colour(rng), coverage)

  kind = rng.choice(sorted(_FIGURES))
  alpha = np.zeros(size)
  for _ in range(rng.choice([1, 1, 2])):
    figure = _place_figure(rng, x, y, unit, _FIGURES[kind])
    photo = _mix(photo, _draw_texture(rng, x, y), figure)
    alpha = figure + alpha * (1 - figure)  # The later figure is in front.

  for _ in range(rng.choice([0, 0, 1, 2])):
    occluder = _draw_bar(rng, x, y, unit)
    photo = _mix(photo, _muted_colour(rng), occluder)
    alpha = alpha * (1 - occluder)

  photo = photo + rng.normal(0, rng.uniform(0.003, 0.03), photo.shape)
  return _to_bytes(photo), _to_bytes(alpha), str(kind)


def _draw_background(rng: np.random.Generator, x: Plane, y: Plane) -> Picture:
  angle = rng.uniform(0, 2 * np.pi)
  ramp = (x * np.cos(angle) + y * np.sin(angle)) / 3 + 0.5
  ramp = ramp + _noise(rng, x.shape, cells=int(rng.integers(2, 12))) * 0.3
  photo = _mix(_muted_colour(rng), _muted_colour(rng), np.clip(ramp, 0, 1))
  grain = _noise(rng, x.shape, cells=int(rng.integers(16, 48)))
  return photo + rng.uniform(0.02, 0.1) * grain[..., None]


def _draw_texture(rng: np.random.Generator, x: Plane, y: Plane) -> Picture:
  """Draws a pattern of two vivid colours, shaded from one side."""
  angle, frequency = rng.uniform(0, 2 * np.pi), rng.uniform(6, 14)
  u = (x * np.cos(angle) + y * np.sin(angle)) * frequency
  v = (y * np.cos(angle) - x * np.sin(angle)) * frequency
  pattern = rng.integers(4)
  if pattern == 0:
    wave = np.sin(u)  # Stripes.
  elif pattern == 1:
    wave = np.sin(u) * np.sin(v) * 1.5  # Checks.
  elif pattern == 2:
    wave = np.cos(u) + np.cos(v) - 0.6  # Dots.
  else:
    wave = 3 * _noise(rng, x.shape, cells=int(rng.integers(8, 20)))  # Patches.
  share = np.clip(wave * 2 + 0.5, 0, 1)
  hue = rng.uniform()
  first = _colour(hue, rng.uniform(0.7, 1), rng.uniform(0.75, 1))
  second = _colour(
    hue + rng.uniform(0.25, 0.6), rng.uniform(0.5, 1), rng.uniform(0.35, 1)
  )
  light = 0.85 + 0.15 * np.sin(x * rng.normal() + y * rng.normal())
  return _mix(first, second, share) * light[..., None]


def _place_figure(
  rng: np.random.Generator,
  x: Plane,
  y: Plane,
  unit: float,
  figure: Callable[[np.random.Generator, Plane, Plane], Plane],
) -> Plane:
  """Scales, turns and places a figure; returns its coverage in [0, 1]."""
  scale, angle = rng.uniform(0.4, 0.85), rng.uniform(-0.6, 0.6)
  dx, dy = rng.uniform(-0.45, 0.45, 2)
  u = ((x - dx) * np.cos(angle) + (y - dy) * np.sin(angle)) / scale
  v = ((y - dy) * np.cos(angle) - (x - dx) * np.sin(angle)) / scale
  outside = figure(rng, u, v) * scale * unit  # In pixels, about.
  if rng.random() < 0.4:  # Fur.
    fur = _noise(rng, x.shape, cells=int(unit / 2))
    outside = outside + fur * rng.uniform(1, 3)
  return _cover(outside, softness=rng.uniform(1, 3))


def _blob(rng: np.random.Generator, u: Plane, v: Plane) -> Plane:
  theta, radius = np.arctan2(v, u), np.hypot(u, v)
  edge = np.full_like(u, 0.8)
  for wave in range(1, 5):
    edge += rng.normal(0, 0.12 / wave) * np.cos(
      wave * theta + rng.uniform(0, 2 * np.pi)
    )
  return radius - edge


def _star(rng: np.random.Generator, u: Plane, v: Plane) -> Plane:
  theta, radius = np.arctan2(v, u), np.hypot(u, v)
  points = rng.integers(4, 8)
  return radius - 0.75 - rng.uniform(0.15, 0.3) * np.cos(points * theta)


def _ring(rng: np.random.Generator, u: Plane, v: Plane) -> Plane:
  thickness = rng.uniform(0.2, 0.32)
  return np.abs(np.hypot(u, v * rng.uniform(1, 1.4)) - 0.7) - thickness


def _animal(rng: np.random.Generator, u: Plane, v: Plane) -> Plane:
  body = _ellipse(u, v, 0, 0, 0.75, rng.uniform(0.32, 0.45))
  head = _ellipse(u, v, 0.8, -0.42, 0.3, rng.uniform(0.25, 0.32))
  tail = _ellipse(u, v, -0.85, -0.25, 0.12, 0.3)
  parts = [body, head, tail]
  for foot in (-0.5, -0.2, 0.25, 0.55):
    shift = rng.uniform(-0.06, 0.06)
    parts.append(_ellipse(u, v, foot + shift, 0.55, 0.09, 0.42))
  return np.minimum.reduce(parts)


_FIGURES = {'animal': _animal, 'blob': _blob, 'ring': _ring, 'star': _star}


def _ellipse(u, v, centre_u, centre_v, radius_u, radius_v) -> Plane:
  scaled = np.hypot((u - centre_u) / radius_u, (v - centre_v) / radius_v)
  return (scaled - 1) * min(radius_u, radius_v)


def _draw_clutter(
  rng: np.random.Generator, x: Plane, y: Plane, unit: float
) -> Plane:
  if rng.random() < 0.4:
    return _draw_bar(rng, x, y, unit)
  dx, dy = rng.uniform(-1.2, 1.2, 2)
  radius = rng.uniform(0.05, 0.16)
  u, v = np.abs(x - dx), np.abs(y - dy)
  outside = np.hypot(u, v) if rng.random() < 0.5 else np.maximum(u, v)
  return _cover((outside - radius) * unit, softness=1.5)


def _draw_bar(
  rng: np.random.Generator, x: Plane, y: Plane, unit: float
) -> Plane:
  angle = rng.uniform(0, 2 * np.pi)
  distance = x * np.cos(angle) + y * np.sin(angle) - rng.uniform(-0.9, 0.9)
  bend = 0.15 * rng.normal() * (y * np.cos(angle) - x * np.sin(angle)) ** 2
  return _cover(
    (np.abs(distance + bend) - rng.uniform(0.015, 0.05)) * unit, softness=1.2
  )


def _cover(outside: Plane, *, softness: float) -> Plane:
  """Returns coverage in [0, 1] by the distance outside an edge in pixels."""
  return np.clip(0.5 - outside / softness, 0, 1)


def _noise(
  rng: np.random.Generator, shape: tuple[int, int], *, cells: int
) -> Plane:
  """Draws smooth noise in about [-1, 1] with that many cells per side."""
  coarse = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
  return np.asarray(
    Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC),
    np.float64,
  )


def _muted_colour(rng: np.random.Generator) -> np.ndarray:
  return _colour(rng.uniform(), rng.uniform(0, 0.45), rng.uniform(0.15, 0.9))


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
  return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value))


def _mix(first: np.ndarray, second: np.ndarray, share: Plane) -> Picture:
  return first + (second - first) * share[..., None]


def _to_bytes(values: np.ndarray) -> np.ndarray:
  return np.clip(values * 255 + 0.5, 0, 255).astype(np.uint8)
