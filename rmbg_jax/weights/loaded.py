"""A network with its weights, and how it is made of a file's tensors.

Variables are addressed by flat keys such as
`params/encoder/conv2_block1/conv1/kernel`.
"""

import copy
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.io import errors
from data_pipelines.io.types import JsonObject
from rmbg_jax import models
from rmbg_jax.models import graph, layers
from rmbg_jax.models.preprocessing import Preprocessing
from rmbg_jax.weights import foreign_onnx

if TYPE_CHECKING:
  from rmbg_jax.models import flax_network

# Variables of a convolution and of a normalisation.
_VARIABLES = (
  *(('conv', 'kernel'), ('conv', 'bias')),
  *(('bn', 'scale'), ('bn', 'bias'), ('bn', 'mean'), ('bn', 'var')),
)
# Settings with names of folders, which are private.
_PRIVATE = (
  'init_from',
  'data.dir',
  'data.backgrounds',
  'data.sharp_dir',
  'data.device.cache_dir',
  'model.encoder.weights',
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedModel:
  """A network that is ready to be applied.

  Attributes:
    network: Describes the network.
    variables: `params` and `batch_stats`, float32 NumPy arrays; empty where an
      `OnnxNetwork` has them in its file.
    preprocessing: Preprocessing that the network expects of an image.
    description: Description in the file.
    partners: Networks that look at a photo too: `BackgroundRemover` averages
      their answers with this one's.
  """

  network: layers.Network
  variables: layers.Variables
  preprocessing: Preprocessing
  description: JsonObject
  partners: tuple['LoadedModel', ...] = ()

  def with_temperature(self, temperature: float) -> 'LoadedModel':
    """Returns the same, asking for another temperature."""
    return self.with_prediction({**self.prediction, 'temperature': temperature})

  def with_prediction(self, prediction: JsonObject) -> 'LoadedModel':
    """Returns the same, asking for these options of `BackgroundRemover`."""
    description = {**self.description, 'prediction': prediction}
    return dataclasses.replace(self, description=description)

  def describe(
    self,
    **statements: Any,  # Values of JSON.
  ) -> dict[str, Any]:
    """Returns the description for a file, with its partners' as `partners`.

    Statements (data, scores, terms) are added to what it was loaded with.
    """
    kept: dict[str, Any] = {
      **copy.deepcopy(dict(self.description)),
      'preprocessing': self.preprocessing.to_dict(),
      **statements,
    }
    if self.partners:
      kept['partners'] = [partner.describe() for partner in self.partners]
    # Useful only to the training, on its own machine.
    for key in ('position', 'data'):
      kept.pop(key, None)
    if 'config' in kept:
      config = kept['config']
      for path in _PRIVATE:
        *groups, key = path.split('.')
        values = functools.reduce(
          lambda part, name: part.get(name, {}), groups, config
        )
        if key in values:
          # A name says what it was; the folder is only on that machine.
          values[key] = Path(values[key]).name if key == 'weights' else ''
      if 'coarse' in config['data']:
        config['data']['coarse'] = [
          Path(path).name for path in config['data']['coarse']
        ]
    return kept

  def count_bytes(self) -> int:
    """Returns the bytes of the weights, of partners too."""
    own = sum(leaf.nbytes for leaf in layers.flatten(self.variables).values())
    if isinstance(self.network, foreign_onnx.OnnxNetwork):
      own = self.network.path.stat().st_size
    return own + sum(partner.count_bytes() for partner in self.partners)

  def pack(self) -> 'LoadedModel':
    """Returns the same, which another machine can use without any file."""
    if not isinstance(self.network, foreign_onnx.OnnxNetwork):
      return self
    return dataclasses.replace(self, network=self.network.pack())

  @property
  def prediction(self) -> JsonObject:
    """The options of `BackgroundRemover` that the checkpoint asks for."""
    return self.description.get('prediction') or {}

  @property
  def temperature(self) -> float:
    """The checkpoint's divisor of the logits; below 1, masks are surer."""
    return float(self.prediction.get('temperature', 1.0))

  @functools.cached_property
  def model(self) -> 'flax_network.FlaxNetwork':
    """The network in Flax: `model.apply(variables, images)` gives logits."""
    from rmbg_jax.models import flax_network  # Imports JAX.

    return flax_network.FlaxNetwork(self.network)

  def compute_digest(self) -> str:
    """Returns a digest of the network, 16 hexadecimal digits."""
    facts = [
      self.description['architecture'],
      self.preprocessing.to_dict(),
      self.description.get('prediction'),
      *(partner.compute_digest() for partner in self.partners),
    ]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    # Sorted, since files have their tensors in any order.
    for key, leaf in sorted(layers.flatten(self.variables).items()):
      digest.update(f'{key} {leaf.shape}'.encode())
      digest.update(leaf.tobytes())
    return digest.hexdigest()[:16]


def assemble(
  path: Path,
  description: JsonObject,
  preprocessing: Preprocessing,
  tensors: Mapping[str, np.ndarray],
  find_name: Callable[[str], str] = str,
) -> LoadedModel:
  """Returns the network of a file, with its weights.

  Args:
    path: The file, for errors.
    description: Description of the file; it has the `architecture`.
    preprocessing: Preprocessing that the network expects of an image.
    tensors: The weights by the file's names.
    find_name: Returns the file's name of a flat key of the network's variables,
      by default the key.

  Raises:
    UserError: if there is no such network, or the weights do not fit it.
  """
  try:
    network = models.create_network(description['architecture'])
  except errors.UserError as error:
    raise errors.UserError(f'{path}: {error}') from error
  return LoadedModel(
    network=network,
    variables=assign(
      graph.list_shapes(network), tensors, find_name, source=str(path)
    ),
    preprocessing=preprocessing,
    description=description,
  )


def make_namer(
  find_layer: Callable[[str], str], *, separator: str, parts: tuple[str, ...]
) -> Callable[[str], str]:
  """Returns what names a variable in a file, of its flat key.

  Args:
    find_layer: Returns the file's name of the layer of a path, such as
      `encoder/conv1`.
    separator: What is between the names of a layer and of its part.
    parts: The file's names of a convolution's kernel and bias and of a
      normalisation's scale, bias, mean and variance.
  """

  def find_name(key: str) -> str:
    _, _, path = key.partition('/')
    layer, _, variable = path.rpartition('/')
    kind = 'bn' if layer.rpartition('/')[2].startswith('bn') else 'conv'
    part = parts[_VARIABLES.index((kind, variable))]
    return f'{find_layer(layer)}{separator}{part}'

  return find_name


def assign(
  shapes: Mapping[str, tuple[int, ...]],
  tensors: Mapping[str, np.ndarray],
  find_name: Callable[[str], str] = str,
  *,
  source: str,
) -> layers.Variables:
  """Returns the tensors as a network's variables.

  Args:
    shapes: Shapes of the variables by their flat keys.
    tensors: The foreign tensors by their own names, in this project's layout
      (convolution kernels h, w, in, out).
    find_name: Returns the foreign name of a flat key, by default the key.
    source: The file, for the error.

  Raises:
    UserError: listing by name all tensors that are missing, unexpected or of
      another shape.
  """
  names = {key: find_name(key) for key in shapes}
  there, wanted = set(tensors), set(names.values())
  problems = [
    *(f'missing: {foreign}' for foreign in sorted(wanted - there)),
    *(f'unexpected: {foreign}' for foreign in sorted(there - wanted)),
    *(
      f'shape: {foreign} is {tensors[foreign].shape} in the file, '
      f'{shapes[key]} in the network'
      for key, foreign in names.items()
      if foreign in there and tensors[foreign].shape != shapes[key]
    ),
  ]
  if problems:
    shown = '\n  '.join(problems[:40])
    more = f'\n  and {len(problems) - 40} more' if len(problems) > 40 else ''
    raise errors.UserError(
      f'{source}: the weights do not fit the network:\n  {shown}{more}\n'
      'Use the configuration that the weights were made for.'
    )
  flat = {  # Releases have float16.
    key: np.asarray(tensors[foreign], np.float32)
    for key, foreign in names.items()
  }
  return layers.unflatten(flat)


def find_shapes(variables: layers.Variables) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of nested variables by their flat keys."""
  flat = layers.flatten(variables)
  return {key: tuple(leaf.shape) for key, leaf in flat.items()}
