"""The input normalisation of each kind of weights."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from rmbg_jax.models import preprocessing

RGB = (200, 100, 50)


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    ('keras', (50 - 103.939, 100 - 116.779, 200 - 123.68)),
    (
      'torchvision',
      (
        (200 / 255 - 0.485) / 0.229,
        (100 / 255 - 0.456) / 0.224,
        (50 / 255 - 0.406) / 0.225,
      ),
    ),
    ('original', (50 / 255, 100 / 255, 200 / 255)),
  ],
)
def test_values(name, expected):
  made = preprocessing.make_preprocessing(name, size=(32, 48))
  images = jnp.full((1, 1, 1, 3), jnp.array(RGB, jnp.uint8))
  np.testing.assert_allclose(
    made.normalize(images)[0, 0, 0], expected, rtol=1e-5, atol=1e-5
  )


def test_keras_agrees(rng):
  import tf_keras

  images = rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
  expected = tf_keras.applications.resnet50.preprocess_input(
    images.astype('float32')
  )
  made = preprocessing.make_preprocessing('keras', size=(16, 16))
  np.testing.assert_allclose(
    made.normalize(jnp.asarray(images)), expected, atol=1e-4
  )


def test_survives_json():
  made = preprocessing.make_preprocessing('torchvision', size=(32, 48))
  description = json.loads(json.dumps(made.to_dict()))
  assert preprocessing.Preprocessing.from_dict(description) == made


def test_wrong_settings_are_refused():
  with pytest.raises(ValueError, match="'imagenet'"):
    preprocessing.make_preprocessing('imagenet', size=(32, 32))
  with pytest.raises(ValueError, match=r'multiples of 16; got \(32, 40\)'):
    preprocessing.make_preprocessing('keras', size=(32, 40))


def test_maximum_is_that_of_each_image():
  made = preprocessing.make_preprocessing('u2net', size=(320, 320))
  images = np.zeros((3, 1, 2, 3), np.uint8)
  images[0, 0] = [(10, 20, 40), (0, 80, 5)]
  images[1, 0] = [(255, 1, 2), (3, 4, 5)]  # The third one stays black.
  mean, std = np.array([(0.485, 0.456, 0.406), (0.229, 0.224, 0.225)])
  scale = np.array([80, 255, 1]).reshape(3, 1, 1, 1)
  np.testing.assert_allclose(
    made.normalize(jnp.asarray(images)),
    (images / scale - mean) / std,
    atol=1e-5,
  )
  description = json.loads(json.dumps(made.to_dict()))
  assert preprocessing.Preprocessing.from_dict(description) == made
