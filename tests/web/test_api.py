"""The HTTP calls: what is asked for, what is refused, and hostile requests."""

import base64
import io
import json
import threading
import time
import zipfile
from concurrent import futures

import numpy as np
import pytest
from PIL import Image
from starlette import testclient

from data_pipelines.io import images
from rmbg_jax.inference import photos as photos_lib
from rmbg_jax.inference import refinement, rendering
from rmbg_jax.web import api as api_lib
from rmbg_jax.web import guard
from rmbg_jax.web import options as options_lib
from rmbg_jax.web import service as service_lib
from tests.support import colour_network

BOX = (40, 30, 100, 70)  # Of the drawn photo's subject.
REMOVE, REMOVE_BG = '/api/remove', '/v1.0/removebg'


class _Remover:
  """Takes red for foreground."""

  batch_size = 1
  runtime = 'stub'

  def __init__(self, refined=None):
    self._refinement = refined or refinement.Refinement()

  def with_refinement(self, refined):
    return _Remover(refined)

  def resize(self, photos):
    return np.stack(
      [np.asarray(images.resize_image(p, size=(100, 150))) for p in photos]
    )

  def predict(self, batch):
    return (batch[..., 0] > batch[..., 2]).astype(np.float32)

  def refine(self, probs, photo):
    return photo.hide_transparent(self._refinement.apply(probs, photo.seen))


@pytest.fixture
def service(tmp_path, monkeypatch):
  def load(self, checkpoint):
    if checkpoint not in self.checkpoints:
      raise service_lib.errors.UserError(f'checkpoint={checkpoint}: choose')
    return _Remover()

  monkeypatch.setattr(service_lib.Service, '_load_remover', load)
  service = service_lib.Service(
    ['first', 'second'],
    limits=options_lib.Limits(pixels=1_000_000, megabytes=1),
    folder=tmp_path / 'results',
  )
  yield service
  assert not list((tmp_path / 'results').glob('*'))


@pytest.fixture
def client(service, tmp_path):
  """Of the calls, within the page's limits and behind its guard."""
  api = api_lib.make_api(service, queue=40)
  guarded = guard.Guard(
    api,
    keys=(),
    find_most=lambda _: service.limits.call_bytes,
    folder=tmp_path / 'bodies',
  )
  with testclient.TestClient(guarded) as client:  # One event loop.
    yield client


def _encode(image, form='png'):
  file = io.BytesIO()
  image.save(file, form)
  return file.getvalue()


PHOTO = _encode(colour_network.draw())


def _ask(client, route=REMOVE, photo=PHOTO, **options):
  name = 'file' if route == REMOVE else 'image_file'
  return client.post(route, files={name: ('a.png', photo)}, data=options)


def _open(answer):
  assert answer.status_code == 200, answer.text
  return Image.open(io.BytesIO(answer.content))


def _read_error(answer, status):
  assert answer.status_code == status, answer.text
  (error,) = answer.json()['errors']
  return f'{error["code"]}: {error["title"]} {error.get("detail", "")}'


def test_a_call_gives_what_the_style_renders(client):
  photo = photos_lib.read_photo(PHOTO)
  remover = _Remover()
  alpha = remover.refine(
    remover.predict(remover.resize([photo.seen]))[0], photo
  )
  for options, style, kind in (
    ({}, {}, 'cutout'),
    ({'kind': 'mask', 'format': 'webp'}, {'format': 'webp'}, 'mask'),
    ({'background': '#00ff7f'}, {'background': '#00ff7f'}, 'composite'),
    ({'kind': 'overlay', 'format': 'jpg'}, {'format': 'jpeg'}, 'overlay'),
    ({'kind': 'trimap', 'trimap_width': '3'}, {'trimap_width': 3}, 'trimap'),
  ):
    answer = _ask(client, **options)
    expected = rendering.Style(**style).render(photo, alpha, (kind,))[kind]
    assert answer.content == expected, options
    assert answer.headers['content-type'] == (
      f'image/{Image.open(io.BytesIO(expected)).format.lower()}'
    )


def test_options_come_as_json_too(client):
  body = {'file': base64.b64encode(PHOTO).decode(), 'kind': 'mask'}
  alone = client.post(REMOVE, json=body)
  beside = _ask(client, options='{"kind": "mask"}')
  assert alone.content == beside.content == _ask(client, kind='mask').content
  answer = client.post(
    REMOVE,
    json={**body, 'checkpoint': 'second', 'refine': 'guided'},
    headers={'Accept': 'application/json'},
  ).json()['data']
  assert base64.b64decode(answer['result_b64'])[:4] == b'\x89PNG'
  assert (answer['photo_width'], answer['photo_height']) == (150, 100)


def test_a_picture_as_the_background(client):
  answer = client.post(
    REMOVE,
    files={
      'file': ('a.png', PHOTO),
      'background_file': ('b.png', _encode(Image.new('RGB', (9, 9), 'lime'))),
    },
  )
  composite = _open(answer)
  assert composite.getpixel((0, 0)) == (0, 255, 0)
  assert composite.getpixel((70, 50)) == (220, 20, 30)
  # Refused without a word of the server's folders.
  files = {'file': ('a.png', PHOTO), 'background_file': ('b.png', PHOTO)}
  answer = client.post(REMOVE, files=files, data={'kind': 'mask'})
  assert 'kind=mask: background or background_file' in _read_error(answer, 400)
  # Not chosen in a form.
  answer = client.post(
    REMOVE, files={'file': ('a.png', PHOTO)}, data={'background_file': ''}
  )
  assert _open(answer).mode == 'RGBA'


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'kind': 'gif'}, 'kind=gif: Input should be'),
    ({'quality': '101'}, 'quality=101'),
    ({'background': '/etc/passwd'}, 'background=/etc/passwd: unknown color'),
    ({'background': 'x' * 100_000}, 'background=xxx'),
    ({'checkpoint': 'third'}, 'checkpoint=third: choose'),
    ({'kidn': 'mask'}, 'kidn: no such parameter. Choose from kind'),
    ({'format': 'jpg'}, 'JPEG has no transparency.* background'),
    ({'options': '[' * 100_000}, 'invalid_json'),
    ({'options': '[]'}, 'Send a JSON object'),
    ({'kind': 'trimap', 'background': 'red'}, 'kind=trimap: background or'),
    ({'kind': 'composite'}, 'kind=composite: background or background_file'),
    (
      {'kind': 'foreground', 'estimate_foreground': 'false'},
      'kind=foreground is what estimate_foreground=false leaves out',
    ),
  ],
)
def test_what_is_wrong_is_named(client, options, message):
  import re

  error = _read_error(_ask(client, **options), 400)
  assert re.search(message, error), error
  assert len(error) < 400 and '--' not in error


def test_photos_that_cannot_be_used(client):
  broken = _read_error(_ask(client, photo=b'no picture'), 400)
  assert 'a.png: cannot be read as an image' in broken
  assert 'The given bytes' not in broken
  wide = _encode(Image.new('L', (1001, 1000)))
  assert 'resolution_too_high' in _read_error(_ask(client, photo=wide), 400)
  heavy = _ask(client, photo=bytes(1_000_001))
  assert 'limit of 1 MB' in _read_error(heavy, 413)
  for body in ({}, {'file': None}, {'file': ''}):
    error = _read_error(client.post(REMOVE, json=body), 400)
    assert 'There is no photo' in error
  for value in (5, [], 'no base64!'):
    error = _read_error(client.post(REMOVE, json={'file': value}), 400)
    assert 'neither a file nor base64' in error


def test_trouble_of_the_server_has_a_reason(service, client, monkeypatch):
  def fail(*_, **__):
    raise OSError('encoder error')  # As Pillow does, without a number.

  monkeypatch.setattr(service, 'find_alpha', fail)
  answer = _ask(client)
  assert 'now: OSError' in _read_error(answer, 503)
  assert int(answer.headers['Retry-After']) > 0


def test_hostile_bodies(client):
  multipart = {'Content-Type': 'multipart/form-data; boundary=x'}
  for content, headers, status in (
    (b'x', {'Content-Type': 'text/plain'}, 415),
    (b'--y\r\nnonsense', multipart, 400),
    (b'', {'Content-Type': 'multipart/form-data'}, 400),
    (b'{', {'Content-Type': 'application/json'}, 400),
    (bytes(4_000_000), {'Content-Type': 'application/json'}, 413),
    (iter([bytes(1_000_000)] * 4), multipart, 413),
  ):
    answer = client.post(REMOVE, content=content, headers=headers)
    _read_error(answer, status)
  many = {f'field{k}': ('a', b'x') for k in range(60)}
  _read_error(client.post(REMOVE, files=many), 400)
  # A file where a text should be, and a text where a file.
  wrong = {'file': ('a.png', PHOTO), 'kind': ('b', b'mask')}
  assert 'kind=UploadFile' in _read_error(client.post(REMOVE, files=wrong), 400)
  _read_error(client.post(REMOVE, data={'file': 'text!'}), 400)
  _read_error(client.get(REMOVE), 405)
  assert _ask(client).status_code == 200


def test_many_at_once_lose_nothing(client):
  def ask(index):
    photo = _encode(colour_network.draw(box=(index, 0, index + 40, 100)))
    return index, _open(_ask(client, photo=photo, kind='mask'))

  with futures.ThreadPoolExecutor(32) as pool:
    for index, mask in pool.map(ask, range(32)):
      columns = np.flatnonzero(np.asarray(mask)[50] > 127)
      assert (columns[0], columns[-1]) == (index, index + 39)


def test_too_many_are_told_to_wait(service, monkeypatch):
  go = threading.Event()
  find_alpha = service.find_alpha

  def wait(*args, **options):
    assert go.wait(60)
    return find_alpha(*args, **options)

  monkeypatch.setattr(service, 'find_alpha', wait)
  client = testclient.TestClient(api_lib.make_api(service, queue=3))
  with client, futures.ThreadPoolExecutor(12) as pool:
    asked = [pool.submit(_ask, client) for _ in range(10)]
    done, _ = futures.wait(asked, return_when=futures.FIRST_COMPLETED)
    refused = next(iter(done)).result()
    assert 'rate_limit_exceeded' in _read_error(refused, 429)
    assert int(refused.headers['Retry-After']) > 0
    end = time.monotonic() + 60
    while sum(one.done() for one in asked) < 5:
      assert time.monotonic() < end
      time.sleep(0.01)
    go.set()
    statuses = sorted(one.result().status_code for one in asked)
  assert statuses == [200] * 5 + [429] * 5


def test_the_description_names_all(client):
  described = client.get('/openapi.json').json()
  assert set(described['paths']) == {*(REMOVE, REMOVE_BG, '/healthz')}
  for route, model in (
    (REMOVE, api_lib.Options),
    (REMOVE_BG, api_lib.removebg.Options),
  ):
    body = described['paths'][route]['post']['requestBody']['content']
    for kind in ('multipart/form-data', 'application/json'):
      properties = set(body[kind]['schema']['properties'])
      assert set(model.model_fields) < properties


def test_remove_bg_s_parameters(client):
  def ask(**options):
    return _ask(client, REMOVE_BG, **options)

  plain = ask(size='full')
  assert _open(plain).mode == 'RGBA' and _open(plain).size == (150, 100)
  headers = {
    'X-Type': 'other',
    'X-Width': '150',
    'X-Height': '100',
    'X-Foreground-Top': '30',
    'X-Foreground-Left': '40',
    'X-Foreground-Width': '60',
    'X-Foreground-Height': '40',
  }
  for name, value in headers.items():
    assert plain.headers[name] == value
  assert _open(ask(channels='alpha')).mode == 'L'
  assert _open(ask(format='webp')).format == 'WEBP'
  assert _open(ask(bg_color='81d4fa')).format == 'JPEG'
  white = _open(ask(format='jpg')).getpixel((0, 0))
  assert min(white) > 250
  coloured = _open(ask(bg_color='#00ff0080', format='png'))
  assert coloured.getpixel((0, 0)) == (0, 255, 0, 128)
  with zipfile.ZipFile(io.BytesIO(ask(format='zip').content)) as archive:
    assert sorted(archive.namelist()) == ['alpha.png', 'color.jpg']

  assert _open(ask(crop='true')).size == (60, 40)
  margin = ask(crop='true', crop_margin='10% 5px')
  assert _open(margin).size == (70, 48)
  assert margin.headers['X-Foreground-Left'] == '5'
  scaled = ask(scale='50%')
  # Its width of 60 is the tighter side: 100 / 40 = 2.5 = 150 / 60.
  box = _open(scaled).getchannel('A').point(lambda a: a > 127 and 255).getbbox()
  assert box == (38, 25, 113, 75) and _open(scaled).size == (150, 100)
  moved = _open(ask(position='0% 100%')).getchannel('A')
  assert moved.point(lambda a: a > 127 and 255).getbbox() == (0, 60, 60, 100)
  part = _open(ask(roi='0px 0px 70px 100%')).getchannel('A')
  assert part.point(lambda a: a > 127 and 255).getbbox() == (40, 30, 70, 70)


def test_remove_bg_s_sizes_files_and_json(client):
  large = _encode(colour_network.draw((900, 600), box=(240, 180, 600, 420)))
  preview = _open(_ask(client, REMOVE_BG, photo=large))
  assert 240_000 < preview.width * preview.height <= 250_000
  assert _open(_ask(client, REMOVE_BG, photo=large, size='auto')).width == 900
  picture = _encode(Image.new('RGB', (9, 9), 'lime'))
  answer = client.post(
    REMOVE_BG,
    data={'image_file_b64': base64.b64encode(PHOTO).decode(), 'format': 'png'},
    files={'bg_image_file': ('b.png', picture)},
  )
  assert _open(answer).getpixel((0, 0)) == (0, 255, 0, 255)
  answer = client.post(
    REMOVE_BG,
    json={'image_file_b64': base64.b64encode(PHOTO).decode(), 'crop': True},
    headers={'Accept': 'application/json'},
  ).json()['data']
  cutout = Image.open(io.BytesIO(base64.b64decode(answer['result_b64'])))
  assert cutout.size == (60, 40)
  assert (answer['foreground_width'], answer['foreground_top']) == (60, 0)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'size': 'huge'}, 'size=huge'),
    ({'image_url': 'http://x/y.jpg'}, 'fetches no addresses'),
    ({'bg_image_url': 'http://x/y.jpg'}, 'fetches no addresses'),
    ({'bg_color': '/etc/passwd'}, 'bg_color=/etc/passwd'),
    ({'roi': '0 0 0 0'}, 'nothing in it'),
    ({'roi': '5 5'}, 'roi=5 5'),
    ({'scale': '5%'}, 'pass 10% to 100%'),
    ({'position': '200%'}, 'pass 0% to 100%'),
    ({'crop_margin': '-5px'}, 'crop_margin=-5px'),
    ({'crop_margin': '9' * 1_000_000}, 'crop_margin=999'),
    ({'add_shadow': 'true'}, 'draws no shadows'),
    ({'image_file_b64': 'eA=='}, 'multiple_sources'),
  ],
)
def test_what_remove_bg_s_interface_refuses(client, options, message):
  error = _read_error(_ask(client, REMOVE_BG, **options), 400)
  assert message in error and len(error) < 300


@pytest.mark.parametrize(
  ('form', 'longest'),
  [('jpg', '65,500'), ('zip', '65,500'), ('webp', '16,383')],
)
def test_what_is_too_long_for_a_format(client, form, longest):
  wide = _encode(colour_network.draw((65_501, 10), box=(0, 0, 65_501, 10)))
  answer = _ask(client, REMOVE_BG, photo=wide, size='auto', format=form)
  assert f'more than the {longest} a side' in _read_error(answer, 400)


def test_no_photo_and_no_foreground(client):
  answer = client.post(REMOVE_BG, data={'size': 'auto'})
  assert 'missing_source' in _read_error(answer, 400)
  blue = _encode(Image.new('RGB', (50, 50), 'blue'))
  answer = _ask(client, REMOVE_BG, photo=blue)
  assert 'unknown_foreground' in _read_error(answer, 400)


def test_json_errors_are_for_programs(client):
  answer = _ask(client, REMOVE_BG, size='huge')
  assert set(json.loads(answer.text)) == {'errors'}
