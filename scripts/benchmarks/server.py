"""Times the page and HTTP calls for a photo beside what `predict` does for it.

```bash
python -m scripts.benchmarks.server
```

page: from the upload of a JPEG to the downloaded mask and cut-out, through
  gradio_client and a server in another process.
call: the same photo to `/api/remove` of that server, cut-out back.
predict: from its file to the files of mask and cut-out, in this process.

All are warm; seconds of the processor leave out the server's. Then the photos a
second that 8 clients get by calls. Needs requirements-dev.txt.
"""

import functools
import socket
import subprocess
import sys
from concurrent import futures
from pathlib import Path

import gradio_client
import httpx
from absl import flags

from data_pipelines import cli
from rmbg_jax import BackgroundRemover, runtime
from scripts.benchmarks import common

_CHECKPOINT = cli.define_path(
  'checkpoint', 'released', 'As `predict` takes it.'
)
_SIZE = flags.DEFINE_string('size', '1500x1000', 'Of the photo.')
_CLIENTS = 8


def measure_calls(url: str, photo: Path) -> None:
  """Prints the seconds of page, call and predict, and many clients' rate."""
  client = gradio_client.Client(
    url, verbose=False, download_files=photo.parent / 'downloads'
  )

  def ask_page():
    photos = [gradio_client.handle_file(photo)]
    cutouts, _, _ = client.predict(photos, api_name='/remove_background')
    return Path(cutouts[0])

  def call():
    file = {'file': ('a.jpg', photo.read_bytes())}
    answer = httpx.post(f'{url}/api/remove', files=file, timeout=300)
    return answer.raise_for_status().content

  remover = BackgroundRemover.from_checkpoint(_CHECKPOINT.value)
  predict = common.make_predict(remover, photo, ('mask', 'cutout'))
  made = predict() / f'cutout/{photo.stem}.png'
  if not ask_page().read_bytes() == call() == made.read_bytes():
    raise SystemExit('The page, the call and predict disagree.')
  common.compare(
    f'{_SIZE.value}, {_CHECKPOINT.value}',
    {'predict': predict, 'page': ask_page, 'call': call},
  )
  client.close()
  with futures.ThreadPoolExecutor(_CLIENTS) as pool:
    count = 2 * _CLIENTS
    ask = functools.partial(pool.map, lambda _: call(), range(count))
    common.compare(
      'calls', {f'{_CLIENTS} clients': lambda: list(ask())}, count=count
    )


def measure(folder: Path) -> None:
  """Prints the figures of a server."""
  runtime.start()
  size = map(int, _SIZE.value.split('x'))
  common.make_photos(folder / 'photos', 1, tuple(size))
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    port = probe.getsockname()[1]
  url = f'http://127.0.0.1:{port}'
  with subprocess.Popen(
    [sys.executable, '-m', 'rmbg_jax.app', f'--port={port}']
    + [f'--checkpoint={_CHECKPOINT.value}'],
    cwd=common.ROOT,
    stdout=subprocess.DEVNULL,
  ) as server:
    try:
      # Until it listens, for up to a minute.
      patient = httpx.HTTPTransport(retries=8)
      httpx.Client(transport=patient).get(url, timeout=60)
      measure_calls(url, folder / 'photos/00000.jpg')
    finally:
      server.terminate()


if __name__ == '__main__':
  common.run({'calls': measure})
