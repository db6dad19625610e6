"""The weights that come with the project, and what is said of them."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from configs import lite, small
from data_pipelines.io import errors
from rmbg_jax import BackgroundRemover, export, load_model
from rmbg_jax.training import setup
from rmbg_jax.weights import load, release
from tests.support import helpers

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = {'small': small, 'lite': lite}


def test_there_is_a_default():
  assert release.find_released('released').stem == release.RELEASED[0]
  assert set(CONFIGS) == set(release.RELEASED)
  sizes = [release.find_released(n).stat().st_size for n in release.RELEASED]
  assert sum(sizes) < 40e6


@pytest.mark.parametrize('name', release.RELEASED)
def test_the_file_says_what_the_model_card_says(name):
  description = load_model(name).description
  card = (ROOT / 'docs' / 'model_card.md').read_text()
  _, _, card = card.partition(f'\n## `{name}`\n')
  own, _, _ = card.partition('\n## ')
  for source, score in description['scores'].items():
    mae, iou = (f'{score[key]:.3f}'.lstrip('0') for key in ('mae', 'iou'))
    assert f'| {source} | {score["images"]} | {mae} | {iou} |' in own
  assert f'{description["image_passes"]:,} image passes' in own
  for source in description['training_data']:
    assert f'\n| {source} ' in card
  assert 'for research' in description['terms']
  assert f'--config=configs/{name}.py:device' in description['training_command']
  # Nothing of the machine that they were trained on.
  assert '/tmp' not in str(description)


@pytest.mark.parametrize('name', release.RELEASED)
def test_they_fit_their_configuration(name):
  config = CONFIGS[name].get_config('device')
  _, model = setup.create_model(config)
  loaded = load_model(name)
  assert loaded.preprocessing.size == tuple(config.data.size)
  load.load_variables(name, model)


def test_the_default_is_both_together(rng):
  small, lite = map(load_model, ('small', 'lite'))
  height, width = small.preprocessing.size
  large = height * 4 // 3, width * 4 // 3
  photo = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8))
  options = {'precision': 'float32', 'temperature': 1.0}
  default = BackgroundRemover.from_checkpoint('released', **options)
  seen = default.resize([photo])
  assert seen.shape == (1, *large, 3)
  # Each alone, on what it gets: lite's photo is made of the largest one.
  twice = BackgroundRemover(small, scales=(1.0, 4 / 3), flip=True, **options)
  first = jax.scipy.special.logit(twice.predict(seen))
  reduced = jax.image.resize(
    seen.astype(np.float32), (1, *lite.preprocessing.size, 3), 'bilinear'
  )
  logits = jax.jit(lite.model.apply)(
    lite.variables, lite.preprocessing.normalize(reduced)
  )[-1][..., 0]
  third = jax.image.resize(jnp.clip(logits, -6.9, 6.9), (1, *large), 'bilinear')
  expected = jax.nn.sigmoid((2 * first + third) / 3)
  np.testing.assert_allclose(default.predict(seen), expected, atol=2e-3)


def test_what_is_asked_for_is_asked_of_both():
  height, width = load_model('small').preprocessing.size
  for options in ({'scales': (1.0,)}, {'flip': True}):
    remover = BackgroundRemover.from_checkpoint('released', **options)
    seen = remover.resize([Image.new('RGB', (9, 9))])
    assert seen.shape == (1, height, width, 3)
  for name in release.RELEASED:  # By its own name, each looks once, alone.
    loaded = load_model(name)
    assert not loaded.partners
    seen = BackgroundRemover(loaded).resize([Image.new('RGB', (9, 9))])
    assert seen.shape == (1, *loaded.preprocessing.size, 3)


def test_of_two_networks_alike_a_training_takes_the_first(tmp_path):
  loaded = load_model('small')
  zeros = jax.tree.map(np.zeros_like, loaded.variables)
  partner = dataclasses.replace(loaded, variables=zeros)
  path = tmp_path / 'two.safetensors'
  export.save_export(path, dataclasses.replace(loaded, partners=(partner,)))
  found = load.load_variables(path, loaded.model)
  assert all(map(np.any, jax.tree.leaves(found['params'])))


@pytest.mark.parametrize('name', release.RELEASED)
def test_they_cut_out_what_stands_before_a_background(name, rng):
  """A disc of another colour, anywhere: random weights would not find it."""
  remover = BackgroundRemover.from_checkpoint(name)
  y, x = np.mgrid[:200, :240]
  for _ in range(3):
    center = rng.uniform(80, 120, 2)
    inside = (y - center[0]) ** 2 + (x - center[1]) ** 2 < 60**2
    photo = np.where(
      inside[..., None], rng.integers(150, 250, 3), rng.integers(0, 90, 3)
    )
    noise = rng.normal(0, 4, photo.shape)
    photo = np.clip(photo + noise, 0, 255).astype(np.uint8)
    alpha = remover.alpha(Image.fromarray(photo))
    found = alpha > 0.5
    assert (found & inside).sum() / (found | inside).sum() > 0.9


@pytest.mark.parametrize('header', ['no json', '[]', '{"preprocessing": '])
def test_a_header_that_is_damaged_is_named(header, tmp_path):
  path = tmp_path / 'damaged.safetensors'
  metadata = {release.DESCRIPTION: header}
  path.write_bytes(
    safetensors.numpy.save({'a': np.zeros(1)}, metadata=metadata)
  )
  with pytest.raises(
    ValueError, match=r'damaged\.safetensors: the descr.* Get'
  ):
    release.read_release(path)


@pytest.mark.parametrize(
  ('path', 'value', 'message'),
  [
    ('architecture', 'unet', 'does not state architecture'),
    ('architecture.encoder.name', 7, 'encoder_name=7 is not of the kind'),
    ('architecture.bridge.rates', [], r'bridge_rates=\(\) is not of the kind'),
    ('architecture.bridge.filters', '8', "bridge_filters='8' is not of"),
    ('preprocessing', [], 'does not state preprocessing'),
    ('prediction', 'fast', 'prediction: "fast" is no object'),
    ('preprocessing.size', [32], r'size=\[32\]; it must be \[height'),
    ('preprocessing.std', [0, 1, 1], r'std=\[0, 1, 1\]; it must be three'),
    ('preprocessing.depth', 8, 'depth is not known'),
    ('prediction', {'temperature': 0}, 'temperature=0; it must be a number'),
    ('prediction', {'scales': [99]}, r'scales=\[99\]; it must be a list'),
    ('prediction', {'looks': 3}, 'looks is not known'),
    ('partners', 5, 'does not state architecture'),
    ('partners', [5], 'does not state architecture'),
  ],
)
def test_a_description_that_cannot_be_is_named(path, value, message, tmp_path):
  file = tmp_path / 'net.safetensors'
  helpers.save_random_release(file)
  stored = load_model(file)
  description = group = json.loads(
    json.dumps({**stored.description, 'partners': []})
  )
  *groups, key = path.split('.')
  for name in groups:
    group = group[name]
  group[key] = value
  release.save_release(file, stored.variables, description)
  with pytest.raises(errors.UserError, match=rf'net\.safetensors: .*{message}'):
    load_model(file)


def test_a_weight_beyond_float16_is_named_and_kept_in_float32(tmp_path):
  path = tmp_path / 'net.safetensors'
  helpers.save_random_release(path)
  loaded = load_model(path)
  loaded.variables['params']['bridge']['conv_out']['bias'][0] = 1e5
  other = tmp_path / 'other.safetensors'
  message = (
    r'other\.safetensors: params/bridge/conv_out/bias .* 100000.*float32'
  )
  with pytest.raises(errors.UserError, match=message):
    export.save_export(other, loaded)
  assert not other.exists()
  export.save_export(other, loaded, dtype='float32')
  again = load_model(other).variables['params']['bridge']['conv_out']['bias']
  assert again[0] == 1e5
