"""Published files arrive whole and once, or it is said in a line why not."""

import functools
import hashlib
import http.server
import socketserver
import threading
from concurrent import futures

import platformdirs
import pytest

from data_pipelines.io import errors
from rmbg_jax.weights import cache

CONTENT = bytes(range(256)) * 40
CHECKSUM = 'md5:' + hashlib.md5(CONTENT).hexdigest()


class _Publisher(http.server.BaseHTTPRequestHandler):
  """Serves CONTENT; a first answer to `cut.h5` breaks off in the middle."""

  paths = []

  def do_GET(self):  # noqa: N802
    is_cut = self.path == '/cut.h5' and self.path not in self.paths
    self.paths.append(self.path)
    self.send_response(200)
    self.send_header('Content-Length', str(len(CONTENT)))
    self.end_headers()
    self.wfile.write(CONTENT[: 5000 if is_cut else None])

  def log_message(self, *_):
    pass


@pytest.fixture
def publisher(monkeypatch, tmp_path):
  monkeypatch.setattr(cache, 'cache_dir', lambda: tmp_path / 'cache')
  _Publisher.paths = []
  server = http.server.HTTPServer(('127.0.0.1', 0), _Publisher)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  yield f'http://127.0.0.1:{server.server_port}'
  server.shutdown()
  server.server_close()


def list_stored():
  return {path.name for path in cache.cache_dir().iterdir()}


def test_what_is_cut_off_is_not_kept_and_what_is_whole_is(publisher):
  url = f'{publisher}/cut.h5'
  with pytest.raises(errors.MissingFileError, match='5000 bytes read'):
    cache.fetch(url, checksum=CHECKSUM, flag='--x')
  assert list_stored() == {'cut.h5.lock'}
  path = cache.fetch(url, checksum=CHECKSUM, flag='--x')
  assert path.read_bytes() == CONTENT
  assert cache.fetch(url, checksum=CHECKSUM, flag='--x') == path
  assert len(_Publisher.paths) == 2, 'the cached copy was not used'


def test_processes_that_download_at_once_do_not_disturb_each_other(publisher):
  fetch = functools.partial(cache.fetch, checksum=CHECKSUM, flag='--x')
  with futures.ThreadPoolExecutor(4) as pool:
    paths = list(pool.map(fetch, [f'{publisher}/w.h5'] * 4))
  assert {path.read_bytes() for path in paths} == {CONTENT}
  assert _Publisher.paths == ['/w.h5']


class _Broken(socketserver.BaseRequestHandler):
  """Answers with what is no HTTP, or breaks off in the middle of it."""

  def handle(self):
    self.request.recv(4096)
    self.request.sendall(self.server.answer)


@pytest.mark.parametrize(
  'answer',
  [
    b'',
    b'SSH-2.0-OpenSSH_9\r\n',
    b'HTTP/1.1 abc\r\n\r\n',
    b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\nx',
    b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nx',
    b'HTTP/1.1 302 Found\r\nLocation: http://[::1\r\n\r\n',
    b'HTTP/1.1 503 Busy\r\n\r\n',
    b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx',
  ],
)
def test_broken_answers_name_the_address_and_the_remedy(
  answer, monkeypatch, tmp_path
):
  monkeypatch.setattr(cache, 'cache_dir', lambda: tmp_path)
  with socketserver.TCPServer(('127.0.0.1', 0), _Broken) as server:
    server.answer = answer
    url = f'http://127.0.0.1:{server.server_address[1]}/w.h5'
    thread = threading.Thread(target=server.handle_request, daemon=True)
    thread.start()
    with pytest.raises(errors.MissingFileError) as error:
      cache.fetch(url, checksum='md5:00', flag='--x')
  message = str(error.value)
  assert message.startswith(f'{url} cannot be downloaded (')
  assert f'put it at {tmp_path / "w.h5"} or pass --x=PATH' in message
  assert '\n' not in message


@pytest.mark.parametrize('proxy', ['http://proxy:80a', 'foo', 'socks9://x:1'])
def test_odd_proxies_are_named(proxy, monkeypatch, tmp_path):
  monkeypatch.setattr(cache, 'cache_dir', lambda: tmp_path)
  monkeypatch.setenv('http_proxy', proxy)
  monkeypatch.delenv('no_proxy', raising=False)
  with pytest.raises(errors.MissingFileError, match='cannot be downloaded'):
    cache.fetch('http://x.invalid/w.h5', checksum='md5:00', flag='--x')


def test_a_file_that_cannot_be_stored_names_the_place(monkeypatch, tmp_path):
  (tmp_path / 'file').touch()
  monkeypatch.setattr(cache, 'cache_dir', lambda: tmp_path / 'file')
  with pytest.raises(errors.UserError, match='XDG_CACHE_HOME') as error:
    cache.fetch('http://x.invalid/w.h5', checksum='md5:00', flag='--x')
  assert str(tmp_path / 'file/w.h5') in str(error.value)


def test_without_a_home_folder_nothing_is_there(monkeypatch):
  def fail(name):
    raise RuntimeError(f'no home folder for {name}')

  monkeypatch.setattr(platformdirs, 'user_cache_dir', fail)
  assert not cache.is_present('http://x.invalid/w.h5')
  with pytest.raises(errors.UserError, match='XDG_CACHE_HOME'):
    cache.fetch('http://x.invalid/w.h5', checksum='md5:00', flag='--x')


def test_download_refuses_a_wrong_checksum(publisher):
  wrong = 'sha256:' + 64 * '0'
  with pytest.raises(errors.MissingFileError, match=f'{wrong}.*--x=PATH'):
    cache.fetch(f'{publisher}/w.h5', checksum=wrong, flag='--x')
  assert list_stored() == {'w.h5.lock'}
