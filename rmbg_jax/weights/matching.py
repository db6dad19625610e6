"""Puts foreign tensors into a network's variables, all or none.

Variables are addressed by flat keys such as
`params/encoder/conv2_block1/conv1/kernel`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from data_pipelines.io import errors
from rmbg_jax.models import layers as layers_lib
from rmbg_jax.models.preprocessing import Preprocessing


@dataclasses.dataclass(frozen=True)
class StoredModel:
  """The content of a file of any kind, in this project's terms.

  Attributes:
    architecture: Description for `models.create_model`.
    preprocessing: Preprocessing that the network expects of an image.
    tensors: The weights by the file's names.
    names: The file's name of each flat key of the network's variables, None if
      it is the key.
    description: Description in the file.
    partners: Networks in the file that look at a photo too.
  """

  architecture: dict[str, Any]
  preprocessing: Preprocessing
  tensors: dict[str, np.ndarray]
  names: dict[str, str] | None
  description: dict[str, Any]
  partners: tuple['StoredModel', ...] = ()


def encoder_layers(stage_sizes: tuple[int, ...]) -> list[tuple[str, str]]:
  """Returns (convolution, its normalisation) for every pair in the encoder.

  Paths are relative to the encoder, such as `conv2_block1/conv0`; number 0 is
  the shortcut, which only a stage's first block has.
  """
  layers = [('conv1', 'bn1')]
  for stage, size in enumerate(stage_sizes, start=2):
    for number in range(1, size + 1):
      block = f'conv{stage}_block{number}'
      layers += [
        (f'{block}/conv{index}', f'{block}/bn{index}')
        for index in range(0 if number == 1 else 1, 4)
      ]
  return layers


def assign(
  shapes: Mapping[str, tuple[int, ...]],
  tensors: Mapping[str, np.ndarray],
  names: Mapping[str, str] | None = None,
  *,
  source: str,
) -> layers_lib.Variables:
  """Returns the tensors as a network's variables.

  Args:
    shapes: Shapes of the variables by their flat keys.
    tensors: The foreign tensors by their own names, in this project's layout
      (convolution kernels h, w, in, out).
    names: The foreign name of each flat key, None if it is the key.
    source: The file, for the error.

  Raises:
    UserError: listing by name all tensors that are missing, unexpected or of
      another shape.
  """
  names = {key: key for key in shapes} if names is None else names
  there, wanted = set(tensors), set(names.values())
  bare = sorted(set(shapes) - set(names))
  problems = [
    *(f'missing: {foreign}' for foreign in sorted(wanted - there)),
    *(f'missing: {key} (has no counterpart)' for key in bare),
    *(f'unexpected: {foreign}' for foreign in sorted(there - wanted)),
  ]
  for key, foreign in names.items():
    if key not in shapes:
      problems.append(f'unexpected: {foreign} (the network has no {key})')
    # What is missing has been named above.
    elif foreign in tensors and tensors[foreign].shape != shapes[key]:
      problems.append(
        f'shape: {foreign} is {tensors[foreign].shape} in the file, '
        f'{shapes[key]} in the network'
      )
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
  return layers_lib.unflatten(flat)


def find_shapes(variables: layers_lib.Variables) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of nested variables by their flat keys."""
  flat = layers_lib.flatten(variables)
  return {key: tuple(leaf.shape) for key, leaf in flat.items()}
