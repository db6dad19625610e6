"""Makes a refiner's input in JAX, and applies it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from rmbg_jax.models import refiner
from rmbg_jax.models.flax_network import FlaxNetwork, compute, upsample_bilinear
from rmbg_jax.models.layers import Variables


def refine(
  model: FlaxNetwork,
  variables: Variables,
  colours: Shaped[Array, 'b h w 3'],
  units: Float[Array, 'b h w'],
) -> Float[Array, 'b h w']:
  """Returns what a refiner makes of coarse logits.

  Args:
    model: The refiner.
    variables: Its variables.
    colours: RGB in [0, 255] of windows, whose sides are multiples of 16.
    units: Coarse logits in units of `refiner.LIMIT`, in [-1, 1].
  """
  colours = colours.astype(jnp.float32)
  alpha = jax.nn.sigmoid(units * refiner.LIMIT)
  # Alphas of 0 and 1 have infinite logits.
  guided = jnp.clip(
    _guide(colours / 255, alpha), 1 - refiner.MOST, refiner.MOST
  )
  guided = jnp.log(guided / (1 - guided)) / refiner.LIMIT
  planes = [(colours - 127) / 128, units[..., None], guided[..., None]]
  blocks = _join_blocks(jnp.concatenate(planes, axis=-1))
  changes = compute(model, variables, blocks)[-1]
  return jnp.clip(units + _split_blocks(changes), -1, 1)


def halve(x: Float[Array, 'b h w ...']) -> Float[Array, 'b h/2 w/2 ...']:
  """Returns the means of blocks of 2x2 pixels."""
  batch, height, width, *rest = x.shape
  blocks = x.reshape(batch, height // 2, 2, width // 2, 2, *rest)
  return blocks.mean(axis=(2, 4))


def _guide(
  colours: Float[Array, 'b h w 3'], alpha: Float[Array, 'b h w']
) -> Float[Array, 'b h w']:
  """Returns the alpha that is locally linear in colour, where that fits.

  The fast guided filter at half of the size; colours are in [0, 1].
  """
  guide, coarse = halve(colours), halve(alpha[..., None])
  # Products whose means give all variances and covariances, each once.
  red, green, blue = jnp.split(guide, 3, axis=-1)
  products = [guide * coarse, red * guide, green * guide[..., 1:], blue * blue]
  # 13 planes (b, h/2, w/2) in one array: one pass of sums for all.
  means = _average(jnp.concatenate([guide, coarse, *products], axis=-1))
  r, g, b, a, ar, ag, ab, rr, rg, rb, gg, gb, bb = jnp.moveaxis(means, -1, 0)
  # He et al.'s guided filter for colours: covariances of colour and alpha.
  ar, ag, ab = ar - a * r, ag - a * g, ab - a * b
  # Epsilon on the diagonal alone: it damps slopes where colours are flat.
  rr, gg, bb = (
    square - mean * mean + refiner.GUIDE_EPSILON
    for square, mean in ((rr, r), (gg, g), (bb, b))
  )
  rg, rb, gb = rg - r * g, rb - r * b, gb - g * b
  # The inverse of the symmetric covariance, by cofactors.
  c_rr, c_rg, c_rb = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
  c_gg, c_gb, c_bb = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
  determinant = rr * c_rr + rg * c_rg + rb * c_rb
  slopes = [
    (c_rr * ar + c_rg * ag + c_rb * ab) / determinant,
    (c_rg * ar + c_gg * ag + c_gb * ab) / determinant,
    (c_rb * ar + c_gb * ag + c_bb * ab) / determinant,
  ]
  offset = a - slopes[0] * r - slopes[1] * g - slopes[2] * b
  # Every pixel is in several windows, so their models are averaged.
  means = _average(jnp.stack([*slopes, offset], axis=-1))
  means = upsample_bilinear(means, factor=2)
  return (means[..., :3] * colours).sum(axis=-1) + means[..., 3]


def _average(values: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
  """Returns the mean of the pixels that are in the guided filter's window."""
  height, width = values.shape[1:3]
  return (
    _sum_window(_sum_window(values, 1), 2)
    # Counts of pixels, along each axis: windows at the border hold fewer.
    / _sum_window(jnp.ones((1, height, 1, 1)), 1)
    / _sum_window(jnp.ones((1, 1, width, 1)), 2)
  )


def _sum_window(values: Float[Array, 'b h w c'], axis: int) -> jax.Array:
  reach = refiner.GUIDE_SIDE // 2
  padding = [(0, 0)] * 4
  padding[axis] = (reach, reach)
  padded = jnp.pad(values, padding)
  size = values.shape[axis]
  shifted = [
    jax.lax.slice_in_dim(padded, start, start + size, axis=axis)
    for start in range(refiner.GUIDE_SIDE)
  ]
  return sum(shifted[1:], start=shifted[0])


def _join_blocks(
  pixels: Float[Array, 'b h w c'],
) -> Float[Array, 'b h/2 w/2 4*c']:
  """Returns the pixels of each 2x2 block as channels, row by row."""
  batch, height, width, channels = pixels.shape
  blocks = pixels.reshape(batch, height // 2, 2, width // 2, 2 * channels)
  # (b, h/2, w/2, row, column and channel): rows of a block come first.
  return blocks.swapaxes(2, 3).reshape(batch, height // 2, width // 2, -1)


def _split_blocks(blocks: Float[Array, 'b h w 4']) -> Float[Array, 'b 2*h 2*w']:
  """Returns the pixels of blocks."""
  batch, height, width, _ = blocks.shape
  pixels = blocks.reshape(batch, height, width, 2, 2).swapaxes(2, 3)
  return pixels.reshape(batch, 2 * height, 2 * width)
