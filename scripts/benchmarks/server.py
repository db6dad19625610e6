"""Times the page and HTTP calls for a photo beside what `predict` does for it.

```bash
python -m scripts.benchmarks.server
```

page: from the upload of a JPEG to the downloaded mask and cut-out, through
  gradio_client and a server in another process.
call: the same photo to `/api/remove` of that server, cut-out back.
predict: from its file to the files of mask and cut-out, in this process.

All are warm and take turns. Then the photos a second that 8 clients get by
calls; with `--rembg` (the command of an installed rembg), those of its server
with U2-Net-p too. Needs `pip install -e '.[app]'`.
"""

import contextlib
import functools
import shlex
import signal
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from pathlib import Path

from absl import flags

from data_pipelines import cli
from scripts.benchmarks import common

_CHECKPOINT = cli.define_path(
  'checkpoint', 'released', 'As `predict` takes it.'
)
_REPEATS = flags.DEFINE_integer('repeats', 15, 'Timed calls of each.')
_CLIENTS = flags.DEFINE_integer('clients', 8, 'That ask at once.')
_SIZE = flags.DEFINE_enum(
  'size', '1500x1000', ['1500x1000', '3000x2000'], 'Of the photo.'
)
_REMBG = flags.DEFINE_string('rembg', '', 'Such as /path/to/bin/rembg.')
_ROUNDS = 3


def post(url: str, content: bytes, fields: Mapping[str, str]) -> bytes:
  """Returns the answer to a photo, with more fields of the form."""
  import httpx

  answer = httpx.post(
    url, files={'file': ('a.jpg', content)}, data=fields, timeout=300
  )
  answer.raise_for_status()
  return answer.content


def measure_calls(url: str, photo: Path) -> None:
  """Prints the median seconds of page, call and predict, and their ratios."""
  import gradio_client

  from rmbg_jax import runtime

  runtime.start()
  client = gradio_client.Client(
    url,
    verbose=False,
    analytics_enabled=False,
    download_files=photo.parent / 'downloads',
  )

  def ask_page():
    photos = [gradio_client.handle_file(photo)]
    cutouts, _, _ = client.predict(photos, api_name='/remove_background')
    return Path(cutouts[0]).read_bytes()

  def call():
    return post(f'{url}api/remove', photo.read_bytes(), {})

  predict = common.make_predict(_CHECKPOINT.value, photo, ('mask', 'cutout'))
  if {ask_page(), call()} != {predict().read_bytes()}:
    raise SystemExit('The page, the call and predict disagree.')
  seconds = common.time_in_turn(
    {'page': ask_page, 'call': call, 'predict': predict}, _REPEATS.value
  )
  client.close()
  plain = seconds['predict']
  for side, value in seconds.items():
    print(
      f'{_SIZE.value}, {_CHECKPOINT.value}, {side}: {value:.3f} s, ratio '
      f'{value / plain:.2f}',
      flush=True,
    )


def measure_rate(ask: Callable[[], bytes]) -> float:
  """Returns the photos per second that several clients get, warm."""
  ask()
  count = 2 * _CLIENTS.value
  with futures.ThreadPoolExecutor(_CLIENTS.value) as pool:
    return count / common.time_call(
      lambda: list(pool.map(lambda _: ask(), range(count)))
    )


@contextlib.contextmanager
def running(server: subprocess.Popen) -> Iterator[None]:
  """Stops a server at the end of the block."""
  try:
    yield
  finally:
    server.send_signal(signal.SIGTERM)
    server.wait()


def start_rembg(command: str) -> tuple[subprocess.Popen, str]:
  """Returns rembg's server and the address to ask, once it answers."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    port = probe.getsockname()[1]
  server = subprocess.Popen(
    [*shlex.split(command), 's', '--host', '127.0.0.1', '--port', str(port)],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  while server.poll() is None:
    with socket.socket() as probe:
      if not probe.connect_ex(('127.0.0.1', port)):
        return server, f'http://127.0.0.1:{port}/api/remove'
    time.sleep(0.5)
  raise SystemExit('rembg did not start.')


def measure(folder: Path) -> None:
  """Prints the figures."""
  with contextlib.ExitStack() as stack:
    photo = folder / 'a.jpg'
    width, height = map(int, _SIZE.value.split('x'))
    common.draw_photo(photo, (width, height))
    own, url = common.start_server(_CHECKPOINT.value)
    stack.enter_context(running(own))
    measure_calls(url, photo)
    ask = functools.partial(post, content=photo.read_bytes())
    asks = {
      'this server': functools.partial(ask, f'{url}api/remove', fields={})
    }
    if _REMBG.value:
      rembg, address = start_rembg(_REMBG.value)
      stack.enter_context(running(rembg))
      fields = {'model': 'u2netp'}
      asks['rembg s'] = functools.partial(ask, address, fields=fields)
    rates = common.repeat_in_turn(
      {name: functools.partial(measure_rate, asks[name]) for name in asks},
      _ROUNDS,
    )
    for name, values in rates.items():
      print(
        f'{name}, {_CLIENTS.value} clients: {statistics.median(values):.2f} '
        'photos/s'
      )


if __name__ == '__main__':
  common.run(measure)
