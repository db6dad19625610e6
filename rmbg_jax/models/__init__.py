"""Networks. They know nothing of files, flags or configurations."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from data_pipelines.io.errors import UserError
from data_pipelines.io.types import JsonObject
from rmbg_jax.models import efficientnet, u2net
from rmbg_jax.models.layers import Network
from rmbg_jax.models.refiner import Refiner
from rmbg_jax.models.unet import UNet

if TYPE_CHECKING:
  from rmbg_jax.models import flax_network

# Number of stages of each encoder.
ENCODER_STAGES = {
  'resnet50': 4,
  **dict.fromkeys(efficientnet.VARIANTS, len(efficientnet.FEATURES)),
  'u2net': len(u2net.HEIGHTS),
}
NETWORKS: dict[str, type[UNet | u2net.U2Net | Refiner]] = {
  'refiner': Refiner,
  'u2net': u2net.U2Net,
  'unet': UNet,
}


def create_network(architecture: JsonObject) -> Network:
  """Returns a network's description, from what checkpoints store.

  Args:
    architecture: `name` (a key of `NETWORKS`) and the network's attributes,
      those of a part grouped under the part's name: `encoder.width` is the
      attribute `encoder_width`. Lists, as JSON has them, become tuples.

  Raises:
    UserError: for an unknown name or attribute, or an impossible value.
  """
  attributes: dict[str, Any] = {}
  for key, value in architecture.items():
    group = value if isinstance(value, Mapping) else {'': value}
    for inner, setting in group.items():
      name = f'{key}_{inner}' if inner else key
      # Descriptions are hashable, so they hold no lists.
      attributes[name] = (
        tuple(setting) if isinstance(setting, list) else setting
      )
  name = attributes.pop('name', None)
  if name not in NETWORKS:
    raise UserError(
      f'Unknown model name {name!r}; choose one of {sorted(NETWORKS)}.'
    )
  network = NETWORKS[name]
  known = {field.name: field.default for field in dataclasses.fields(network)}
  unknown = sorted(attributes.keys() - known.keys())
  if unknown:
    raise UserError(
      f'Model {name!r} has no attribute {", ".join(unknown)}; it has '
      f'{", ".join(sorted(known))}.'
    )
  for attribute, value in attributes.items():
    if not _is_like(value, known[attribute]):
      raise UserError(
        f'Model {name!r}: {attribute}={value!r} is not of the kind of its '
        f'default, {known[attribute]!r}.'
      )
  return network(**attributes)


def _is_like(value: Any, default: Any) -> bool:
  """Returns whether a value is of an attribute's kind, by its default."""
  if isinstance(default, tuple):  # Numbers of channels, or dilations.
    return (
      isinstance(value, tuple) and bool(value) and all(map(_is_count, value))
    )
  if isinstance(default, float):  # A share.
    return type(value) in (int, float) and 0 <= value <= 1
  if type(default) is int:
    return _is_count(value)
  return type(value) is type(default)


def _is_count(value: Any) -> bool:
  return type(value) is int and value > 0


def create_model(
  architecture: JsonObject, *, dtype: str = 'float32', remat: bool = False
) -> 'flax_network.FlaxNetwork':
  """Returns a network as a Flax module; this imports JAX.

  Args:
    architecture: As of `create_network`.
    dtype: Type of the computation; checkpoints do not store it.
    remat: Whether training computes features again instead of keeping them;
      not part of it either.

  Raises:
    UserError: for an unknown name or attribute.
  """
  # Not above: whoever computes without JAX should not wait for its import.
  from rmbg_jax.models import flax_network

  return flax_network.FlaxNetwork(
    create_network(architecture), dtype=dtype, remat=remat
  )
