"""What is said of the checkpoints that there are by name."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from rmbg_jax import export, list_checkpoints, load_model
from rmbg_jax.models import preprocessing
from rmbg_jax.weights import (
  cache,
  catalogue,
  hub,
  load,
  release,
)
from tests.support import colour_network, commands

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def found(monkeypatch, tmp_path):
  """All of them by name; nothing is in a cache."""
  monkeypatch.setattr(cache, 'cache_dir', lambda: tmp_path)
  monkeypatch.setattr(hub, 'list_cached', lambda: iter(()))
  return {one.name: one for one in list_checkpoints()}


def test_all_names_and_where_they_come_from(found):
  assert list(found) == [*release.RELEASED, *load.DOWNLOADED]
  assert {found[name].origin for name in release.RELEASED} == {'shipped'}
  for name in load.DOWNLOADED:
    assert found[name].origin == 'downloadable'
    assert found[name].location.startswith('https://')


@pytest.mark.parametrize('name', release.RELEASED)
def test_it_is_what_the_file_and_the_model_card_say(found, name):
  one, path = found[name], release.find_released(name)
  description = load_model(name).description
  assert one.size == path.stat().st_size
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  assert one.checksum == f'sha256:{digest}'
  assert one.terms == description['terms']
  assert list(one.training_data) == description['training_data']
  assert one.scores['val']['iou'] == description['scores']['all']['iou']
  rows = {
    line.split('|')[1].strip().removesuffix(' (p)'): line
    for line in (ROOT / 'docs/model_card.md').read_text().splitlines()
    if line.startswith('| ') and line.count('|') == 4
  }
  for source, terms in one.training_data.items():
    assert terms == 'none stated' or terms in rows[source], source
    for stated in ('CC ', 'MIT', 'Apache', 'non-commercial', 'Public'):
      assert (stated in rows[source]) == (stated in terms), source


def test_the_published_ones_are_what_the_documentation_says(found):
  text = (ROOT / 'docs/u2net.md').read_text()
  for name in ('u2net', 'u2netp', 'u2net_human_seg'):
    one = found[name]
    megabytes = f'{one.size / 1e6:.1f}'.removesuffix('.0')
    row = f'| `{name}` | {one.parameters:,} | {megabytes} MB |'
    assert row in text
  card = (ROOT / 'docs/model_card.md').read_text()
  for value in found['u2netp'].scores['val'].values():
    assert f'| {value:.3f} |'.replace('0.', '.') in card


def test_what_is_downloaded_is_in_the_cache(found, tmp_path):
  (tmp_path / 'u2netp.onnx').touch()
  again = {one.name: one for one in list_checkpoints()}
  assert again['u2netp'].origin == 'cached'
  assert again['u2netp'].location == str(tmp_path / 'u2netp.onnx')


def test_releases_of_others_in_the_cache_of_the_hub(
  found, monkeypatch, tmp_path
):
  mine, other = tmp_path / 'a.safetensors', tmp_path / 'b.safetensors'
  colour_network.save_release(mine, (2, 1))
  other.write_bytes(b'of another project')
  cached = [
    (hub.Address('me/net', 'c0', path.name), path) for path in (mine, other)
  ]
  monkeypatch.setattr(hub, 'list_cached', lambda: iter(cached))
  one = list_checkpoints()[-1]
  assert one.name == 'hf://me/net@c0/a.safetensors'
  assert (one.origin, one.location) == ('cached', str(mine))
  assert one.terms.startswith('not stated')
  text = catalogue.format_checkpoint(one)
  assert 'not measured' in text
  json.dumps(one.scores)


def test_an_architecture_that_leaves_out_defaults(found, monkeypatch, tmp_path):
  """As of a Keras file, which has one encoder alone."""
  path = tmp_path / 'a.safetensors'
  architecture = {'name': 'unet', 'decoder': {'filters': [2, 2, 2, 2]}}
  made = preprocessing.make_preprocessing('keras', size=(32, 32))
  description = {
    'architecture': architecture,
    'preprocessing': made.to_dict(),
  }
  release.save_release(path, {'params': {'a': np.zeros(3)}}, description)
  cached = [(hub.Address('me/net', 'c0', path.name), path)]
  monkeypatch.setattr(hub, 'list_cached', lambda: iter(cached))
  one = list_checkpoints()[-1]
  assert one.parameters == 3
  assert one.architecture == (
    'U-Net, encoder resnet50, bridge 1024, decoder 2-2-2-2'
  )


def test_a_release_of_two_networks_counts_both(found, monkeypatch, tmp_path):
  path = tmp_path / 'both.safetensors'
  export.save_export(path, load_model('released'))
  monkeypatch.setattr(
    hub, 'list_cached', lambda: [(hub.Address('me/net', 'c0', 'a'), path)]
  )
  one = list_checkpoints()[-1]
  assert one.parameters == sum(
    found[name].parameters for name in release.RELEASED
  )
  assert 'efficientnet_lite0' in one.architecture
  assert ' and U-Net, encoder resnet50' in one.architecture
  assert one.scores['val'] == {'iou': 0.864, 'mae': 0.042}


def test_the_text_has_all(found):
  text = catalogue.format_checkpoint(found['small'])
  assert text.startswith('small (the default, released, is small and lite ')
  for part in ('7.8 MB', 'sha256:', '288x288', 'CC BY-NC', 'IoU 0.849'):
    assert part in text


def test_the_table_is_that_of_the_documentation(found):
  table = catalogue.format_table(list(found.values()))
  assert table in (ROOT / 'README.md').read_text()
  assert '| `bria-rmbg` | 1024 MB | 1024x1024 | not tried |' in table


def test_the_page_names_no_folders(found):
  text = catalogue.format_page(list(found.values()))
  assert str(ROOT) not in text
  for one in found.values():
    assert f'**{one.name}** ({one.origin})' in text
    assert one.checksum in text


def test_the_command_prints_all():
  result = commands.run('-m', 'rmbg_jax.predict', '--list_checkpoints')
  assert result.returncode == 0, result.stderr
  for name in (*release.RELEASED, *load.DOWNLOADED):
    assert f'\n{name}' in f'\n{result.stdout}'
