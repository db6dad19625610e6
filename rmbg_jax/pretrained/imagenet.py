"""Starting an encoder from ImageNet weights."""

from pathlib import Path
from typing import Any

from data_pipelines import errors
from rmbg_jax.pretrained import download, keras_h5, torchvision

FLAG = '--config.model.encoder.weights'

# Dialect: address, checksum. Keras lists the MD5 of its files; torchvision
# puts the first eight digits of the SHA-256 into the name.
PUBLISHED = {
  'keras': (
    'https://storage.googleapis.com/tensorflow/keras-applications/resnet/'
    'resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5',
    'md5:4d473c1dd8becc155b73f8504c6f6626',
  ),
  'torchvision': (
    'https://download.pytorch.org/models/resnet50-0676ba61.pth',
    'sha256:0676ba61',
  ),
}

_READERS = {
  '.h5': ('keras', keras_h5.load_encoder),
  '.safetensors': ('torchvision', torchvision.load_encoder),
  '.pth': ('torchvision', torchvision.load_encoder),
}


def load_encoder(
  variables: Any, weights: str, *, dialect: str, stage_sizes: tuple[int, ...]
) -> Any:
  """Returns a network's variables with the encoder's replaced.

  Args:
    variables: `params` and `batch_stats` of the whole network.
    weights: 'imagenet' for the published ones, or the path of a file: `.h5`
      (Keras), `.safetensors` or `.pth` (torchvision).
    dialect: of the encoder; the file must be of the same.
    stage_sizes: of the encoder.

  Raises:
    MissingFileError: if the file is missing or cannot be downloaded.
    UserError: if it does not fit the encoder.
  """
  if weights == 'imagenet':
    url, checksum = PUBLISHED[dialect]
    path = download.fetch(url, checksum=checksum, flag=FLAG)
  else:
    path = Path(weights)
  if path.suffix not in _READERS:
    raise errors.UserError(
      f'{FLAG}={weights}: expected "imagenet" or a file ending in '
      f'{", ".join(_READERS)}.'
    )
  if not path.exists():
    raise errors.MissingFileError(f'{FLAG}={weights}: no such file.')
  file_dialect, reader = _READERS[path.suffix]
  if file_dialect != dialect:
    raise errors.UserError(
      f'{FLAG}={weights}: {path.suffix} weights belong to the {file_dialect} '
      f'dialect, but config.model.encoder.dialect is {dialect!r}.'
    )
  encoder = reader(
    {key: tree['encoder'] for key, tree in variables.items()},
    path,
    stage_sizes=stage_sizes,
  )
  return {
    key: {**tree, 'encoder': encoder[key]} for key, tree in variables.items()
  }
