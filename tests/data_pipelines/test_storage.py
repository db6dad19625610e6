"""Files by URL: what a store says, and what is there after trouble."""

import socket

import pytest

from data_pipelines.io import errors, files, network, storage, stores

pytest.importorskip('s3fs')
pytest.importorskip('moto')

from tests.support import object_store  # noqa: E402


@pytest.fixture(scope='module')
def server():
  with object_store.serving_store() as server:
    yield server


@pytest.fixture
def store(server, monkeypatch):
  with object_store.visiting(server, monkeypatch):
    yield server


ROOT = storage.Url(f's3://{object_store.BUCKET}/some where')
NAMES = ['a b#%?1.jpg', 'a.jpg', 's-1/c.png', 's/b.jpg', 's/ü.jpg']


def test_addresses_are_paths_or_stores(tmp_path):
  assert storage.parse(f'file://{tmp_path}') == tmp_path
  assert storage.parse('photos') / 'a' == storage.Path('photos/a')
  url = storage.parse('s3://bucket/photos/')
  assert str(url / 'sub/a.jpg') == 's3://bucket/photos/sub/a.jpg'
  assert (url / 'a.JPG').suffix == '.JPG' and (url / 'a').parent == url
  for wrong in ('s3://', 'ftp://host/photos'):
    with pytest.raises(errors.UserError, match=wrong):
      storage.parse(wrong)


def test_what_is_written_is_listed_and_read(store, tmp_path):
  for root in (ROOT, tmp_path / 'some where'):
    assert list(storage.list_names(root)) == []
    for name in reversed(NAMES):
      storage.write(root / name, name.encode())
    assert list(storage.list_names(root)) == NAMES
    assert storage.read(root / NAMES[0]) == NAMES[0].encode()
    assert storage.exists(root / 'a.jpg')
    with pytest.raises(FileNotFoundError):
      storage.read(root / 'none')
    storage.remove(root)
    storage.remove(root)
    assert not storage.exists(root / 'a.jpg')
    assert list(storage.list_names(root)) == []


def test_a_store_is_listed_page_by_page(store, monkeypatch):
  for index in range(7):
    store.put(f'many/{index}', b'')
  s3 = stores.open_store('s3')
  call = s3.call_s3
  monkeypatch.setattr(
    s3, 'call_s3', lambda *args, **options: call(*args, MaxKeys=3, **options)
  )
  store.requests.clear()
  names = storage.list_names(storage.Url(f's3://{object_store.BUCKET}/many'))
  assert next(names) == '0'
  assert store.count('GET') == 1
  assert list(names) == list('123456')
  assert store.count('GET') == 3


def test_other_stores_are_listed_in_the_same_order(monkeypatch):
  import fsspec

  memory = fsspec.filesystem('memory')
  monkeypatch.setattr(stores, 'open_store', lambda scheme: memory)
  root = storage.Url('gs://bucket/photos')
  for name in NAMES:
    storage.write(root / name, b'')
  assert list(storage.list_names(root)) == NAMES
  storage.remove(storage.Url('gs://bucket'))


def test_throttling_and_lost_connections_are_waited_for(store):
  store.faults.append(object_store.Fault(object_store.SLOW_DOWN, count=3))
  storage.write(ROOT / 'a', b'a')
  store.faults.append(object_store.Fault(None, count=3))
  assert storage.read(ROOT / 'a') == b'a'
  assert not storage.exists(storage.Url(f's3://{object_store.BUCKET}/some'))
  assert not any(fault.count for fault in store.faults)


@pytest.mark.parametrize(
  ('answer', 'said'),
  [
    (object_store.DENIED, r'not allowed \(.*AccessDenied'),
    (('403 Forbidden', 'InvalidAccessKeyId'), 'InvalidAccessKeyId'),
    (('400 Bad Request', 'AuthorizationHeaderMalformed'), 'Malformed'),
  ],
)
def test_what_a_store_refuses_is_said_with_a_remedy(store, answer, said):
  store.faults.append(object_store.Fault(answer))
  for act in (
    lambda: storage.write(ROOT / 'a', b'a'),
    lambda: storage.read(ROOT / 'a'),
    lambda: list(storage.list_names(ROOT)),
  ):
    with pytest.raises(errors.UserError, match=said) as info:
      act()
    assert str(ROOT) in str(info.value)
    assert 'AWS_ACCESS_KEY_ID' in str(info.value)
  assert store.faults.clear() or store.contents() == {}


def test_a_missing_bucket_is_no_empty_one(store):
  with pytest.raises(errors.MissingFileError, match='s3://other'):
    list(storage.list_names(storage.Url('s3://other/photos')))


def test_a_package_that_is_missing_is_named(monkeypatch):
  import fsspec

  def fail(*_, **__):
    raise ImportError('Install s3fs to access S3')

  stores.open_store.cache_clear()
  monkeypatch.setattr(fsspec, 'filesystem', fail)
  with pytest.raises(errors.UserError, match=r"pip install -e '\.\[s3\]'"):
    storage.read(ROOT / 'a')


def test_credentials_that_are_missing_are_a_line(monkeypatch):
  import fsspec

  def fail(*_, **__):
    raise ValueError('Must provide\nan account_name' + '\nor more' * 1000)

  stores.open_store.cache_clear()
  monkeypatch.setattr(fsspec, 'filesystem', fail)
  root = storage.Url('az://bucket/photos')
  for act in (
    lambda: list(storage.list_names(root)),
    lambda: storage.read(root / 'a'),
  ):
    with pytest.raises(errors.UserError, match='AZURE_STORAGE_ACCOUNT') as info:
      act()
    assert '\n' not in str(info.value) and len(str(info.value)) < 1000


@pytest.mark.parametrize('kind', ['silent', 'closed', 'proxy'])
def test_a_store_that_does_not_answer_is_a_line(kind, store, monkeypatch):
  monkeypatch.setattr(network, 'PATIENCE', 0.5)
  with socket.socket() as listening:
    listening.bind(('127.0.0.1', 0))
    if kind != 'closed':
      listening.listen()  # Nobody ever reads what arrives.
    address = f'http://127.0.0.1:{listening.getsockname()[1]}'
    if kind == 'proxy':
      monkeypatch.setenv('http_proxy', address)
      monkeypatch.setenv('no_proxy', '')
      monkeypatch.setenv('AWS_ENDPOINT_URL', 'http://store.invalid')
    else:
      monkeypatch.setenv('AWS_ENDPOINT_URL', address)
    said = 'cannot be reached' if kind == 'closed' else 'does not answer within'
    with pytest.raises(errors.UserError, match=f'{ROOT}.*{said}') as info:
      list(storage.list_names(ROOT))
  assert address in str(info.value)


def _ask(found, photo):
  stem = photo.removesuffix('.jpg')
  return found.find(f'{stem}.png', low=f'{stem}.') is not None


def test_names_are_found_while_a_listing_goes_by(rng):
  # Dots and signs around them in any order, and folders with dots.
  parts = [
    'a',
    'a.b',
    'a.',
    'a-',
    'a.0/x',
    'a.0/x.y',
    'a/b',
    'b.c.d',
    'b',
    'b c',
  ]
  for _ in range(200):
    photos = sorted(f'{part}.jpg' for part in parts if rng.random() < 0.7)
    done = {f'{part}.png' for part in parts if rng.random() < 0.5}
    found = storage.Found(map(storage.File, sorted(done)))
    for photo in photos:
      assert _ask(found, photo) == (photo.replace('.jpg', '.png') in done)


def test_few_of_many_names_are_held():
  count = 5000
  found = storage.Found(
    storage.File(f'v1.0/{index:06}.png') for index in range(count)
  )
  most = 0
  for index in range(count):
    assert _ask(found, f'v1.0/{index:06}.jpg')
    most = max(most, len(found._kept))
  assert most <= 3
  with pytest.raises(ValueError, match='before'):
    _ask(found, 'v0/a.jpg')


def test_a_file_that_was_not_finished_is_none(tmp_path):
  with (
    pytest.raises(KeyboardInterrupt),
    files.write_atomically(tmp_path / 'a.png') as partial,
  ):
    name = partial.name
    raise KeyboardInterrupt
  for other in ('a.png', name, '.mine.partial/b.png'):
    (tmp_path / other).parent.mkdir(exist_ok=True)
    (tmp_path / other).touch()
  assert list(storage.list_names(tmp_path)) == ['.mine.partial/b.png', 'a.png']
