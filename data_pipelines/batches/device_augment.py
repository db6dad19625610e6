"""Random changes of pairs that lie in device memory, as one jitted function.

A picture is looked at through a random window: smaller than the picture, it
enlarges; larger, the picture becomes a small part of another photo, whose own
foreground has been painted over. So every foreground meets every background.
"""

import dataclasses
import functools
import math
import operator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from data_pipelines.batches import effects, transforms
from data_pipelines.io import errors

_DRAWS = 36  # Random numbers per pair; not all of them are used.


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceAugment(transforms.Augment):
  """Changes pairs in device memory; what all loaders change, as `Augment` says.

  Attributes:
    max_scale: The largest window's side as a share of the picture's, where the
      background is replaced.
    max_enlargement: Largest enlargement of a picture over its own resolution; 0
      for any. One that is too small for that always becomes part of another
      photo.
  """

  max_scale: float = 1.0
  max_enlargement: float = 0.0

  def __post_init__(self):
    super().__post_init__()
    if self.max_scale < 1:
      raise errors.UserError(
        f'config.data.device.max_scale={self.max_scale} is below 1.'
      )
    if self.jpeg:
      raise errors.UserError(
        f'config.data.augment.jpeg (={self.jpeg}) needs '
        "config.data.loader='grain': a device cannot compress pictures. Set it "
        'to 0.'
      )

  def __call__(
    self,
    pixels: UInt8[Array, 'n h w 4'],
    index: Int[Array, 'b'],
    smallest: Float[Array, 'b'],
    key: jax.Array,
  ) -> tuple[UInt8[Array, 'b h w 3'], UInt8[Array, 'b h w 1']]:
    """Returns changed images and alphas, in [0, 255].

    Args:
      pixels: All pairs, RGB and alpha.
      index: Numbers of the pairs to change.
      smallest: The smallest window of each that resolution allows, as a share
        of the picture's side.
      key: All that the result depends on besides.
    """
    (count,) = index.shape
    # A single draw, since XLA takes long to compile many.
    draws = iter(jax.random.uniform(key, (_DRAWS, count)))
    replaced = (next(draws) < self.background) | (smallest > 1)
    lowest = jnp.maximum(self.min_scale, smallest)
    highest = jnp.where(replaced, self.max_scale, 1.0)
    rgba, inside = self._apply_view(pixels, index, lowest, highest, draws)
    image = self._change_color(rgba[..., :3], draws)
    # Beyond its border, a photo repeats its edge, or gives way to the other.
    replaced = replaced[:, None, None, None]
    alpha = jnp.where(replaced, rgba[..., 3:] * inside, rgba[..., 3:])
    if self.background or self.max_enlargement:
      other = (next(draws) * pixels.shape[0]).astype(jnp.int32)
      ones = jnp.ones(count)
      behind, _ = self._apply_view(
        pixels, other, self.min_scale * ones, ones, draws
      )
      behind = self._change_color(_fill(behind), draws)
      if self.plain:
        plain = next(draws)[:, None, None, None] < self.plain
        behind = jnp.where(plain, _make_plain(behind.shape, draws), behind)
      share = alpha / 255
      pasted = share * image + (1 - share) * behind
      image = jnp.where(replaced, pasted, image)
    image = self._degrade(image, draws, jax.random.fold_in(key, 1))
    return _to_uint8(image), _to_uint8(alpha)

  def _apply_view(self, pixels, index, lowest, highest, draws):
    """Returns RGBA (b, h, w, 4) through windows, and where the picture is."""
    height, width = pixels.shape[1:3]
    scale = lowest + (jnp.maximum(lowest, highest) - lowest) * next(draws)
    free_x = next(draws)
    # People are mostly cut off by the lower edge: there they stay.
    free_y = jnp.where(scale > 1, 1.0, next(draws))
    center_x = scale / 2 + free_x * (1 - scale)
    center_y = scale / 2 + free_y * (1 - scale)
    mirror = jnp.where(next(draws) < self.flip, -1, 1)
    turn = 2 * next(draws) - 1  # One photo in five is not level.
    angle = jnp.sign(turn) * jnp.maximum(0, 5 * jnp.abs(turn) - 4)
    angle = jnp.deg2rad(self.rotate) * angle
    # Offsets from the window's centre, in picture sides.
    y, x = jnp.meshgrid(
      (jnp.arange(height) + 0.5) / height - 0.5,
      (jnp.arange(width) + 0.5) / width - 0.5,
      indexing='ij',
    )
    y, x = y[None], x[None] * mirror[:, None, None]
    cos, sin = jnp.cos(angle)[:, None, None], jnp.sin(angle)[:, None, None]
    scale = scale[:, None, None]
    # A rotation in pixels: the sides may differ.
    wide = width / height
    source_y = center_y[:, None, None] + scale * (cos * y - sin * x * wide)
    source_x = center_x[:, None, None] + scale * (sin * y / wide + cos * x)
    inside = (jnp.abs(source_y - 0.5) <= 0.5) & (jnp.abs(source_x - 0.5) <= 0.5)
    # In indices, which are half a pixel below the pixels' centres.
    rgba = _sample(
      pixels, index, source_y * height - 0.5, source_x * width - 0.5
    )
    return rgba, inside[..., None].astype(jnp.float32)

  def _change_color(self, image, draws):
    """Changes the light of images in [0, 255]."""
    if not self.color:
      return image
    factors = [1 + self.color * (2 * next(draws) - 1) for _ in range(3)]
    hue = self.color / 10 * (2 * next(draws) - 1)
    matrix = jax.vmap(functools.partial(effects.make_color_matrix, arrays=jnp))(
      *factors, hue
    )
    image = jnp.einsum('bhwc,bdc->bhwd', image, matrix[..., :3])
    return jnp.clip(image + matrix[:, None, None, :, 3], 0, 255)

  def _degrade(self, image, draws, key):
    """Blurs some images and adds noise to some."""
    chosen = [next(draws)[:, None, None, None] for _ in range(4)]
    if self.blur:
      # 0.5 to 2 pixels at 512, so that it looks alike at any size.
      unit = min(image.shape[1:3]) / 512
      sigma = unit * (0.5 + 1.5 * chosen[0])
      blurred = _blur(image, sigma, reach=int(6 * unit + 1))  # Three sigma.
      image = jnp.where(chosen[1] < self.blur, blurred, image)
    if self.noise:
      deviation = 2 + 10 * chosen[2]
      noise = deviation * jax.random.normal(key, image.shape)
      image = jnp.where(chosen[3] < self.noise, image + noise, image)
    return image


def _to_uint8(values):
  return jnp.clip(jnp.round(values), 0, 255).astype(jnp.uint8)


def _sample(pixels, index, y, x):
  """Returns bilinear samples (b, h, w, c); beyond the border, its pixels."""
  height, width = pixels.shape[1:3]
  # Whole 1/256 pixels: XLA may compute a float twice with different rounding,
  # so that whole part and fraction would not belong together.
  y, x = (jnp.round(256 * at).astype(jnp.int32) for at in (y, x))
  top, left = y // 256, x // 256
  down, right = ((at % 256)[..., None] / 256 for at in (y, x))

  def tap(below, beside):
    row = jnp.clip(top + below, 0, height - 1)
    column = jnp.clip(left + beside, 0, width - 1)
    return pixels[index[:, None, None], row, column].astype(jnp.float32)

  upper = tap(0, 0) * (1 - right) + tap(0, 1) * right
  lower = tap(1, 0) * (1 - right) + tap(1, 1) * right
  return upper * (1 - down) + lower * down


def _fill(rgba: Float[Array, 'b h w 4']) -> Float[Array, 'b h w 3']:
  """Returns the image with its foreground painted over from around it.

  Gortler et al., "The Lumigraph", SIGGRAPH 1996: known pixels are averaged down
  a pyramid, and what is unknown is taken from the next coarser level.
  """
  known = (rgba[..., 3:] < 1).astype(jnp.float32)
  levels = [(rgba[..., :3] * known, known)]
  while all(side % 2 == 0 for side in levels[-1][1].shape[1:3]):
    levels.append(tuple(_halve(part) for part in levels[-1]))
  color, known = levels.pop()
  total = jnp.sum(known, axis=(1, 2), keepdims=True)
  # A picture may be all foreground: then nothing is known of the rest.
  mean = jnp.sum(color, axis=(1, 2), keepdims=True) / jnp.maximum(total, 1e-6)
  filled = color + (1 - known) * mean
  for color, known in reversed(levels):
    finer = jax.image.resize(filled, color.shape, 'bilinear')
    filled = color + (1 - known) * finer
  return filled


def _make_plain(shape, draws):
  """Returns backgrounds (b, h, w, 3) as `Augment.draw_plain`, in [0, 255]."""

  def draw(low, high):
    return low + (high - low) * next(draws)[:, None, None, None]

  _, height, width, _ = shape
  is_light, light = draw(0, 1) < 0.5, draw(200, 255)
  color = jnp.concatenate([draw(0, 255) for _ in range(3)], axis=-1)
  color = jnp.where(is_light, light, color)
  change, angle = draw(-40, 40), draw(0, 2 * jnp.pi)
  right = jnp.arange(width)[None, None, :, None] / width - 0.5
  down = jnp.arange(height)[None, :, None, None] / height - 0.5
  way = right * jnp.cos(angle) + down * jnp.sin(angle)
  way = 0.5 + way / math.sqrt(2)
  return jnp.clip(color + way * change, 0, 255)


def _halve(x):
  b, h, w, c = x.shape
  return x.reshape(b, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))


def _blur(image, sigma, *, reach):
  """Blurs by a Gaussian; the border's pixels continue beyond it."""
  offsets = range(-reach, reach + 1)
  taps = [
    jnp.exp(-(d**2) / (2 * jnp.maximum(sigma, 0.05) ** 2)) for d in offsets
  ]
  total = functools.reduce(operator.add, taps)
  for axis in (1, 2):
    size = image.shape[axis]
    padding = [(0, 0)] * 4
    padding[axis] = (reach, reach)
    padded = jnp.pad(image, padding, mode='edge')
    views = [
      tap / total * jax.lax.slice_in_dim(padded, i, i + size, axis=axis)
      for i, tap in enumerate(taps)
    ]
    image = functools.reduce(operator.add, views)
  return image
