"""Exported networks give in other programs what they give here."""

import dataclasses
import functools
import json
import re
import sys
import zipfile
from pathlib import Path

import cv2
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from flax import traverse_util
from PIL import Image

from data_pipelines.io import errors
from rmbg_jax import BackgroundRemover, export, load_model, models
from rmbg_jax.evaluation import predictions
from rmbg_jax.export import model_card
from rmbg_jax.models import graph as graph_lib
from rmbg_jax.models.preprocessing import make_preprocessing
from rmbg_jax.weights import keras_preprocess, load, release

PAGE = Path(__file__).parents[2] / 'docs/export.md'
SIZE = (64, 96)
SMALL = {
  'bridge': {'filters': 6, 'rates': [2, 5]},
  'decoder': {'filters': [7, 6, 5, 4]},
  'bn_momentum': 0.9,
}
# Name: architecture, normalization.
NETWORKS = {
  'keras': (
    {
      'name': 'unet',
      'encoder': {'dialect': 'keras', 'stage_sizes': [3, 4, 6], 'width': 2},
      **SMALL,
    },
    'keras',
  ),
  'torchvision': (
    {
      'name': 'unet',
      'encoder': {
        'dialect': 'torchvision',
        'stage_sizes': [1, 2, 1],
        'width': 4,
      },
      **SMALL,
    },
    'torchvision',
  ),
  'efficientnet': (
    {
      'name': 'unet',
      'encoder': {'name': 'efficientnet_lite0'},
      'bridge': {'filters': 6, 'rates': [1, 2]},
      'decoder': {'filters': [7, 6, 5]},
      'bn_momentum': 0.9,
    },
    'efficientnet',
  ),
  'u2net': (
    {
      'name': 'u2net',
      'encoder': {'mid': [2] * 6, 'filters': [3, 4, 5, 6, 7, 8]},
      'decoder': {'mid': [2] * 5, 'filters': [9, 10, 11, 12, 13]},
    },
    'u2net',
  ),
}


@functools.cache
def _make_network(name):
  """A loaded network with random weights and batch statistics, and photos.

  Returns:
    The network, uint8 photos (3, h, w, 3) and the probabilities (3, h, w, n)
    of all its outputs.
  """
  architecture, normalization = NETWORKS[name]
  rng = np.random.default_rng(len(name))
  model = models.create_model(architecture)
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), jnp.zeros((1, *SIZE, 3)))
  )
  flat = {}
  for key, leaf in traverse_util.flatten_dict(shapes, sep='/').items():
    if key.endswith('/kernel'):
      spread = np.prod(leaf.shape[:-1]) ** -0.5
      values = rng.normal(0, 1.4 * spread, leaf.shape)
    elif key.endswith(('/scale', '/var')):
      values = rng.uniform(0.5, 1.5, leaf.shape)
    else:
      values = rng.normal(0, 0.2, leaf.shape)
    flat[key] = values.astype(np.float32)
  preprocessing = make_preprocessing(normalization, size=SIZE)
  photos = rng.integers(0, 256, (3, *SIZE, 3)).astype(np.uint8)
  photos[1] //= 2  # Not every photo's maximum is the same.
  apply = jax.jit(model.apply)
  inputs = preprocessing.normalize(jnp.asarray(photos))
  heads = sorted(
    key.removesuffix('/kernel')
    for key in flat
    if key.startswith('params/head') and key.endswith('/kernel')
  )
  if name == 'u2net':
    heads = [f'params/side{index}' for index in (6, 5, 4, 3, 2, 1)]
    heads.append('params/fuse')
  for _ in range(2):  # Outputs neither 0 nor 1; U2-Net's last reads the rest.
    logits = apply(traverse_util.unflatten_dict(flat, sep='/'), inputs)
    for head, output in zip(heads, logits, strict=True):
      scale = 1.5 / output.std()
      flat[f'{head}/kernel'] = flat[f'{head}/kernel'] * np.float32(scale)
      flat[f'{head}/bias'] = np.float32(
        (flat[f'{head}/bias'] - output.mean()) * scale
      )
  variables = traverse_util.unflatten_dict(flat, sep='/')
  probs = np.concatenate(
    [jax.nn.sigmoid(x) for x in apply(variables, inputs)], axis=-1
  )
  assert np.mean((probs > 0.05) & (probs < 0.95)) > 0.8
  description = {'architecture': architecture, 'training_data': ['nothing']}
  loaded = load.LoadedModel(
    network=model.network,
    variables=variables,
    preprocessing=preprocessing,
    description=description,
  )
  return loaded, photos, probs


def _check_description(description, loaded):
  assert description['architecture'] == loaded.description['architecture']
  assert description['preprocessing'] == loaded.preprocessing.to_dict()
  assert description['training_data'] == ['nothing']
  assert 'in [0, 1]' in description['interface']['output']


@pytest.mark.parametrize('name', NETWORKS)
def test_onnx_gives_the_same_alpha(name, tmp_path):
  loaded, photos, probs = _make_network(name)
  path = tmp_path / 'network.onnx'
  export.save_export(path, loaded)
  session = onnxruntime.InferenceSession(
    path, providers=['CPUExecutionProvider']
  )
  for batch in (1, 3):
    (alpha,) = session.run(['alpha'], {'photos': photos[:batch]})
    np.testing.assert_allclose(alpha, probs[:batch, ..., -1], atol=1e-5, rtol=0)
  metadata = session.get_modelmeta().custom_metadata_map
  _check_description(json.loads(metadata['rmbg_jax']), loaded)
  with pytest.raises(ValueError, match='an export of this project'):
    load_model(path)
  ops = {node.op_type for node in onnx.load(path).graph.node}
  assert 'BatchNormalization' not in ops


@pytest.mark.parametrize('name', NETWORKS)
def test_stablehlo_gives_the_same_alpha(name, tmp_path):
  loaded, photos, probs = _make_network(name)
  path = tmp_path / 'network.stablehlo'
  export.save_export(path, loaded)
  with zipfile.ZipFile(path) as file:
    program = jax.export.deserialize(file.read('program'))
    description = json.loads(file.read('description.json'))
  assert set(program.platforms) == {'cpu', 'cuda'}
  # Each batch size is compiled, U2-Net for 5 seconds.
  for batch in (3,) if name == 'u2net' else (1, 3):
    alpha = program.call(photos[:batch])
    np.testing.assert_allclose(alpha, probs[:batch, ..., -1], atol=1e-5, rtol=0)
  _check_description(description, loaded)


@pytest.fixture(scope='module', params=['keras', 'torchvision'])
def keras_file(request, tmp_path_factory):
  """The name of a network and its `.h5`."""
  path = tmp_path_factory.mktemp(request.param) / 'model.h5'
  export.save_export(path, _make_network(request.param)[0])
  return request.param, path


def _predict_as_the_notebook(model, files):
  """Probabilities of photos on disk, one at a time, as the original does."""
  results = []
  for file in files:
    picture = cv2.imread(str(file), cv2.IMREAD_COLOR)
    resized = cv2.resize(picture, SIZE[::-1])
    batch = np.expand_dims((resized / 255.0).astype(np.float32), axis=0)
    results.append(model.predict(batch, verbose=0)[0])
  return np.stack(results)


@pytest.mark.parametrize('package', ['tf_keras', 'keras'])
def test_keras_gives_the_same_alpha(package, keras_file, tmp_path):
  name, path = keras_file
  loaded, photos, probs = _make_network(name)
  files = [tmp_path / f'{index}.png' for index in range(len(photos))]
  for file, photo in zip(files, photos, strict=True):
    Image.fromarray(photo).save(file)
  keras = pytest.importorskip(package)
  model = keras.models.load_model(path)
  outputs = _predict_as_the_notebook(model, files)
  assert outputs.shape == (3, *SIZE, 4)
  np.testing.assert_allclose(outputs, probs, atol=1e-5, rtol=0)
  # The layer stays as it is when the model is trained on.
  assert not model.get_layer(keras_preprocess.LAYER).trainable
  # Saved by Keras, the file says less, but enough.
  model.save(tmp_path / 'again.h5')
  again = load_model(tmp_path / 'again.h5')
  assert again.model == loaded.model
  _assert_same_network(again, loaded)
  pixels = jnp.asarray(photos)
  np.testing.assert_allclose(
    again.preprocessing.normalize(pixels),
    loaded.preprocessing.normalize(pixels),
    atol=1e-4,
  )


@pytest.mark.parametrize('package', ['tf_keras', 'keras'])
def test_keras_runs_a_light_encoder(package, tmp_path):
  loaded, photos, probs = _make_network('efficientnet')
  path = tmp_path / 'small.h5'
  export.save_export(path, loaded)
  model = pytest.importorskip(package).models.load_model(path)
  outputs = model.predict(photos[..., ::-1] / np.float32(255), verbose=0)
  np.testing.assert_allclose(outputs, probs, atol=1e-5, rtol=0)
  # The original has no such network, so the way back is closed.
  with pytest.raises(ValueError, match='no ResNet50 encoder'):
    load_model(path)


def test_keras_files_are_read_back(keras_file):
  name, path = keras_file
  loaded, _, _ = _make_network(name)
  again = load_model(path)
  assert again.model == loaded.model
  assert again.preprocessing == loaded.preprocessing
  _assert_same_network(again, loaded)
  assert again.description['training_data'] == ['nothing']
  assert 'interface' not in again.description
  with h5py.File(path) as file:
    _check_description(json.loads(file.attrs['rmbg_jax']), loaded)


def _assert_same_network(ours, theirs):
  jax.tree.map(np.testing.assert_array_equal, ours.variables, theirs.variables)


def test_keras_layers_are_those_of_the_original(tmp_path):
  """The encoder is that of keras.applications.ResNet50, name by name."""
  tf_keras = pytest.importorskip('tf_keras')
  path = tmp_path / 'model.h5'
  export.save_export(path, _make_network('keras')[0])
  with h5py.File(path) as file:
    layers = json.loads(file.attrs['model_config'])['config']['layers']
  ours = {layer['name']: layer for layer in layers}
  resnet = tf_keras.applications.ResNet50(include_top=False, weights=None)
  expected = [
    layer
    for layer in resnet.get_config()['layers'][1:]
    if not layer['name'].startswith('conv5')
  ]
  assert len(expected) == 142
  for layer in expected:
    found = ours[layer['name']]
    assert found['class_name'] == layer['class_name']
    ignored = {'filters', 'momentum', 'trainable'}
    if found['config'].get('kernel_size') == [1, 1]:
      ignored.add('padding')  # There is none either way.
    for key in found['config'].keys() - ignored:
      theirs = json.loads(json.dumps(layer['config'][key]))
      assert found['config'][key] == theirs, (layer['name'], key)
    if layer['name'] != 'conv1_pad':
      sources = [
        [source[0] for source in config['inbound_nodes'][0]]
        for config in (found, layer)
      ]
      assert sources[0] == sources[1]
  kinds = {layer['class_name'] for layer in layers}
  assert 'Add' in kinds and 'TFOpLambda' not in kinds


def test_what_a_format_cannot_hold_is_refused(tmp_path, monkeypatch):
  u2net, unet = (_make_network(name)[0] for name in ('u2net', 'keras'))
  with pytest.raises(ValueError, match='U2Net has no counterpart'):
    export.save_export(tmp_path / 'model.h5', u2net)
  stretched = load.LoadedModel(
    network=unet.network,
    variables=unet.variables,
    preprocessing=make_preprocessing('u2net', size=SIZE),
    description=unet.description,
  )
  with pytest.raises(ValueError, match="image's maximum"):
    export.save_export(tmp_path / 'model.h5', stretched)
  with pytest.raises(ValueError, match=r'\.pb: unknown format.*\.onnx'):
    export.save_export(tmp_path / 'model.pb', unet)
  with pytest.raises(ValueError, match=r'model\.onnx: --dtype=float16 is for'):
    export.save_export(tmp_path / 'model.onnx', unet, dtype='float16')
  monkeypatch.setitem(sys.modules, 'onnx', None)
  with pytest.raises(ValueError, match=r'model\.onnx.*pip install -e .*onnx'):
    export.save_export(tmp_path / 'model.onnx', unet)
  assert not list(tmp_path.iterdir())


def test_a_changed_preprocess_layer_is_found(tmp_path):
  loaded, photos, _ = _make_network('keras')
  path = tmp_path / 'model.h5'
  export.save_export(path, loaded)
  place = 'model_weights/preprocess/preprocess/'
  with h5py.File(path, 'a') as file:
    file[f'{place}bias:0'][...] = [1, 2, 3]
  changed = load_model(path).preprocessing
  pixels = jnp.asarray(photos)
  np.testing.assert_allclose(
    changed.normalize(pixels) - loaded.preprocessing.normalize(pixels),
    np.broadcast_to([104.939, 118.779, 126.68], photos.shape),
    atol=1e-3,
  )
  with h5py.File(path, 'a') as file:
    file[f'{place}kernel:0'][0, 0, 0, 1] = 0.5
  with pytest.raises(ValueError, match=r'model\.h5.*mixes colours'):
    load_model(path)


def test_only_what_alpha_needs_is_written():
  loaded, _, _ = _make_network('keras')
  graph = graph_lib.Graph(loaded.network, size=SIZE)
  needed = {node.name for node in graph.find_needed(graph.outputs[-1])}
  assert 'head4/conv' in needed and 'head3/conv' not in needed
  assert len(needed) == len(graph.nodes) - 6  # Three heads and enlargements.


@functools.cache
def _make_default(photos=2):
  """Two networks that look three times, larger photos, and their alpha."""
  first, other = (_make_network(name)[0] for name in ('keras', 'torchvision'))
  stated = {**other.description, 'training_data': ['other']}
  other = dataclasses.replace(other, description=stated)
  loaded = dataclasses.replace(
    first.with_prediction(
      {'scales': (1.0, 4 / 3), 'flip': True, 'temperature': 0.5}
    ),
    partners=(other,),
  )
  remover = BackgroundRemover(
    loaded, batch_size=photos, runtime='openvino', precision='float32'
  )
  rng = np.random.default_rng(0)
  batch = rng.integers(0, 256, (photos, 96, 128, 3)).astype(np.uint8)
  return loaded, batch, remover.predict(batch)


def test_onnx_of_several_networks_looks_as_often(tmp_path):
  loaded, photos, probs = _make_default()
  path = tmp_path / 'network.onnx'
  export.save_export(path, loaded)
  session = onnxruntime.InferenceSession(
    path, providers=['CPUExecutionProvider']
  )
  (alpha,) = session.run(['alpha'], {'photos': photos})
  np.testing.assert_allclose(alpha, probs, atol=1e-5, rtol=0)
  about = json.loads(session.get_modelmeta().custom_metadata_map['rmbg_jax'])
  assert about['interface']['size'] == [96, 128]
  (partner,) = about['partners']
  assert partner['architecture'] == NETWORKS['torchvision'][0]
  # The second look of the same network has no weights of its own.
  names = [tensor.name for tensor in onnx.load(path).graph.initializer]
  assert len([n for n in names if n.endswith('head4/conv/kernel')]) == 2


def test_stablehlo_of_several_networks_looks_as_often(tmp_path):
  loaded, photos, probs = _make_default()
  path = tmp_path / 'network.stablehlo'
  export.save_export(path, loaded)
  with zipfile.ZipFile(path) as file:
    exported = jax.export.deserialize(bytearray(file.read('program')))
    about = json.loads(file.read('description.json'))
  np.testing.assert_allclose(exported.call(photos), probs, atol=1e-4, rtol=0)
  assert about['interface']['size'] == [96, 128]


def test_a_release_of_several_networks_is_the_same(tmp_path):
  loaded, _, _ = _make_default()
  path = tmp_path / 'both.safetensors'
  export.save_export(path, loaded, dtype='float32')
  again = load_model(path)
  assert again.compute_digest() == loaded.compute_digest()
  assert again.partners[0].description['training_data'] == ['other']
  facts = predictions.describe_checkpoint(str(path), again)
  assert facts['training_data'] == ['nothing', 'other']
  card = model_card.make_card(
    again.describe(), repository='me/new', license_name='other'
  )
  assert '\nnothing, other\n' in card
  # A training starts from the one that fits it.
  for network in (loaded, *loaded.partners):
    model = models.create_model(network.description['architecture'])
    flat = traverse_util.flatten_dict(load.load_variables(path, model), sep='/')
    for key, value in traverse_util.flatten_dict(
      network.variables, sep='/'
    ).items():
      np.testing.assert_array_equal(flat[key], value)


def test_a_keras_file_holds_one_network(tmp_path):
  with pytest.raises(errors.UserError, match='2 networks.*--checkpoint=small'):
    export.save_export(tmp_path / 'both.h5', load_model('released'))
  assert not any(tmp_path.iterdir())


def test_the_default_is_exported_with_its_own_scores(tmp_path):
  path = tmp_path / 'released.safetensors'
  export.save_export(path, load_model('released'))
  again = load_model(path)
  assert again.compute_digest() == load_model('released').compute_digest()
  assert again.description['scores'] == release.SCORES


def test_the_page_is_true(tmp_path, monkeypatch, rng):
  """Every Python block of docs/export.md, on the weights it exports."""
  monkeypatch.chdir(tmp_path)
  loaded = load_model('small')
  # At the network's size: OpenCV and Pillow shrink photos differently.
  pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
  photo = Image.fromarray(pixels).resize(loaded.preprocessing.size[::-1])
  photo.save('photo.png')
  remover = BackgroundRemover(loaded, precision='float32')
  expected = remover.predict(remover.resize([photo]))[0]
  assert np.ptp(expected) > 0.1
  blocks = re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.DOTALL)
  assert len(blocks) == 3
  for suffix in ('.onnx', '.stablehlo', '.h5'):
    export.save_export(tmp_path / f'network{suffix}', loaded)
    (block,) = [block for block in blocks if f'network{suffix}' in block]
    assert 'rmbg_jax' not in re.findall(r'import (\w+)', block)
    names = {}
    exec(block, names)
    np.testing.assert_allclose(names['alpha'], expected, atol=3e-5, rtol=0)
  with Image.open('cutout.png') as cutout:
    assert cutout.mode == 'RGBA'
