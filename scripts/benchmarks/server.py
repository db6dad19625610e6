"""Times the page and HTTP calls for a photo beside what `predict` does for it.

```bash
python -m scripts.benchmarks.server
```

page: from the upload of a JPEG to the downloaded mask and cut-out, through
  gradio_client and a server in another process.
call: the same photo to `/api/remove` of that server, cut-out back.
predict: from its file to the files of mask and cut-out, in this process.

All are warm and take turns; seconds of the processor leave out the server's.
Then the photos a second that 8 clients get by calls; with `--rembg` (the
command of an installed rembg), those of its server with U2-Net-p too. Needs
`pip install -e '.[app]'`.
"""

import contextlib
import functools
import shlex
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import httpx
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


@contextlib.contextmanager
def serving(*command: str) -> Iterator[str]:
  """Runs a server, which gets a port; returns its address, once it answers."""
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    port = probe.getsockname()[1]
  url = f'http://127.0.0.1:{port}'
  server = subprocess.Popen(
    [part.format(port=port) for part in command],
    cwd=common.ROOT,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  try:
    while server.poll() is None:
      with contextlib.suppress(httpx.TransportError):
        httpx.get(url, timeout=60)
        break
      time.sleep(0.5)
    else:
      raise SystemExit(f'It did not start: {" ".join(command)}')
    yield url
  finally:
    server.terminate()
    server.wait()


def post(url: str, photo: Path, **fields: str) -> bytes:
  """Returns the answer to a photo, with more fields of the form."""
  file = ('a.jpg', photo.read_bytes())
  answer = httpx.post(url, files={'file': file}, data=fields, timeout=300)
  return answer.raise_for_status().content


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
    return Path(cutouts[0])

  predict = common.make_predict(_CHECKPOINT.value, photo, ('mask', 'cutout'))
  call = functools.partial(post, f'{url}/api/remove', photo)
  made = predict() / f'cutout/{photo.stem}.png'
  if not ask_page().read_bytes() == call() == made.read_bytes():
    raise SystemExit('The page, the call and predict disagree.')
  common.compare(
    f'{_SIZE.value}, {_CHECKPOINT.value}',
    {'page': ask_page, 'call': call, 'predict': predict},
    _REPEATS.value,
  )
  client.close()


def measure(folder: Path) -> None:
  """Prints the figures."""
  common.make_photos(
    folder / 'photos', 1, tuple(map(int, _SIZE.value.split('x')))
  )
  photo = folder / 'photos/00000.jpg'
  with contextlib.ExitStack() as stack:
    url = stack.enter_context(
      serving(
        *(sys.executable, '-m', 'rmbg_jax.app', '--port={port}'),
        f'--checkpoint={_CHECKPOINT.value}',
      )
    )
    measure_calls(url, photo)
    asks = {'this server': functools.partial(post, f'{url}/api/remove', photo)}
    if _REMBG.value:
      command = *shlex.split(_REMBG.value), 's', '--host', '127.0.0.1'
      url = stack.enter_context(serving(*command, '--port', '{port}'))
      asks['rembg s'] = functools.partial(
        post, f'{url}/api/remove', photo, model='u2netp'
      )
    pool = stack.enter_context(futures.ThreadPoolExecutor(_CLIENTS.value))

    def measure_rate(ask):
      ask()
      count = 2 * _CLIENTS.value
      calls = common.time_call(
        lambda: list(pool.map(lambda _: ask(), range(count)))
      )
      return count / calls.clock

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
