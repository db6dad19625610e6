"""Who is let in, by every route that exists; bodies; addresses; the flags."""

import asyncio
import base64
import errno
import json
import os
import subprocess
import sys

import httpx
import pytest
from starlette import responses, routing, testclient

from data_pipelines.io import errors
from rmbg_jax import app
from rmbg_jax.web import guard, server
from rmbg_jax.web import options as options_lib
from rmbg_jax.web import service as service_lib
from tests.support import serving

KEY = 'näver-guessed'
BASIC = base64.b64encode(f'any:{KEY}'.encode()).decode()


@pytest.fixture(scope='module')
def make(tmp_path_factory):
  """Makes the whole application, with a service that computes nothing."""
  pytest.importorskip('gradio')

  folder = tmp_path_factory.mktemp('server')
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('GRADIO_TEMP_DIR', str(folder))
    patch.setattr(service_lib.Service, '_load_remover', lambda *_: None)
    service = service_lib.Service(
      ['first'],
      limits=options_lib.Limits(megabytes=1, files=2),
      folder=folder / 'results',
    )

    def make(**options):
      options = {'keys': [b'other', KEY.encode()], **options}
      return server.make_application(
        service, queue=2, folder=folder / 'bodies', **options
      )

    yield make


def _list_routes(router, before=''):
  """Yields (path, methods or None for a websocket) of all routes below."""
  for route in router.routes:
    if isinstance(route, routing.Mount):
      yield f'{before}{route.path}/x', {'GET'}
      yield from _list_routes(route, before + route.path)
    elif isinstance(route, routing.WebSocketRoute):
      yield before + route.path, None
    elif hasattr(route, 'original_router'):  # FastAPI's, of `include_router`.
      yield from _list_routes(route.original_router, before)
    elif hasattr(route, 'path'):
      yield before + route.path, getattr(route, 'methods', None) or {'GET'}


def test_no_route_answers_without_a_key(make):
  guarded = make()
  routes = list(_list_routes(guarded._application))
  paths = {path for path, _ in routes}
  assert {'/api/remove', '/v1.0/removebg', '/gradio_api/upload'} <= paths
  assert len(paths) > 50
  reached = []

  async def reach(scope, receive, send):
    reached.append(scope['path'])

  guarded._application = reach
  client = testclient.TestClient(guarded)
  odd = [('/', {'GET', 'HEAD', 'OPTIONS', 'X'}), ('//healthz', {'GET'})]
  odd += [('/healthz/', {'GET'}), ('/healthz/../config', {'GET'})]
  for path, methods in routes + odd:
    if path == '/healthz':
      continue
    for method in methods or {'GET'}:
      answer = client.request(method, path)
      assert answer.status_code == (403 if path.startswith('/v1.0/') else 401)
      assert answer.headers['WWW-Authenticate'].startswith('Basic ')
    with (
      pytest.raises(testclient.WebSocketDisconnect),
      client.websocket_connect(path),
    ):
      pass
  assert not reached
  for headers in (
    {'X-Api-Key': KEY[:-1].encode()},
    {'X-Api-Key': f'{KEY}x'.encode()},
    {'Authorization': 'Basic !'},
    {'Authorization': f'Bearer {BASIC}'},
  ):
    assert client.get('/config', headers=headers).status_code == 401
  assert not reached


def test_who_has_a_key_is_let_in(make):
  with testclient.TestClient(make()) as client:
    for headers in (
      {'X-Api-Key': KEY.encode()},
      {'Authorization': f'Basic {BASIC}'},
    ):
      for path in ('/', '/config', '/gradio_api/info'):
        assert client.get(path, headers=headers).status_code == 200, path
    answer = client.get('/healthz')
    assert answer.json()['checkpoints'] == ['first']
    answer = client.head('/healthz')
    assert (answer.status_code, answer.content) == (200, b'')
  with testclient.TestClient(make(keys=())) as client:
    assert client.get('/config').status_code == 200


@pytest.mark.parametrize('root_path', ['/cut', '/cut/', 'cut'])
def test_below_a_path(root_path, make):
  with testclient.TestClient(make(keys=(), root_path=root_path)) as client:
    # Whether the proxy takes the path off or not.
    for path in ('', '/cut'):
      assert client.get(f'{path}/healthz').status_code == 200
      assert client.post(f'{path}/api/remove').status_code in (400, 415)
      assert client.get(f'{path}/config').json()['root'].endswith('/cut')
    assert client.get('/cutter/healthz').status_code == 404
    answer = client.get('/cut', follow_redirects=False)
    assert answer.headers['Location'] == '/cut/'


def test_below_no_path(make):
  with testclient.TestClient(make(keys=(), root_path='/')) as client:
    assert client.get('/', follow_redirects=False).status_code == 200


@pytest.mark.filterwarnings('ignore:::gradio')
def test_nothing_is_fetched(make, monkeypatch):
  import safehttpx

  asked = []

  async def resolve(host):
    asked.append(host)
    raise ValueError(host)

  monkeypatch.setattr(safehttpx, 'async_validate_url', resolve)
  guarded = make(keys=())
  posts = {
    path
    for path, methods in _list_routes(guarded._application)
    if path.startswith('/gradio_api/') and 'POST' in (methods or ())
  }
  assert len(posts) > 10
  address = 'https://example.com/a.png'
  meta = {'_type': 'gradio.FileData'}
  files = [
    {'path': address, 'meta': meta},
    {'path': 'HTTPS://example.com/a', 'meta': meta},
    {'path': 'a', 'url': address, 'meta': meta},
    {'path': 'file:///etc/passwd', 'meta': meta},
  ]
  rest = ['transparent', '#ffffff', None, 'none', 'first', 'cutout']
  with testclient.TestClient(guarded, raise_server_exceptions=False) as client:
    for path in posts:
      path = path.replace('{api_name}', 'remove_background')
      for file in files:
        body = {'data': [[file], *rest], 'fn_index': 1, 'session_hash': 'x'}
        answer = client.post(path, json=body)
        if '://' in file['path']:
          assert answer.status_code == 400, path
    event = client.post(
      '/gradio_api/call/remove_background', json={'data': [[files[2]], *rest]}
    ).json()['event_id']
    client.get(f'/gradio_api/call/remove_background/{event}')
    for form in ('file={}', 'file/{}', 'proxy={}', 'file=%20{}', 'FILE={}'):
      for target in (address, address.upper(), address.replace('://', ':/')):
        answer = client.get(f'/gradio_api/{form.format(target)}')
        assert answer.status_code >= 400
  assert not asked


class _Sender:
  """A client that sends a body in parts, as fast as it is told."""

  def __init__(self, guarded, *, length=None, parts=(), pause=0.0, end=True):
    self.statuses = []
    self._parts = list(parts)
    self._pause, self._end = pause, end
    headers = [(b'transfer-encoding', b'chunked')]
    if length is not None:
      headers = [(b'content-length', str(length).encode())]
    self._scope = {
      'type': 'http',
      'method': 'POST',
      'path': '/api/remove',
      'query_string': b'',
      'headers': headers,
    }
    self._guarded = guarded

  async def run(self):
    await self._guarded(self._scope, self._receive, self._send)
    return self.statuses[0]

  async def _receive(self):
    await asyncio.sleep(self._pause)
    if not self._parts and not self._end:
      await asyncio.sleep(3600)
    part = self._parts.pop(0) if self._parts else b''
    more = bool(self._parts) or not self._end
    return {'type': 'http.request', 'body': part, 'more_body': more}

  async def _send(self, message):
    if message['type'] == 'http.response.start':
      self.statuses.append((message['status'], dict(message['headers'])))


@pytest.fixture
def guarded(tmp_path):
  """In front of what answers with the length of what it gets."""

  async def answer(scope, receive, send):
    message = {'more_body': True}
    guarded.lengths.append(0)
    while message['more_body']:
      message = await receive()
      guarded.lengths[-1] += len(message['body'])
    await send({'type': 'http.response.start', 'status': 200, 'headers': []})
    await send({'type': 'http.response.body', 'body': b''})

  guarded = guard.Guard(
    answer, keys=(), find_most=lambda _: 1_000_000, folder=tmp_path
  )
  guarded.lengths = []
  return guarded


def _run(*senders):
  async def run():
    async with asyncio.timeout(60):
      return await asyncio.gather(*(sender.run() for sender in senders))

  return [(status, headers) for status, headers in asyncio.run(run())]


@pytest.mark.parametrize('length', [None, 300_000])
def test_a_body_arrives_whole_or_nobody_sees_it(guarded, length):
  parts = [bytes(100_000)] * 3
  ((status, _),) = _run(_Sender(guarded, length=length, parts=parts))
  assert (status, guarded.lengths) == (200, [300_000])
  large = _Sender(guarded, length=length and 2_000_000, parts=parts * 4)
  ((status, _),) = _run(large)
  assert status == 413 and len(guarded.lengths) == 1
  assert not guarded._sizes


def test_who_is_slow_loses_its_place(guarded, monkeypatch):
  monkeypatch.setattr(guard, '_FIRST_SECONDS', 0.2)
  slow = [
    _Sender(guarded, length=900, end=False),
    _Sender(guarded, length=900, parts=[b'a'] * 900, pause=0.01),
  ]
  assert [status for status, _ in _run(*slow)] == [408, 408]
  assert not guarded.lengths and not guarded._sizes


@pytest.mark.parametrize('length', [None, 400_000])
def test_bodies_are_bounded_in_sum(guarded, monkeypatch, length):
  monkeypatch.setattr(guard, '_ROOM', 1_000_000)
  senders = [
    _Sender(guarded, length=length, parts=[bytes(100_000)] * 4, pause=0.01)
    for _ in range(4)
  ]
  answers = _run(*senders)
  statuses = [status for status, _ in answers]
  assert {200, 503} == set(statuses)
  for status, headers in answers:
    assert status == 200 or int(headers[b'retry-after']) > 0
  assert not guarded._sizes
  monkeypatch.setattr(guard, '_MOST_BODIES', 0)
  assert _run(_Sender(guarded, length=4, parts=[b'abcd']))[0][0] == 503


def test_a_full_disk_is_no_room(guarded, monkeypatch):
  class Full:
    def __enter__(self):
      return self

    def __exit__(self, *_):
      pass

    def write(self, _):
      raise OSError(errno.ENOSPC, 'No space left on device')

  opening = 'SpooledTemporaryFile'
  monkeypatch.setattr(guard.tempfile, opening, lambda **_: Full())
  assert _run(_Sender(guarded, length=4, parts=[b'abcd']))[0][0] == 503


@pytest.mark.parametrize(
  'mark',
  ['utf-8', 'utf-8-sig', 'utf-16', 'utf-32'],
)
def test_files_of_keys(mark, tmp_path):
  path = tmp_path / 'keys.txt'
  path.write_bytes(f'{KEY}\r\n\n  two \n'.encode(mark))
  assert app._read_keys(str(path)) == (KEY.encode(), b'two')


def test_files_without_keys(tmp_path):
  path = tmp_path / 'keys.txt'
  for content, said in (
    (b'\n \n', 'no key in it'),
    ('key\n'.encode('utf-16-le'), 'not a text .it has bytes of zero'),
    (b'\xff\xfek', 'not a text'),
  ):
    path.write_bytes(content)
    with pytest.raises(errors.UserError, match=f'{path}: {said}'):
      app._read_keys(str(path))
  path.unlink()
  with pytest.raises(errors.UserError, match='No such file'):
    app._read_keys(str(path))


def test_hosts_and_ports_that_cannot_be_had():
  with server.bind('127.0.0.1', 0) as taken:
    port = taken.getsockname()[1]
    for host, number, said in (
      ('127.0.0.1', port, f'--port={port}: no free port'),
      ('192.0.2.1', None, '--host=192.0.2.1: it is not an address of this'),
      ('no such host', 0, '--host=no such host: it is not known'),
    ):
      with pytest.raises(errors.UserError, match=said):
        server.bind(host, number)
  code = 'import sys; from rmbg_jax import app; app.run()'
  done = subprocess.run(
    [sys.executable, '-c', code, '--port=99999'],
    capture_output=True,
    text=True,
    env={**os.environ},
    timeout=120,
  )
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert '99999' in done.stderr


@pytest.mark.parametrize('host', ['::1', '[::1]', '::', '127.0.0.1', '0.0.0.0'])
def test_the_address_that_is_printed_can_be_opened(host):
  try:
    server.bind(host, 0).close()
  except errors.UserError:
    pytest.skip('no IPv6 here')
  with serving.serving(responses.PlainTextResponse('Here.'), host) as url:
    assert httpx.get(url).text == 'Here.'


def test_calls_of_the_page_hold_little(make):
  body = json.dumps({'data': ['x' * 1_100_000]})
  with testclient.TestClient(make(keys=())) as client:
    answer = client.post(
      '/gradio_api/call/remove_background',
      content=body,
      headers={'Content-Type': 'application/json'},
    )
  assert answer.status_code == 413
