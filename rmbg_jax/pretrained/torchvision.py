"""Reading torchvision's `resnet50` state dict (`.safetensors` or `.pth`)."""

from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from data_pipelines import errors
from rmbg_jax.pretrained import matching

# The classifier and the last stage, which the encoder does without, and a
# counter of batches that nothing reads.
_IGNORED_PREFIXES = ('fc.', 'layer4.')
_IGNORED_SUFFIX = '.num_batches_tracked'


def load_encoder(
  encoder: Any, path: Path, *, stage_sizes: tuple[int, ...]
) -> Any:
  """Returns an encoder's variables with the file's weights.

  Args:
    encoder: `params` and `batch_stats` of a `ResNetEncoder` in the torchvision
      dialect, for their shapes.
    path: a state dict of torchvision's `resnet50`.
    stage_sizes: of the encoder.

  Raises:
    UserError: if the file is not such a state dict, or is a `.pth` and PyTorch
      is not installed.
  """
  tensors = {}
  for name, tensor in _read(path).items():
    if name.startswith(_IGNORED_PREFIXES) or name.endswith(_IGNORED_SUFFIX):
      continue
    # PyTorch keeps convolution kernels as (out, in, h, w).
    tensors[name] = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor
  names = {}
  for conv, norm in matching.encoder_layers(stage_sizes):
    their_conv, their_norm = _their_names(conv)
    names[matching.CONV[0].format(conv)] = f'{their_conv}.weight'
    parts = ('weight', 'bias', 'running_mean', 'running_var')
    for key, part in zip(matching.NORM, parts, strict=True):
      names[key.format(norm)] = f'{their_norm}.{part}'
  return matching.assign(encoder, tensors, names, source=str(path))


def _their_names(conv: str) -> tuple[str, str]:
  """`conv2_block1/conv3` is `layer1.0.conv3`; number 0 is `downsample`."""
  if '/' not in conv:
    return 'conv1', 'bn1'
  block, part = conv.split('/')
  stage, index = block.removeprefix('conv').split('_block')
  prefix = f'layer{int(stage) - 1}.{int(index) - 1}'
  number = part.removeprefix('conv')
  if number == '0':
    return f'{prefix}.downsample.0', f'{prefix}.downsample.1'
  return f'{prefix}.conv{number}', f'{prefix}.bn{number}'


def _read(path: Path) -> dict[str, np.ndarray]:
  if path.suffix == '.safetensors':
    try:
      return safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
      raise errors.UserError(
        f'{path}: not a readable .safetensors file ({error}).'
      ) from error
  try:
    import torch
  except ImportError as error:
    raise errors.UserError(
      f'{path}: reading a .pth file needs PyTorch (pip install torch). Without '
      'it, pass the same weights as a .safetensors file.'
    ) from error
  # weights_only: a .pth is a pickle, which could run anything otherwise.
  state_dict = torch.load(path, map_location='cpu', weights_only=True)
  return {name: tensor.numpy() for name, tensor in state_dict.items()}
