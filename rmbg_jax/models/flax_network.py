"""Computes a network in JAX, as a Flax module: for training, and on devices."""

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rmbg_jax.models import convolution, depthwise
from rmbg_jax.models.layers import Convolution, Network, R, Variables

Dtype = str | np.dtype | type  # 'float32', np.dtype('float32'), jnp.float32


class FlaxNetwork(nn.Module):
  """A network as a Flax module.

  Attributes:
    network: Describes it.
    dtype: Type of the computation, 'float32' or 'bfloat16'. Parameters, batch
      statistics, heads and logits are float32 either way.
    remat: Whether a part's inner features are computed again for the gradient
      instead of kept: less memory for about a third more time.
  """

  network: Network
  dtype: Dtype = 'float32'
  remat: bool = False

  @nn.compact
  def __call__(
    self,
    images: Float[Array, 'b h w c'],
    *,
    train: bool = False,
    frozen_stages: int = 0,
  ) -> tuple[Float[Array, 'b _ _ _'], ...]:
    """Computes logit maps, coarse to fine; the last is the prediction.

    Args:
      images: Preprocessed images of a size that the network takes.
      train: Whether batch statistics are computed (and updated, if
        `batch_stats` is mutable) or the running ones used.
      frozen_stages: Number of the encoder's stages that use and keep their
        running statistics in training too, and pass no gradient.

    Returns:
      Float32 logit maps (b, h, w, 1).

    Raises:
      UserError: if the network does not take such images, or cannot be built.
    """
    layers = _FlaxLayers(
      network=self.network,
      dtype=self.dtype,
      remat=self.remat,
      # Folded normalisations are identities, which a batch's statistics undo.
      train=train and not getattr(self.network, 'freeze_norm', False),
      frozen_stages=frozen_stages,
    )
    return self.network.compute(layers, images)


def compute(
  model: FlaxNetwork, variables: Variables, images: Float[Array, 'b h w c']
) -> tuple[Float[Array, 'b h w f'], ...]:
  """Computes a trained network's logit maps, coarse to fine."""
  return cast('tuple[jax.Array, ...]', model.apply(variables, images))


class _Part(nn.Module):
  """Holds the variables of a part of a network.

  Attributes:
    function: Computes it, of `layers`, features and the options.
    layers: Layers of the part.
    options: Names and values of the options.
  """

  function: Callable[..., Any]  # That of `Layers.part`.
  layers: '_FlaxLayers'
  options: tuple[tuple[str, Hashable], ...]

  @nn.compact
  def __call__(self, *inputs: jax.Array) -> Any:  # Result of the function.
    """Returns what the function returns."""
    return self.function(self.layers, *inputs, **dict(self.options))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _FlaxLayers:
  """`Layers` that compute, within the module that is being called.

  Attributes:
    network: The network that they are of.
    dtype: Type of the computation.
    remat: Whether parts compute their inner features again for the gradient.
    train: Whether batch statistics are computed or the running ones used. They
      are those of the whole global batch: under jit over a mesh the reduction
      crosses devices.
    frozen_stages: Number of the encoder's stages that stay as they are.
    path: Names of the parts that they are in, from the outermost.
  """

  network: Network
  dtype: Dtype
  remat: bool
  train: bool
  frozen_stages: int
  path: tuple[str, ...] = ()

  def conv(self, x: jax.Array, name: str, wanted: Convolution) -> jax.Array:
    reach = wanted.dilation * (wanted.kernel // 2)
    # Without a normalisation: heads, whose logits stay exact, and the refiner.
    dtype = jnp.float32 if wanted.epsilon is None else self.dtype
    algorithm = convolution.convolve
    if wanted.depthwise:
      algorithm = depthwise.convolve
    elif wanted.accurate:
      algorithm = convolution.convolve_by_rows
    x = nn.Conv(
      wanted.filters,
      (wanted.kernel, wanted.kernel),
      strides=wanted.stride,
      kernel_dilation=wanted.dilation,
      # At stride 2, PyTorch and Keras' ResNet50 pad evenly; 'SAME' would not.
      padding='SAME' if wanted.same or wanted.stride == 1 else reach,
      feature_group_count=wanted.filters if wanted.depthwise else 1,
      use_bias=wanted.use_bias,
      dtype=dtype,
      # `training.state` draws the first weights. Flax traces this one at each
      # call, to compare shapes, and random numbers take longest.
      kernel_init=nn.initializers.zeros_init(),
      conv_general_dilated=algorithm,
      name=name,
    )(x.astype(dtype))
    is_frozen = self._is_frozen(name)
    if wanted.epsilon is not None:
      x = nn.BatchNorm(
        use_running_average=not self.train or is_frozen,
        momentum=self.network.bn_momentum,
        epsilon=wanted.epsilon,
        dtype=self.dtype,
        name=name.replace('conv', 'bn'),
      )(x)
    if wanted.activation:
      x = {'relu': nn.relu, 'relu6': nn.relu6}[wanted.activation](x)
    # No gradient passes here, so none is computed in frozen stages.
    return jax.lax.stop_gradient(x) if is_frozen else x

  def relu(self, x: jax.Array, name: str) -> jax.Array:
    del name
    return nn.relu(x)

  def add(self, x: jax.Array, y: jax.Array, name: str) -> jax.Array:
    del name
    return x + y

  def concat(self, inputs: Sequence[jax.Array], name: str) -> jax.Array:
    del name
    dtype = inputs[0].dtype  # A skip connection may be the float32 image.
    return jnp.concatenate([x.astype(dtype) for x in inputs], axis=-1)

  def resize(self, x: jax.Array, name: str, *, like: jax.Array) -> jax.Array:
    del name
    size = self.find_shape(like)[:2]
    factors = {new / old for new, old in zip(size, x.shape[1:3], strict=True)}
    factor = factors.pop()
    # Both axes have the same factor if none is left in `factors`.
    if not factors and (factor == 1 or factor % 2 == 0):
      return upsample_bilinear(x, factor=int(factor))
    # Only U2-Net comes here: its pools round odd sides up. The numbers are
    # those of PyTorch's `interpolate` without aligned corners.
    shape = (x.shape[0], *size, x.shape[3])
    return jax.image.resize(x, shape, method='bilinear')

  def pool(self, x: jax.Array, name: str, *, kernel: int) -> jax.Array:
    del name
    reach = (kernel // 2,) * 2
    padding = (reach, reach) if kernel % 2 else 'SAME'
    return nn.max_pool(x, (kernel, kernel), strides=(2, 2), padding=padding)

  def find_shape(self, x: jax.Array) -> tuple[int, int, int]:
    _, height, width, channels = x.shape
    return height, width, channels

  def part(
    self,
    name: str,
    function: Callable[..., R],
    *inputs: jax.Array,
    **options: Hashable,
  ) -> R:
    # What is in another part is among its inner features.
    is_outer = self.path in ((), ('encoder',)) and name != 'encoder'
    part = nn.remat(_Part) if self.remat and is_outer else _Part
    inner = dataclasses.replace(self, path=(*self.path, name))
    # Sorted and a tuple, so that the module can be hashed.
    made = part(function, inner, tuple(sorted(options.items())), name=name)
    return made(*inputs)

  def _is_frozen(self, name: str) -> bool:
    """Returns whether a layer is in a stage that stays as it is."""
    part, *rest = (*self.path, name)
    return (
      part == 'encoder'
      and self.network.find_stage(rest[0]) <= self.frozen_stages
    )


def upsample_bilinear(
  x: Float[Array, 'b h w c'], *, factor: int
) -> Float[Array, 'b {factor}*h {factor}*w c']:
  """Enlarges by an even whole factor, bilinear with half-pixel centres.

  The same numbers as `tf.image.resize` and Keras' `UpSampling2D(bilinear)`.
  Every output pixel is a fixed blend of two neighbours per axis, which slices
  express directly; `jax.image.resize` would multiply by dense matrices.
  """
  if factor == 1:
    return x
  if factor % 2:
    raise ValueError(f'factor must be 1 or even, got {factor}.')
  return _upsample_axis(_upsample_axis(x, 1, factor), 2, factor)


def _upsample_axis(x: jax.Array, axis: int, factor: int) -> jax.Array:
  size = x.shape[axis]
  first = jax.lax.slice_in_dim(x, 0, 1, axis=axis)
  last = jax.lax.slice_in_dim(x, size - 1, size, axis=axis)
  padded = jnp.concatenate([first, x, last], axis=axis)  # Edges are repeated.
  before = jax.lax.slice_in_dim(padded, 0, size, axis=axis)
  after = jax.lax.slice_in_dim(padded, 2, size + 2, axis=axis)
  # Output pixel `factor * i + phase` lies `offset` input pixels from pixel i.
  phases = []
  for phase in range(factor):
    # In input pixels, within half of one.
    offset = (phase + 0.5) / factor - 0.5
    neighbour = before if offset < 0 else after
    weight = jnp.asarray(abs(offset), x.dtype)
    phases.append(x * (1 - weight) + neighbour * weight)
  # (..., size, factor, ...): reshaping puts phases beside each other.
  stacked = jnp.stack(phases, axis=axis + 1)
  shape = x.shape[:axis] + (size * factor,) + x.shape[axis + 1 :]
  return stacked.reshape(shape)
