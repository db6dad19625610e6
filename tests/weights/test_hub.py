"""Checkpoints on the hub, for which a server of the test's own stands."""

import json
import os
import re
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants

from data_pipelines.io import errors
from rmbg_jax import list_checkpoints, load_model
from rmbg_jax.export import model_card
from rmbg_jax.weights import checkpoints, hub, load, onnx_published
from tests.support import colour_network, commands, hub_server

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server(tmp_path, monkeypatch):
  """The hub, with a network in me/net, and an empty cache."""
  path = tmp_path / 'net.safetensors'
  colour_network.save_release(path, (2, 1))
  server = hub_server.Hub()
  # It reads the cache's folder when it is imported, as other tests may do.
  assert huggingface_hub.scan_cache_dir
  content = path.read_bytes()
  server.files['me/net'] = {
    'model.safetensors': content,
    'nets/other.safetensors': content,
    'model.pth': b'a pickle',
  }
  monkeypatch.setattr(constants, 'ENDPOINT', server.endpoint)
  template = f'{server.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}'
  monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', template)
  monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setattr(constants, 'HF_HUB_DISABLE_XET', True)
  huggingface_hub.close_session()
  yield server
  server.close()
  huggingface_hub.close_session()


@pytest.mark.parametrize(
  ('text', 'parts'),
  [
    ('hf://me/net', ('me/net', None, 'model.safetensors')),
    ('hf://me/net@v1', ('me/net', 'v1', 'model.safetensors')),
    ('hf://me/net/a/b.h5', ('me/net', None, 'a/b.h5')),
    ('hf://me/net@refs%2Fpr%2F1/x.onnx', ('me/net', 'refs/pr/1', 'x.onnx')),
  ],
)
def test_addresses(text, parts):
  address = hub.parse_address(text)
  assert address == parts
  assert hub.parse_address(str(address)) == address


@pytest.mark.parametrize('text', ['hf://', 'hf://net', 'hf:///net', 'hf://a/'])
def test_what_is_no_address_is_refused(text):
  with pytest.raises(errors.UserError, match='Pass hf://OWNER/NAME'):
    load.check_exists(text)


def test_loads_once_and_then_without_a_network(server, monkeypatch):
  for text in (
    'hf://me/net',
    'hf://me/net@refs%2Fpr%2F1/nets/other.safetensors',
  ):
    loaded = load_model(text)
    assert loaded.description['architecture']['name']
  load_model('hf://me/net')
  assert len(server.downloads) == 1  # The content is the same.
  listed = {one.name: one for one in list_checkpoints()}
  cached = f'hf://me/net@{hub_server.COMMIT}/model.safetensors'
  assert listed[cached].origin == 'cached'
  server.close()
  load_model('hf://me/net')
  load_model(cached)  # As it is listed.
  monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
  load_model('hf://me/net')
  with pytest.raises(errors.MissingFileError, match='no copy is in its cache'):
    load_model('hf://me/net/absent.safetensors')


@pytest.mark.parametrize(
  ('text', 'reason'),
  [
    ('hf://me/absent', 'no such repository'),
    ('hf://me/net@v2', 'no such revision'),
    ('hf://me/net/absent.safetensors', 'no absent.safetensors'),
    ('hf://me/net..x', 'Cannot have -- or ..'),
  ],
)
def test_what_is_not_there_is_said_in_a_line(server, text, reason):
  with pytest.raises(errors.MissingFileError, match=reason) as caught:
    load_model(text)
  assert '\n' not in str(caught.value)
  assert str(caught.value).startswith(text)


def test_no_pickle_is_fetched(server):
  with pytest.raises(errors.UserError, match='may run code'):
    load_model('hf://me/net/model.pth')
  assert not server.downloads


def test_other_content_than_stated_is_refused(server):
  server.lying = True
  with pytest.raises(errors.UserError, match='does not have the checksum'):
    load_model('hf://me/net')


def _run(server, tmp_path, *command, token='hf_token'):
  return commands.run(
    *command,
    env={
      **os.environ,
      'HF_ENDPOINT': server.endpoint,
      'HF_HOME': str(tmp_path / 'home'),
      'HF_TOKEN': token,
      'HF_HUB_DISABLE_XET': '1',
    },
  )


def test_push_and_predict(server, tmp_path):
  push = (
    'scripts/push_to_hub.py',
    f'--checkpoint={tmp_path / "net.safetensors"}',
    '--repo=me/new',
    '--license=cc-by-4.0',
  )
  pushed = _run(server, tmp_path, *push)
  assert pushed.returncode == 0, pushed.stderr
  card = huggingface_hub.ModelCard(server.files['me/new']['README.md'].decode())
  assert card.data.license == 'cc-by-4.0'
  assert card.data.pipeline_tag == 'image-segmentation'
  assert 'jax' in card.data.tags
  loaded = load_model('hf://me/new')
  expected = load_model(tmp_path / 'net.safetensors')
  np.testing.assert_equal(loaded.variables, expected.variables)
  again = _run(server, tmp_path, *push)
  assert 'Pass --update' in again.stderr
  assert 'Traceback' not in again.stderr


def test_predict_by_an_address(server, tmp_path):
  predicted = _run(
    server,
    tmp_path,
    '-m',
    'rmbg_jax.predict',
    '--checkpoint=hf://me/net',
    f'--input={ROOT}/docs/images/photos/cat.jpg',
    f'--output={tmp_path / "out"}',
  )
  assert predicted.returncode == 0, predicted.stderr
  assert (tmp_path / 'out/cutout/cat.png').exists()
  assert 'HTTP Request' not in predicted.stderr


def test_without_the_right_to_write(server, tmp_path):
  refused = _run(
    server, tmp_path, 'scripts/push_to_hub.py', '--repo=me/new', token='x'
  )
  assert refused.returncode == 1
  (line,) = refused.stderr.splitlines()[-1:]
  assert line.startswith('Error: --repo=me/new cannot be written to')
  assert 'me/new' not in server.files


def test_a_licence_that_the_hub_does_not_know(server, tmp_path):
  push = ('scripts/push_to_hub.py', '--repo=me/new', '--checkpoint=small')
  refused = _run(server, tmp_path, *push, '--license=MIT')
  assert refused.returncode == 1
  (line,) = refused.stderr.splitlines()[-1:]
  assert line.startswith('Error: --license=MIT: the hub refuses the card')
  assert 'must be one of [apache-2.0, mit]' in line
  pushed = _run(server, tmp_path, *push, '--license=mit', '--update')
  assert pushed.returncode == 0, pushed.stderr


def test_a_folder_is_written_from_an_address_or_not_at_all(server, tmp_path):
  out = tmp_path / 'out'
  push = ('scripts/push_to_hub.py', '--repo=me/new', f'--output={out}')
  failed = _run(server, tmp_path, *push, '--checkpoint=hf://me/none')
  assert 'there is no such repository' in failed.stderr
  written = _run(server, tmp_path, *push, '--checkpoint=hf://me/net')
  assert written.returncode == 0, written.stderr
  names = sorted(path.name for path in out.iterdir())
  assert names == ['README.md', 'model.safetensors']


def test_a_training_is_written_without_a_word_of_its_libraries(
  server, tmp_path
):
  loaded = load_model(tmp_path / 'net.safetensors')
  workdir = tmp_path / 'run'
  with checkpoints.CheckpointStore(workdir, writable=True) as store:
    store.save(
      {'model': loaded.variables},
      step=1,
      metrics={'val_loss': 0.5},
      description=loaded.describe(),
    )
  written = _run(
    server,
    tmp_path,
    'scripts/push_to_hub.py',
    '--repo=me/new',
    f'--checkpoint={workdir}',
    f'--output={tmp_path / "out"}',
  )
  assert written.returncode == 0, written.stderr
  assert 'orbax' not in written.stderr
  assert 'checkpoint' not in written.stderr


def test_calibrate_takes_an_address(server, tmp_path):
  command = ('-m', 'rmbg_jax.calibrate', '--checkpoint=hf://me/net')
  failed = _run(server, tmp_path, *command, f'--data={tmp_path}')
  assert 'not a data set' in failed.stderr  # It is read first.


def test_without_a_home_folder(server, monkeypatch):
  monkeypatch.setattr(constants, 'HF_HUB_CACHE', '~/cache')
  monkeypatch.setattr(os.path, 'expanduser', lambda path: path)
  assert not list(hub.list_cached())
  with pytest.raises(errors.MissingFileError, match='Could not .* HF_HOME'):
    hub.fetch('hf://me/net')


@pytest.mark.parametrize(
  ('name', 'scores', 'encoders'),
  [
    ('small', {'iou': 0.8488, 'mae': 0.0438}, ['efficientnet_lite0']),
    (
      'released',
      {'iou': 0.864, 'mae': 0.042},
      ['efficientnet_lite0', 'resnet50'],
    ),
  ],
)
def test_the_card_of_the_released_weights(name, scores, encoders):
  card = huggingface_hub.ModelCard(
    model_card.make_card(
      load_model(name).describe(), repository='me/new', license_name='other'
    )
  )
  assert card.data.license == 'other'
  values = {r.metric_type: r.metric_value for r in card.data.eval_results}
  assert values == scores
  assert 'for research' in card.content
  assert 'hf://me/new' in card.content
  blocks = re.findall(r'```json\n(.*?)```', card.content, re.S)
  found = [json.loads(block)['encoder']['name'] for block in blocks]
  assert found == encoders


def test_the_card_of_published_weights_says_whose_they_are():
  description = {
    **load_model('small').describe(),
    **onnx_published.describe('u2netp'),
  }
  text = model_card.make_card(
    description, repository='me/new', license_name='apache-2.0'
  )
  assert 'Source: https://github.com/danielgatis/rembg' in text
  assert 'Please cite: Qin et al.' in text
