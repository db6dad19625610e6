"""An S3 store on this machine that can be told to be in trouble."""

import contextlib
import dataclasses
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug import serving

from data_pipelines.io import stores

KEY, SECRET = 'the-key', 'the-secret'
BUCKET = 'bucket'


@dataclasses.dataclass
class Fault:
  """What becomes of some requests.

  Attributes:
    answer: (status, code) as S3 says it, or None to close the connection.
    methods: of the requests.
    part: of their path.
    count: how many of them, the first ones that match.
    on_meeting: called with the port of whoever asks.
  """

  answer: tuple[str, str] | None
  methods: tuple[str, ...] = ('GET', 'PUT', 'POST', 'HEAD', 'DELETE')
  part: str = ''
  count: int = 10**9
  on_meeting: Callable[[int], None] = lambda port: None


SLOW_DOWN = ('503 Slow Down', 'SlowDown')
DENIED = ('403 Forbidden', 'AccessDenied')


class Store:
  """The store.

  Attributes:
    url: where it listens.
    faults: that requests meet; may be changed at any time.
    requests: (method, path) of all so far.
  """

  def __init__(self, port):
    self.url = f'http://127.0.0.1:{port}'
    self.faults = []
    self.requests = []
    self._client = boto3.client(
      's3',
      endpoint_url=self.url,
      aws_access_key_id=KEY,
      aws_secret_access_key=SECRET,
      region_name='us-east-1',
    )
    self._client.create_bucket(Bucket=BUCKET)
    self.requests.clear()

  def put(self, key, content):
    self._client.put_object(Bucket=BUCKET, Key=key, Body=content)

  def contents(self, prefix=''):
    """Every object's content, by its key."""
    pages = self._client.get_paginator('list_objects_v2').paginate(
      Bucket=BUCKET, Prefix=prefix
    )
    return {
      entry['Key']: self._client.get_object(Bucket=BUCKET, Key=entry['Key'])[
        'Body'
      ].read()
      for page in pages
      for entry in page.get('Contents', ())
    }

  def clear(self):
    """Removes everything, and all faults."""
    self.faults.clear()
    for key in self.contents():
      self._client.delete_object(Bucket=BUCKET, Key=key)
    self.requests.clear()

  def count(self, method):
    return sum(one == method for one, _ in self.requests)


class _Handler(serving.WSGIRequestHandler):
  protocol_version = 'HTTP/1.1'

  def log(self, *_):
    pass


class _App:
  def __init__(self):
    self._moto = DomainDispatcherApplication(create_backend_app)
    self._lock = threading.Lock()
    self.store = None

  def __call__(self, environ, start_response):
    method, path = environ['REQUEST_METHOD'], environ['PATH_INFO']
    fault = self._find_fault(method, path, environ)
    if not fault:
      return self._moto(environ, start_response)
    fault.on_meeting(int(environ['REMOTE_PORT']))
    if fault.answer is None:
      environ['werkzeug.socket'].shutdown(socket.SHUT_RDWR)
      return []
    status, code = fault.answer
    body = f'<Error><Code>{code}</Code><Message>{code}!</Message></Error>'
    start_response(
      status,
      [
        ('Content-Type', 'application/xml'),
        ('Content-Length', str(len(body))),
        ('Connection', 'close'),  # The rest of the request is not read.
      ],
    )
    return [b'' if method == 'HEAD' else body.encode()]

  def _find_fault(self, method, path, environ):
    with self._lock:
      if self.store is None:
        return None
      self.store.requests.append((method, path))
      if f'Credential={KEY}/' not in environ.get('HTTP_AUTHORIZATION', ''):
        return Fault(('403 Forbidden', 'InvalidAccessKeyId'))
      for fault in self.store.faults:
        if method in fault.methods and fault.part in path and fault.count:
          fault.count -= 1
          return fault
    return None


@contextlib.contextmanager
def serving_store():
  """Yields a `Store` with an empty bucket."""
  app = _App()
  server = serving.make_server(
    '127.0.0.1', 0, app, threaded=True, request_handler=_Handler
  )
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  try:
    app.store = Store(server.server_port)
    yield app.store
  finally:
    server.shutdown()
    thread.join()
    server.server_close()


def environment(store):
  """The variables by which programs find the store."""
  return {
    'AWS_ENDPOINT_URL': store.url,
    'AWS_ACCESS_KEY_ID': KEY,
    'AWS_SECRET_ACCESS_KEY': SECRET,
    'AWS_DEFAULT_REGION': 'us-east-1',
    'AWS_EC2_METADATA_DISABLED': 'true',
    # botocore's own; with its defaults, a test would wait for half a minute.
    'AWS_MAX_ATTEMPTS': '2',
  }


def find_client(port):
  """The process on this machine that has a port's connection."""
  rows = Path('/proc/net/tcp').read_text().splitlines()[1:]
  inodes = {
    f'socket:[{row.split()[9]}]'
    for row in rows
    if row.split()[1].endswith(f':{port:04X}')
  }
  for link in Path('/proc').glob('[0-9]*/fd/*'):
    with contextlib.suppress(OSError):
      if str(link.readlink()) in inodes:
        return int(link.parts[2])
  raise LookupError(port)


@contextlib.contextmanager
def visiting(store, monkeypatch):
  """The project's client finds the store, which is empty."""
  store.clear()
  for name, value in environment(store).items():
    monkeypatch.setenv(name, value)
  stores.open_store.cache_clear()
  yield
  stores.open_store.cache_clear()
