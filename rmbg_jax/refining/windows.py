"""Draws the windows that the refiner is trained on."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from data_pipelines.io import errors
from rmbg_jax.inference import learned
from rmbg_jax.models import refiner
from rmbg_jax.refining import composing

# Sizes of a photo that windows are cut from, as shares of its own.
_SCALES = (0.5, 1.15)
# Share of windows whose coarse alpha is made of the true one, as a coarser
# level would leave it; the others have a network's.
_DERIVED = 0.35
# Share of windows of photos as they were taken, whose edges no one composed.
_TAKEN = 0.3
_TRIES = 20


class Windows(NamedTuple):
  """A batch of windows.

  Attributes:
    colours: RGB in [0, 255].
    alpha: True alpha in [0, 1].
    coarse: Coarse logits in units of `refiner.LIMIT`, of half the size.
  """

  colours: Float[np.ndarray, 'b h w 3']
  alpha: Float[np.ndarray, 'b h w']
  coarse: Float[np.ndarray, 'b h/2 w/2']


class WindowSource:
  """Draws windows of compositions; the same ones for the same numbers."""

  def __init__(
    self,
    compositions: Sequence[composing.Composition],
    *,
    side: int,
    most_wrong: float,
  ):
    """Reads all compositions into memory.

    Args:
      compositions: Photos with true alpha and coarse ones.
      side: Height and width of a window, in pixels.
      most_wrong: Largest mean difference of coarse and true alpha in a window.
        Where a network took something else for the subject, there is nothing to
        learn about edges.

    Raises:
      UserError: if no photo is large enough.
    """
    self._side = side
    self._most_wrong = most_wrong
    # One alpha for all compositions of a foreground.
    self._layers = {
      path: np.asarray(Image.open(path))[..., 3]
      for path in {composition.alpha for composition in compositions}
    }
    self._edges = {
      path: _find_edges(alpha) for path, alpha in self._layers.items()
    }
    kept = [
      one
      for one in compositions
      if self._edges[one.alpha].size
      and min(self._layers[one.alpha].shape) >= side * _SCALES[0]
    ]
    if not kept:
      raise errors.UserError(
        f'No photo with an edge is {side * _SCALES[0]:.0f} pixels wide and '
        'high: use larger ones, or lower config.data.side.'
      )
    self._taken, self._composed = (
      [
        (
          one.alpha,
          np.asarray(Image.open(one.photo)),
          [np.asarray(Image.open(path)) for path in one.coarse],
        )
        for one in kept
        if one.is_taken == is_taken
      ]
      for is_taken in (True, False)
    )

  def draw(self, count: int, seed: Sequence[int]) -> Windows:
    """Returns so many windows, the same ones for the same seed."""
    rng = np.random.default_rng(seed)
    return Windows(
      *map(
        np.stack, zip(*(self._draw_one(rng) for _ in range(count)), strict=True)
      )
    )

  def _draw_one(self, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    # If none of them will do, the last one is taken.
    for _ in range(_TRIES):
      colours, alpha, coarse = self._cut(rng)
      if _compare(learned.from_units(coarse), alpha) <= self._most_wrong:
        break
    colours = _change_colours(colours, rng)
    turns, mirrored = rng.integers(4), rng.random() < 0.5
    parts = [np.rot90(part, int(turns)) for part in (colours, alpha, coarse)]
    return tuple(
      np.ascontiguousarray(part[:, ::-1] if mirrored else part, np.float32)
      for part in parts
    )

  def _cut(self, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Returns colours, alpha and coarse logits around a pixel of an edge."""
    chosen = self._composed or self._taken
    if self._taken and rng.random() < _TAKEN:
      chosen = self._taken
    path, photo, predictions = chosen[rng.integers(len(chosen))]
    layer, edges = self._layers[path], self._edges[path]
    height, width = layer.shape
    # Windows of a larger photo show less of it.
    seen = min(round(self._side / rng.uniform(*_SCALES)), height, width)
    y, x = edges[rng.integers(len(edges))]
    # The pixel may be anywhere in the window.
    top = int(np.clip(y - rng.integers(seen), 0, height - seen))
    left = int(np.clip(x - rng.integers(seen), 0, width - seen))
    part = slice(top, top + seen), slice(left, left + seen)
    colours = _resize(photo[part], self._side)
    alpha = _resize(layer[part].astype(np.float32) / 255, self._side)
    if rng.random() < _DERIVED:
      return colours, alpha, _derive(alpha, rng)
    coarse = predictions[rng.integers(len(predictions))]
    # The same part of the photo in the coarse map's own pixels.
    down, across = coarse.shape[0] / height, coarse.shape[1] / width
    box = left * across, top * down, (left + seen) * across, (top + seen) * down
    half = self._side // 2, self._side // 2
    probs = Image.fromarray(coarse.astype(np.float32) / 255).resize(
      half, Image.Resampling.BILINEAR, box=box
    )
    units = learned.to_units(np.asarray(probs))
    if rng.random() < 0.3:  # Of a network that is more or less sure.
      units = np.clip(units * rng.uniform(0.6, 1.4), -1, 1)
    return colours, alpha, units


def _find_edges(alpha: UInt8[np.ndarray, 'h w']) -> Int[np.ndarray, 'n 2']:
  """Returns the pixels, as (row, column), that are mixed or beside others."""
  solid = (alpha > 127).astype(np.uint8)
  border = cv2.morphologyEx(
    solid, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)
  )
  return np.argwhere(((alpha > 5) & (alpha < 250)) | (border > 0))


def _resize(pixels: np.ndarray, side: int) -> np.ndarray:
  way = Image.Resampling.BILINEAR  # Pillow averages where it makes smaller.
  return np.asarray(Image.fromarray(pixels).resize((side, side), way))


def _derive(
  alpha: Float[np.ndarray, 'h w'], rng: np.random.Generator
) -> Float[np.ndarray, 'h/2 w/2']:
  """Returns the logits that a coarser level may have left, with errors."""
  side = len(alpha)
  if rng.random() < 0.5:
    alpha = cv2.GaussianBlur(alpha, (0, 0), rng.uniform(0.1, 2))
  few = side // 2 // int(rng.choice([2, 2, 4]))
  small = Image.fromarray(alpha).resize((few, few), Image.Resampling.BOX)
  half = side // 2, side // 2
  probs = np.asarray(small.resize(half, Image.Resampling.BILINEAR))
  # In logits: an error of the whole window, and one that drifts across it.
  drift = cv2.GaussianBlur(rng.standard_normal(half), (0, 0), 4)
  error = rng.normal(0, 0.3) + drift * rng.uniform(0, 6)
  units = learned.to_units(probs) * rng.uniform(0.6, 1.3)
  return np.clip(units + error / refiner.LIMIT, -1, 1)


def _compare(coarse: np.ndarray, alpha: np.ndarray) -> float:
  """Returns the mean difference of blocks of 8x8 pixels of alpha."""
  few = len(alpha) // 8
  small = [
    cv2.resize(
      np.asarray(one, np.float32), (few, few), interpolation=cv2.INTER_AREA
    )
    for one in (coarse, alpha)
  ]
  return float(np.abs(small[0] - small[1]).mean())


def _change_colours(
  colours: UInt8[np.ndarray, 'h w 3'], rng: np.random.Generator
) -> Float[np.ndarray, 'h w 3']:
  """Changes light and quality, as cameras and files do."""
  if rng.random() < 0.2:
    colours = cv2.GaussianBlur(colours, (0, 0), rng.uniform(0.1, 1))
  if rng.random() < 0.4:
    content = io.BytesIO()
    quality = int(rng.integers(50, 96))
    Image.fromarray(colours).save(content, 'jpeg', quality=quality)
    colours = np.asarray(Image.open(content))
  pixels = colours.astype(np.float32)
  if rng.random() < 0.5:
    pixels = (pixels / 255) ** rng.uniform(0.7, 1.4) * 255
    pixels *= rng.uniform(0.8, 1.1, 3)
  if rng.random() < 0.3:
    pixels += rng.normal(0, rng.uniform(0, 6), pixels.shape)
  return np.clip(pixels, 0, 255).astype(np.float32)
