"""A Keras model.h5 of the original project gives the same outputs here."""

import functools
import json

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmbg_jax import models
from rmbg_jax.weights import keras_h5, load
from scripts.references import keras_network

NARROW = {'bridge': 12, 'decoder': (16, 12, 8, 6)}
SIZES = ((64, 64), (96, 160))


def _write_fixture(path, keras, rng, *, weights_only=False, **widths):
  """Saves a random network; returns images and outputs at both sizes."""
  smaller, model = (
    keras_network.build_original(keras, size=size, **widths) for size in SIZES
  )
  images = [
    rng.uniform(0, 1, (2, *size, 3)).astype('float32') for size in SIZES
  ]
  keras_network.randomize(keras, model, images[1], rng)
  smaller.set_weights(model.get_weights())
  cases = []
  for network, image in zip((smaller, model), images, strict=True):
    outputs = network.predict(image, verbose=0)
    alive = np.mean((outputs > 0.05) & (outputs < 0.95), axis=(0, 1, 2))
    assert np.all(alive > 0.5), f'the reference is saturated: {alive}'
    cases.append((image, outputs))
  model.save_weights(path) if weights_only else model.save(path)
  return path, cases


@pytest.fixture(scope='module')
def keras2_full(tmp_path_factory):
  import tf_keras

  path = tmp_path_factory.mktemp('keras2') / 'model.h5'
  return _write_fixture(path, tf_keras, np.random.default_rng(1))


@pytest.fixture(scope='module')
def keras2_shifted(tmp_path_factory):
  import tf_keras

  # Layers made before shift the numbers in the names of those made after.
  for _ in range(9):
    tf_keras.layers.Conv2D(1, 1)
    tf_keras.layers.Activation('relu')
  for _ in range(5):
    tf_keras.layers.BatchNormalization()
  path = tmp_path_factory.mktemp('shifted') / 'model.h5'
  return _write_fixture(path, tf_keras, np.random.default_rng(2), **NARROW)


@pytest.fixture(scope='module')
def keras3(tmp_path_factory):
  import keras

  path = tmp_path_factory.mktemp('keras3') / 'model.h5'
  return _write_fixture(path, keras, np.random.default_rng(3), **NARROW)


@pytest.fixture(scope='module')
def weights_only(tmp_path_factory):
  import tf_keras

  path = tmp_path_factory.mktemp('weights') / 'weights.h5'
  return _write_fixture(
    path, tf_keras, np.random.default_rng(4), weights_only=True, **NARROW
  )


@functools.partial(jax.jit, static_argnames='model')
def _compute_outputs(model, variables, images):
  logits = model.apply(variables, images, train=False)
  return jnp.concatenate([jax.nn.sigmoid(x) for x in logits], axis=-1)


def _outputs(loaded, variables, images):
  return np.asarray(_compute_outputs(loaded.model, variables, images))


@pytest.mark.parametrize(
  'fixture', ['keras2_full', 'keras2_shifted', 'keras3', 'weights_only']
)
def test_outputs_equal_those_of_keras(fixture, request):
  path, cases = request.getfixturevalue(fixture)
  loaded = load.load_model(path)
  for images, expected in cases:
    actual = _outputs(loaded, loaded.variables, images)
    np.testing.assert_allclose(actual, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize('fixture', ['keras2_shifted', 'keras3'])
@pytest.mark.parametrize('branches', [(3, 6), (6, 9), (3, 9)])
def test_parity_notices_exchanged_branches(fixture, branches, request):
  path, cases = request.getfixturevalue(fixture)
  loaded = load.load_model(path)
  first, second = (f'rate{rate}' for rate in branches)
  bridge = dict(loaded.variables['params']['bridge'])
  for kind in ('conv', 'bn'):
    bridge[f'{kind}_{first}'], bridge[f'{kind}_{second}'] = (
      bridge[f'{kind}_{second}'],
      bridge[f'{kind}_{first}'],
    )
  variables = {
    **loaded.variables,
    'params': {**loaded.variables['params'], 'bridge': bridge},
  }
  images, expected = cases[0]
  difference = np.abs(_outputs(loaded, variables, images) - expected).max()
  assert difference > 1e-3, 'parity at 1e-4 would not notice the exchange'


def test_size_and_preprocessing_are_the_originals(keras2_shifted):
  loaded = load.load_model(keras2_shifted[0])
  assert loaded.preprocessing.size == (96, 160)
  red = jnp.array([[[255, 0, 0]]], jnp.uint8)
  np.testing.assert_allclose(
    loaded.preprocessing.normalize(red)[0, 0], [0, 0, 1], atol=1e-6
  )


def test_full_size_has_the_originals_parameters(keras2_full):
  loaded = load.load_model(keras2_full[0])
  count = sum(leaf.size for leaf in jax.tree.leaves(loaded.variables))
  assert count == 53_539_588
  default = models.create_model({'name': 'unet'})
  assert loaded.model == default


def test_numbers_were_shifted(keras2_shifted):
  with h5py.File(keras2_shifted[0]) as file:
    assert 'conv2d' not in file['model_weights']


def test_keras2_hides_an_input_among_keywords(keras2_shifted):
  with h5py.File(keras2_shifted[0]) as file:
    config = json.loads(file.attrs['model_config'])
  assert 'TFOpLambda' in {
    layer['class_name'] for layer in config['config']['layers']
  }


def test_missing_weights_are_named(weights_only, tmp_path):
  path = tmp_path / 'damaged.h5'
  path.write_bytes(weights_only[0].read_bytes())
  with h5py.File(path, 'a') as file:
    del file['conv3_block2_1_conv']
    file['conv3_block2_2_conv/conv3_block2_2_conv/extra:0'] = np.zeros(3)
    bias = file['conv1_conv/conv1_conv']
    del bias['bias:0']
    bias['bias:0'] = np.zeros(7)
  with pytest.raises(ValueError, match='do not fit') as error:
    load.load_model(path)
  message = str(error.value)
  assert str(path) in message
  assert 'missing: conv3_block2_1_conv/kernel' in message
  assert 'unexpected: conv3_block2_2_conv/extra' in message
  assert 'shape: conv1_conv/bias is (7,) in the file, (64,)' in message


def test_other_files_are_refused(tmp_path):
  text = tmp_path / 'model.h5'
  text.write_text('not HDF5')
  with pytest.raises(ValueError, match=r'model\.h5.*HDF5'):
    keras_h5.read_model(text)
  other = tmp_path / 'other.h5'
  with h5py.File(other, 'w') as file:
    file['dense/dense/kernel:0'] = np.zeros((2, 2))
  with pytest.raises(ValueError, match='no ResNet50 encoder'):
    keras_h5.read_model(other)
  # Whatever the case of its ending.
  with pytest.raises(ValueError, match='no ResNet50 encoder'):
    load.load_model(other.rename(tmp_path / 'OTHER.H5'))
  newer = tmp_path / 'model.weights.h5'
  with h5py.File(newer, 'w') as file:
    file['layers/dense/vars/0'] = np.zeros((2, 2))
  with pytest.raises(ValueError, match='Save the whole model'):
    keras_h5.read_model(newer)
  archive = tmp_path / 'model.keras'
  archive.touch()
  with pytest.raises(ValueError, match=r"model\.keras: .*save\('model\.h5'\)"):
    load.load_model(archive)
  with pytest.raises(FileNotFoundError, match='absent'):
    load.load_model(tmp_path / 'absent.h5')
