"""The refiner: where it changes alpha, and that all runtimes do alike."""

import numpy as np
import pytest
from PIL import Image

from data_pipelines.io import errors
from rmbg_jax import BackgroundRemover, export
from rmbg_jax.inference import learned, refinement
from rmbg_jax.models import graph, layers, preprocessing, refiner
from rmbg_jax.weights import load, release
from tests.support import colour_network, helpers

NETWORK = {'name': 'refiner', 'filters': [4, 8, 8, 8]}


def save_refiner(path, *, scale, seed=0):
  """A refiner of random weights."""
  rng = np.random.default_rng(seed)
  shapes = graph.Graph(
    refiner.Refiner(filters=(4, 8, 8, 8)), size=(48, 48)
  ).list_shapes()
  flat = {
    key: (scale * rng.standard_normal(shape)).astype(np.float32)
    for key, shape in shapes.items()
  }
  made = preprocessing.make_preprocessing('efficientnet', size=(96, 96))
  release.save_release(
    path,
    layers.unflatten(flat),
    {'architecture': NETWORK, 'preprocessing': made.to_dict()},
    dtype='float32',
  )


@pytest.fixture(scope='module')
def unsteady(tmp_path_factory):
  """A refiner that changes all that it sees."""
  path = tmp_path_factory.mktemp('refiner') / 'unsteady.safetensors'
  save_refiner(path, scale=0.3)
  return str(path)


def _load(path, runtime='openvino'):
  return learned.load_refiner(
    path, runtime=runtime, precision='float32', threads=2
  )


def _disc(size):
  rows, columns = np.mgrid[: size[1], : size[0]]
  distance = np.hypot(rows - size[1] / 2, columns - size[0] / 2)
  return (distance < min(size) / 3).astype(np.float32)


def test_openvino_and_jax_agree(unsteady):
  rng = np.random.default_rng(0)
  photo = helpers.make_photo((300, 200)).resize((700, 500))
  probs = np.asarray(
    Image.fromarray(rng.random((9, 12), np.float32)).resize((48, 48))
  )
  found = [
    _load(unsteady, runtime).refine(probs, photo)
    for runtime in ('openvino', 'jax')
  ]
  assert found[0].shape == (500, 700)
  assert np.abs(found[0] - refinement.enlarge(probs, photo.size)).mean() > 0.01
  np.testing.assert_allclose(found[0], found[1], atol=2e-2)
  assert np.abs(found[0] - found[1]).mean() < 1e-5


@pytest.mark.parametrize(
  'size', [(1, 1), (5, 3), (96, 64), (513, 37), (1500, 1001)]
)
def test_what_is_sure_stays(unsteady, size):
  truth = _disc((48, 48))
  photo = helpers.make_photo(size)
  alpha = _load(unsteady).refine(truth, photo)
  assert alpha.shape == size[::-1]
  assert alpha.dtype == np.float32
  assert 0 <= alpha.min() <= alpha.max() <= 1
  if min(size) < 64:
    return
  coarse = refinement.enlarge(truth, photo.size)
  changed = alpha != coarse
  assert changed.any()
  # Within the reach of the edge; the photo is up to 32 times the network's.
  pixels = np.argwhere(changed) / np.array(alpha.shape) - 0.5
  from_edge = np.abs(np.hypot(*pixels.T) - 1 / 3)
  assert from_edge.max() < 9 / 48
  sure = _load(unsteady).refine(np.zeros((48, 48), np.float32), photo)
  assert not sure.any()


def test_the_remover_uses_it(unsteady, tmp_path):
  path = tmp_path / 'net.safetensors'
  colour_network.save_release(path, (2, 1))
  photo = colour_network.draw()
  plain = BackgroundRemover.from_checkpoint(path)
  refined = plain.with_refinement(
    refinement.Refinement(method='learned', refiner=unsteady)
  )
  probs = plain.predict(plain.resize([photo]))[0]
  expected = refined._refiner.refine(probs, photo)
  np.testing.assert_array_equal(refined.alpha(photo), expected)
  assert np.abs(expected - plain.alpha(photo)).max() > 0.1


def test_without_a_network_it_says_so():
  chosen = refinement.Refinement(method='learned')
  with pytest.raises(ValueError, match='needs a refiner'):
    chosen.apply(_disc((8, 8)), helpers.make_photo((20, 20)))


def test_a_refiner_that_is_trained_anew_is_loaded_anew(tmp_path):
  path = tmp_path / 'own.safetensors'
  photo = helpers.make_photo((120, 90))
  found = []
  for seed in (0, 1):
    save_refiner(path, scale=0.3, seed=seed)
    found.append(_load(str(path)).refine(_disc((48, 48)), photo))
  assert np.abs(found[0] - found[1]).max() > 0.1


def test_a_release_names_no_folders():
  data = {'dir': '/me/alphas', 'backgrounds': '/me/b', 'coarse': ['/me/a.h5']}
  made = preprocessing.make_preprocessing('efficientnet', size=(96, 96))
  described = load.LoadedModel(
    network=refiner.Refiner(),
    variables={},
    preprocessing=made,
    description={'config': {'data': data}},
  ).describe()
  assert described['config']['data'] == {
    'dir': '',
    'backgrounds': '',
    'coarse': ['a.h5'],
  }


def test_it_is_exported_as_a_release(unsteady, tmp_path):
  loaded = load.load_model(unsteady)
  export.save_export(tmp_path / 'own.safetensors', loaded, dtype='float32')
  assert _load(str(tmp_path / 'own.safetensors'))
  with pytest.raises(errors.UserError, match='Export it as .safetensors'):
    export.save_export(tmp_path / 'own.onnx', loaded)


def test_networks_are_not_taken_for_each_other(unsteady, tmp_path):
  path = tmp_path / 'net.safetensors'
  colour_network.save_release(path, (2, 1))
  with pytest.raises(errors.UserError, match='pass it as --refiner'):
    BackgroundRemover.from_checkpoint(unsteady)
  options = refinement.Refinement(method='learned', refiner=str(path))
  with pytest.raises(errors.UserError, match=r'net.safetensors: this network'):
    BackgroundRemover.from_checkpoint(path, refinement=options)


def test_the_released_one_is_small_and_sharpens():
  truth = _disc((600, 450))
  pixels = np.where(truth[..., None] > 0, (200, 60, 50), (60, 90, 160))
  photo = Image.fromarray(pixels.astype(np.uint8))
  probs = np.asarray(
    Image.fromarray(truth).resize((48, 36), Image.Resampling.BOX)
  )
  found = learned.load_refiner(
    release.REFINER, runtime='openvino', precision='float32', threads=0
  ).refine(probs, photo)
  before = refinement.enlarge(probs, photo.size)
  assert np.abs(found - truth).mean() < 0.5 * np.abs(before - truth).mean()
  stored = release.read_release(release.find_released(release.REFINER))
  leaves = layers.flatten(stored.variables).values()
  assert sum(leaf.size for leaf in leaves) <= 100_000


def test_windows_of_any_number(unsteady):
  loaded = _load(unsteady)
  rng = np.random.default_rng(0)
  colours = rng.integers(0, 256, (11, 96, 96, 3)).astype(np.uint8)
  units = rng.uniform(-1, 1, (11, 96, 96)).astype(np.float32)
  all_of_them = loaded._compute(colours, units)
  one_by_one = [
    loaded._compute(colours[i : i + 1], units[i : i + 1])[0] for i in range(11)
  ]
  np.testing.assert_allclose(all_of_them, np.stack(one_by_one), atol=1e-5)
