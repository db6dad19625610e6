"""Starts an encoder from ImageNet weights."""

from pathlib import Path

from data_pipelines.io.errors import MissingFileError, UserError
from data_pipelines.io.types import JsonObject
from rmbg_jax.models.layers import Variables
from rmbg_jax.weights import cache, keras_h5, pytorch_encoders

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


def load_encoder(variables: Variables, config: JsonObject) -> Variables:
  """Returns a network's variables with the encoder's replaced.

  In `config.model.encoder`, `weights` are 'imagenet' for the published ones, or
  the path of a file: `.h5` (Keras), `.safetensors` or `.pth` (PyTorch).

  Raises:
    MissingFileError: if the file is missing or cannot be downloaded.
    UserError: if it does not fit the encoder.
  """
  read = _read_resnet if config['name'] == 'resnet50' else _read_efficientnet
  encoder = read(
    {key: tree['encoder'] for key, tree in variables.items()}, config
  )
  return {
    key: {**tree, 'encoder': encoder[key]} for key, tree in variables.items()
  }


def _read_resnet(encoder: Variables, config: JsonObject) -> Variables:
  weights, dialect = config['weights'], config['dialect']
  if weights == 'imagenet':
    url, checksum = PUBLISHED[dialect]
    path = cache.fetch(url, checksum=checksum, flag=FLAG)
  else:
    path = _check_path(weights, ('.h5', '.safetensors', '.pth'))
  file_dialect, read = 'torchvision', pytorch_encoders.load_resnet
  if path.suffix == '.h5':
    file_dialect, read = 'keras', keras_h5.load_encoder
  if file_dialect != dialect:
    raise UserError(
      f'{FLAG}={weights}: {path.suffix} weights belong to the {file_dialect} '
      f'dialect, but config.model.encoder.dialect is {dialect!r}.'
    )
  return read(encoder, path, stage_sizes=tuple(config['stage_sizes']))


def _read_efficientnet(encoder: Variables, config: JsonObject) -> Variables:
  weights, variant = config['weights'], config['name']
  if weights == 'imagenet':
    path = pytorch_encoders.find_published(variant)
  else:
    path = _check_path(weights, ('.pth', '.safetensors'))
  return pytorch_encoders.load_efficientnet(encoder, path, variant=variant)


def _check_path(weights: str, endings: tuple[str, ...]) -> Path:
  path = Path(weights)
  if path.suffix not in endings:
    raise UserError(
      f'{FLAG}={weights}: expected "imagenet" or a file ending in '
      f'{", ".join(endings)}.'
    )
  if not path.exists():
    raise MissingFileError(f'{FLAG}={weights}: no such file.')
  return path
