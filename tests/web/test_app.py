"""The page as a browser and a script use it, in a server of its own."""

import concurrent.futures
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.io import images
from rmbg_jax.inference import photos as photos_lib
from rmbg_jax.inference import refinement, rendering
from tests.support import colour_network, helpers, serving

ROOT = Path(__file__).resolve().parents[2]
QUEUE = 12
# The channels that the networks compare.
CHECKPOINTS = {'red': (2, 1), 'blue': (0, 2)}
_BROWSER_FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Two checkpoints, and photos of many kinds with the box somewhere else."""
  folder = tmp_path_factory.mktemp('app')
  for name, channels in CHECKPOINTS.items():
    colour_network.save_release(folder / f'{name}.safetensors', channels)
  photos = folder / 'photos'
  photos.mkdir()
  colour_network.save_photos(photos)
  return folder


@pytest.fixture(scope='module')
def server(folder):
  """The page's address."""
  with _serving(folder, folder / 'temporary') as url:
    yield url


@contextlib.contextmanager
def _serving(folder, temporary, *flags):
  """Yields a page's address; it leaves nothing behind."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    port = probe.getsockname()[1]
  temporary.mkdir()
  command = [
    *(sys.executable, '-m', 'rmbg_jax.app', f'--port={port}'),
    f'--checkpoint={folder}/red.safetensors,{folder}/blue.safetensors',
    *('--max_pixels=1000000', '--max_megabytes=1', '--max_files=11'),
    *(f'--queue={QUEUE}', *flags),
  ]
  with subprocess.Popen(
    command,
    cwd=ROOT,
    env={**os.environ, 'GRADIO_TEMP_DIR': str(temporary)},
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    try:
      assert f'http://127.0.0.1:{port}/' in process.stdout.readline()
      yield f'http://127.0.0.1:{port}/'
      assert list(temporary.iterdir())
    finally:
      process.send_signal(signal.SIGTERM)
      said, _ = process.communicate(timeout=30)
  assert (process.returncode, said) == (0, 'The page is closed.\n')
  assert not list(temporary.iterdir())


@pytest.fixture(scope='module')
def client(server, folder):
  import gradio_client

  client = gradio_client.Client(
    server,
    verbose=False,
    analytics_enabled=False,
    download_files=folder / 'downloads',
  )
  yield client
  client.close()


def _ask(client, paths, **options):
  """Returns the results' and masks' files, and the report."""
  import gradio_client

  photos = [gradio_client.handle_file(path) for path in paths]
  if 'picture' in options:
    options['picture'] = gradio_client.handle_file(options['picture'])
  return client.predict(photos, api_name='/remove_background', **options)


def test_ten_uploads_at_once_equal_predict(client, folder):
  out = folder / 'predicted'
  subprocess.run(
    [
      *(sys.executable, '-m', 'rmbg_jax.predict', '--batch_size=1'),
      f'--checkpoint={folder}/red.safetensors',
      *(f'--input={folder}/photos', f'--output={out}'),
    ],
    cwd=ROOT,
    check=True,
    capture_output=True,
  )
  paths = sorted((folder / 'photos').iterdir())
  assert len(paths) == 10
  with concurrent.futures.ThreadPoolExecutor(10) as pool:
    answers = list(pool.map(lambda path: _ask(client, [path]), paths))
  seen = set()
  for path, (cutouts, masks, report) in zip(paths, answers, strict=True):
    for kind, files in (('cutout', cutouts), ('mask', masks)):
      content = Path(files[0]).read_bytes()
      assert content == (out / kind / f'{path.stem}.png').read_bytes()
      seen.add(content)
    assert Path(cutouts[0]).name == f'{path.stem}.png'
    assert report['failed'] == []
    assert report['done'][0]['photo'] == path.name
  assert len(seen) > 15  # The photos do not look alike.
  # In one request they come back the same, in its order.
  cutouts, masks, _ = _ask(client, paths[::-1])
  for one, (alone, _, _) in zip(cutouts[::-1], answers, strict=True):
    assert Path(one).read_bytes() == Path(alone[0]).read_bytes()


def test_with_keys_and_below_a_path(folder, tmp_path):
  import gradio_client
  import httpx

  (tmp_path / 'keys').write_bytes(b'\xef\xbb\xbfsesame\n')
  flags = (f'--api_key_file={tmp_path}/keys', '--root_path=/cut')
  with _serving(folder, tmp_path / 'temporary', *flags) as url:
    assert httpx.post(f'{url}gradio_api/upload').status_code == 401
    answer = httpx.get(url, auth=('anybody', 'sesame'))
    assert answer.status_code == 200 and '/cut' in answer.text
    client = gradio_client.Client(
      f'{url}cut',
      headers={'X-Api-Key': 'sesame'},
      verbose=False,
      analytics_enabled=False,
      download_files=tmp_path / 'downloads',
    )
    results, _, report = _ask(client, [folder / 'photos/b.jpg'])
    assert report['failed'] == [] and images.read_size(results[0]) == (100, 150)
    client.close()


def test_the_documented_script_runs(server, folder, tmp_path):
  text = (ROOT / 'docs' / 'app.md').read_text()
  code = text.partition('```python\n')[2].partition('```')[0]
  for old, new in (
    (
      "'http://127.0.0.1:7860'",
      f'{server!r}, download_files={str(tmp_path)!r}',
    ),
    ("'a.jpg'", repr(str(folder / 'photos' / 'b.jpg'))),
    ("'b.jpg'", repr(str(folder / 'photos' / 'c.jpg'))),
  ):
    assert old in code
    code = code.replace(old, new)
  scope = {}
  exec(code, scope)
  scope['client'].close()
  sizes = [images.read_size(path) for path in scope['results']]
  assert sizes == [(100, 150), (120, 80)]
  assert [images.read_size(path) for path in scope['masks']] == sizes


def test_what_is_chosen_is_done(client, folder):
  path = folder / 'photos' / 'b.jpg'
  photo = photos_lib.read_photo(path)
  picture = folder / 'photos' / 'h.webp'
  blue = str(folder / 'blue.safetensors')
  for checkpoint, method, background, options in (
    ('red', 'none', '', {}),
    ('red', 'none', '#00ff7f', {'background': 'colour', 'colour': '#00ff7f'}),
    ('red', 'none', 'blur', {'background': 'blur'}),
    (
      *('red', 'none', str(picture)),
      {'background': 'picture', 'picture': picture},
    ),
    ('red', 'guided', '', {'edges': 'guided'}),
    ('blue', 'none', '', {'checkpoint': blue}),
  ):
    results, masks, _ = _ask(client, [path], **options)
    probs = colour_network.compute_probs(photo.rgb, CHECKPOINTS[checkpoint])
    alpha = refinement.Refinement(method=method).apply(probs, photo.rgb)
    kind = 'composite' if background else 'cutout'
    contents = rendering.Style(background=background).render(
      photo, alpha, ('mask', kind)
    )
    for file, expected in (
      (results, contents[kind]),
      (masks, contents['mask']),
    ):
      actual = np.asarray(Image.open(file[0]), np.float32)
      expected = np.asarray(Image.open(io.BytesIO(expected)), np.float32)
      assert actual.shape == expected.shape
      # The network's rounding may tip the last of 8 bits.
      assert np.abs(actual - expected).mean() < 0.1, options
    if not background:  # The box is at the left, red before blue.
      opaque = [actual[0, 0], actual[-1, -1]]
      assert opaque == ([255, 0] if checkpoint == 'red' else [0, 255])


def test_what_cannot_be_done_is_said(client, server, folder, tmp_path):
  from gradio_client.exceptions import AppError

  good = folder / 'photos' / 'a plain photo.png'
  (tmp_path / 'broken.jpg').write_bytes(b'no picture')
  Image.new('L', (1001, 1000)).save(tmp_path / 'wide.png')
  Image.new('L', (3001, 1000)).save(tmp_path / 'widest.png')
  (tmp_path / 'heavy.jpg').write_bytes(bytes(1_000_001))
  # What older requests left, such as those whose visitor was gone.
  (left,) = folder.glob('temporary/*/results')
  for name, age in (('old', 3700), ('new', 3500)):
    (left / name).mkdir()
    os.utime(left / name, (time.time() - age,) * 2)
  names = ('broken.jpg', 'wide.png', 'widest.png', 'heavy.jpg')
  bad = [tmp_path / name for name in names]
  results, masks, report = _ask(client, [bad[0], good, *bad[1:]])
  assert [Path(path).name for path in results] == ['a plain photo.png']
  assert len(masks) == len(report['done']) == 1
  assert (left / 'new').exists() and not (left / 'old').exists()
  broken, wide, widest, heavy = report['failed']
  assert broken.startswith('broken.jpg: cannot be read as an image')
  limit = 'are more pixels than the limit of 1000000'
  assert f'wide.png: 1001x1000 {limit}' in wide
  assert f'widest.png: 3001x1000 {limit}' in widest
  assert 'heavy.jpg: 1.0 MB are more than the limit of 1 MB' in heavy
  for failure in report['failed']:  # Nor where files are on the server.
    assert str(folder) not in failure
  refused = {
    'broken.jpg: cannot be read': {'photos': bad[:1]},
    'There is no photo': {'photos': []},
    'more than the limit of 11': {'photos': [good] * 12},
    'pass #rrggbb': {'background': 'colour', 'colour': str(good)},
    'no picture for the background': {'background': 'picture'},
    'The background wide.png: 1001x1000': {
      'background': 'picture',
      'picture': bad[1],
    },
    'not in the list of choices': {'checkpoint': str(tmp_path)},
  }
  for message, options in refused.items():
    with pytest.raises(AppError, match=message):
      _ask(client, options.pop('photos', [good]), **options)
  # Files of the server are none of a visitor's.
  event = _post(server, folder, str(good)).json()['event_id']
  answer = _read(server, event)
  assert 'event: error' in answer and str(good) not in answer


def test_one_http_call(server, folder, tmp_path):
  """What docs/app.md shows, on the page's own server."""
  text = (ROOT / 'docs' / 'app.md').read_text()
  lines = [line for line in text.splitlines() if line.startswith('curl ')]
  assert len(lines) == 3
  shutil.copy(folder / 'photos' / 'b.jpg', tmp_path / 'photo.jpg')
  for line in lines:
    command = line.replace('http://127.0.0.1:7860/', server)
    assert server in command
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
  kinds = {}
  for name in ('cutout.png', 'mask.webp', 'preview.png'):
    with Image.open(tmp_path / name) as image:
      kinds[name] = (image.format, image.mode, image.size)
  size = (150, 100)
  assert kinds == {
    'cutout.png': ('PNG', 'RGBA', size),
    'mask.webp': ('WEBP', 'RGB', size),
    'preview.png': ('PNG', 'RGBA', size),
  }


def test_a_client_of_remove_bg(server, folder, tmp_path, monkeypatch):
  """Only the address is changed."""
  from removebg import removebg

  monkeypatch.setattr(removebg, 'API_ENDPOINT', f'{server}v1.0/removebg')
  photo = tmp_path / 'photo.jpg'
  shutil.copy(folder / 'photos' / 'b.jpg', photo)
  client = removebg.RemoveBg('any key', str(tmp_path / 'errors.log'))
  client.remove_background_from_img_file(str(photo), size='auto')
  with Image.open(f'{photo}_no_bg.png') as cutout:
    assert (cutout.mode, cutout.size) == ('RGBA', (150, 100))
    assert cutout.getpixel((30, 30))[3] == 255
    assert cutout.getpixel((140, 90))[3] == 0


_CALL = 'gradio_api/call/remove_background'


def _post(server, folder, path):
  """Asks for a file that is on the server already, as curl would."""
  import httpx

  file = {'path': path, 'meta': {'_type': 'gradio.FileData'}}
  checkpoint = str(folder / 'red.safetensors')
  options = ['transparent', '#ffffff', None, 'none', checkpoint, 'cutout']
  data = [[file], *options]
  return httpx.post(server + _CALL, json={'data': data})


def _read(server, event):
  import httpx

  return httpx.get(f'{server}{_CALL}/{event}', timeout=60).text


@pytest.fixture
def held(folder, tmp_path, monkeypatch):
  """A page's address, and the event that its requests wait for."""
  from rmbg_jax.web import options as options_lib
  from rmbg_jax.web import server as server_lib
  from rmbg_jax.web import service as service_lib

  released = threading.Event()

  class Service(service_lib.Service):
    def cut_out(self, *args, **options):
      assert released.wait(60)
      return super().cut_out(*args, **options)

  monkeypatch.setenv('GRADIO_TEMP_DIR', str(tmp_path))
  service = Service(
    [str(folder / 'red.safetensors')],
    limits=options_lib.Limits(),
    folder=tmp_path / 'results',
  )
  served = server_lib.make_application(
    service, keys=(), queue=QUEUE, folder=tmp_path / 'bodies'
  )
  with serving.serving(served) as url:
    yield url, released
    released.set()


@pytest.mark.filterwarnings('ignore:::gradio')
def test_a_full_queue_says_so(held, folder):
  import httpx

  server, released = held
  content = io.BytesIO()
  helpers.make_photo((999, 999)).save(content, 'jpeg')
  uploaded = httpx.post(
    server + 'gradio_api/upload',
    files={'files': ('noise.jpg', content.getvalue())},
  ).json()[0]
  posts = [_post(server, folder, uploaded) for _ in range(QUEUE + 20)]
  refused = [post for post in posts if post.status_code != 200]
  assert refused
  assert all('Queue is full' in post.text for post in refused)
  # Those that were taken are done.
  released.set()
  taken = [post.json()['event_id'] for post in posts if post not in refused]
  assert len(taken) >= QUEUE
  for event in taken:
    answer = _read(server, event)
    assert 'event: complete' in answer
    data = json.loads(answer.rpartition('data: ')[2])
    assert data[2]['done'][0]['photo'] == 'noise.jpg'


@pytest.fixture(scope='module')
def browser():
  playwright = pytest.importorskip('playwright.sync_api')
  path = shutil.which('chromium') or shutil.which('chromium-browser')
  if path is None:
    pytest.skip('chromium is not installed (apt-get install chromium)')
  with playwright.sync_playwright() as running:
    browser = running.chromium.launch(executable_path=path, args=_BROWSER_FLAGS)
    yield browser
    browser.close()


_READ_CORNERS = """image => {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0);
  const read = (x, y) => context.getImageData(x, y, 1, 1).data[3];
  const [right, bottom] = [canvas.width - 1, canvas.height - 1];
  return [read(0, 0), read(right, 0), read(0, bottom), read(right, bottom),
          read(70, 50)];
}"""


def test_in_a_browser(server, browser, folder, tmp_path):
  page = browser.new_page()
  requests = []
  page.on('request', lambda request: requests.append(request.url))
  page.goto(server)
  photo = folder / 'photos' / 'a plain photo.png'
  drop = page.locator('#photos input[type=file]')
  drop.set_input_files(photo)
  shown = page.locator('#result img')
  shown.last.wait_for()
  # The photo, and before the squares what is opaque in the middle alone.
  page.wait_for_function(
    "[...document.querySelectorAll('#result img')]"
    '.every(image => image.complete && image.naturalWidth == 150)'
  )
  assert shown.last.evaluate(_READ_CORNERS) == [0, 0, 0, 0, 255]
  assert shown.first.evaluate(_READ_CORNERS) == [255] * 5
  assert not page.locator('#problems').is_visible()
  with page.expect_download() as download:
    page.locator('#download').click()
  assert download.value.suggested_filename == 'a plain photo.png'
  download.value.save_as(tmp_path / 'cutout.png')
  with Image.open(tmp_path / 'cutout.png') as cutout, Image.open(photo) as own:
    assert (cutout.format, cutout.mode) == ('PNG', 'RGBA')
    assert cutout.size == own.size
    assert cutout.info['icc_profile'] == own.info['icc_profile']
    assert cutout.getpixel((70, 50)) == (220, 20, 30, 255)
    assert cutout.getpixel((0, 0))[3] == 0

  # Several, one of which is not a photo.
  (tmp_path / '<b>broken.jpg').write_bytes(b'no picture')
  page.goto(server)
  drop.set_input_files(
    [photo, tmp_path / '<b>broken.jpg', folder / 'photos' / 'c.jpg']
  )
  page.locator('#problems').get_by_text('broken.jpg: cannot be').wait_for()
  page.locator('#gallery .grid-container button').nth(1).click()
  page.wait_for_function(  # Upright.
    "[...document.querySelectorAll('#result img')]"
    '.every(image => image.complete && image.naturalHeight == 120)'
  )
  with page.expect_download() as download:
    page.locator('#archive').click()
  with zipfile.ZipFile(download.value.path()) as archive:
    assert archive.testzip() is None
    assert sorted(archive.namelist()) == [
      f'{kind}/{name}.png'
      for kind in ('cutout', 'mask')
      for name in ('a plain photo', 'c')
    ]

  # Another background.
  page.get_by_text('Options').click()
  page.get_by_text('Blurred').click()
  before = shown.last.get_attribute('src')
  page.locator('#run').click()
  page.wait_for_function(
    "before => document.querySelectorAll('#result img')[1].src != before",
    arg=before,
  )
  assert '/composite/' in shown.last.get_attribute('src')

  # Nothing that is not a photo is silent.
  page.goto(server)
  drop.set_input_files(tmp_path / '<b>broken.jpg')
  page.locator('#problems').get_by_text('Replace or remove it').wait_for()
  assert not shown.first.is_visible()
  page.close()
  hosts = {urllib.parse.urlsplit(url).hostname for url in requests}
  assert hosts - {None} == {'127.0.0.1'}  # None: data and blob.


def test_misuse_is_explained(tmp_path):
  def run(code):
    return subprocess.run(
      [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
    )

  begin = 'import sys; from rmbg_jax import app; sys.argv += '
  absent = run(f'{begin}["--checkpoint={tmp_path}/x"]; app.run()')
  assert absent.returncode == 1
  assert f'Error: {tmp_path}/x: no such checkpoint' in absent.stderr
  assert 'Traceback' not in absent.stderr
  missing = run(f'{begin}[]; sys.modules["gradio"] = None; app.run()')
  assert missing.returncode == 1
  assert 'Error: The page needs Gradio: pip install' in missing.stderr
