"""Reads torchvision's `resnet50` state dict (`.safetensors` or `.pth`)."""

from pathlib import Path

from rmbg_jax.models import layers
from rmbg_jax.weights import matching, pytorch_file

# The classifier and the last stage, which the encoder does without.
_IGNORED_PREFIXES = ('fc.', 'layer4.')


def load_encoder(
  encoder: layers.Variables, path: Path, *, stage_sizes: tuple[int, ...]
) -> layers.Variables:
  """Returns an encoder's variables with the file's weights.

  Args:
    encoder: `params` and `batch_stats` of a `ResNetEncoder` in the torchvision
      dialect, for their shapes.
    path: A state dict of torchvision's `resnet50`.
    stage_sizes: Numbers of blocks in the encoder's stages.

  Raises:
    UserError: if the file is not such a state dict.
  """
  tensors = {
    name: tensor
    for name, tensor in pytorch_file.read_weights(path).items()
    if not name.startswith(_IGNORED_PREFIXES)
  }
  names = {}
  for conv, norm in matching.encoder_layers(stage_sizes):
    their_conv, their_norm = _their_names(conv)
    names[layers.CONV_KEYS[0].format(conv)] = f'{their_conv}.weight'
    parts = ('weight', 'bias', 'running_mean', 'running_var')
    for key, part in zip(layers.NORM_KEYS, parts, strict=True):
      names[key.format(norm)] = f'{their_norm}.{part}'
  return matching.assign(encoder, tensors, names, source=str(path))


def _their_names(conv: str) -> tuple[str, str]:
  """Maps `conv2_block1/conv3` to `layer1.0.conv3`, number 0 to `downsample`."""
  if '/' not in conv:
    return 'conv1', 'bn1'
  block, part = conv.split('/')
  stage, index = block.removeprefix('conv').split('_block')
  prefix = f'layer{int(stage) - 1}.{int(index) - 1}'
  number = part.removeprefix('conv')
  if number == '0':
    return f'{prefix}.downsample.0', f'{prefix}.downsample.1'
  return f'{prefix}.conv{number}', f'{prefix}.bn{number}'
