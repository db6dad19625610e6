"""Times one HTTP call beside `predict`, and requests per second of 8 clients.

```bash
python -m scripts.benchmarks.http_calls
```

http: a 1500x1000 JPEG to `/api/remove` of a server in another process, cut-out
  back.
predict: the same photo, from its file to the file of its cut-out, in this
  process.

Both are warm and take turns. With `--rembg` (the command of an installed rembg)
its server, with U2-Net-p, is asked by as many clients, in turns too.
Needs `pip install -e '.[app]'`.
"""

import functools
import shlex
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
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
_REMBG = flags.DEFINE_string('rembg', '', 'Such as /path/to/bin/rembg.')
_ROUNDS = 3
_FIELDS = {'rembg s': {'model': 'u2netp'}}


def post(
  url: str, content: bytes, fields: Mapping[str, str] | None = None
) -> bytes:
  """Returns the answer to a photo, with more fields of the form."""
  import httpx

  answer = httpx.post(
    url, files={'file': ('a.jpg', content)}, data=fields, timeout=300
  )
  answer.raise_for_status()
  return answer.content


def measure_call(url: str, photo: Path, checkpoint: str, calls: int) -> None:
  """Prints the median seconds of a call and of predict, and their ratio."""
  from rmbg_jax import runtime

  runtime.start()
  predict = common.make_predict(checkpoint, photo, ('cutout',))

  def ask():
    return post(url, photo.read_bytes())

  if ask() != predict().read_bytes():
    raise SystemExit('The call and predict disagree.')
  seconds = common.time_in_turn({'call': ask, 'predict': predict}, calls)
  call, plain = seconds.values()
  print(
    f'1500x1000, {checkpoint}: {call:.3f} s by HTTP, {plain:.3f} s by predict, '
    f'ratio {call / plain:.2f}',
    flush=True,
  )


def measure_rate(ask: Callable[[], bytes], clients: int) -> float:
  """Returns photos per second that several clients get."""
  with futures.ThreadPoolExecutor(clients) as pool:
    began = time.perf_counter()
    list(pool.map(lambda _: ask(), range(2 * clients)))
    return 2 * clients / (time.perf_counter() - began)


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


def main(argv: list[str]) -> None:
  """Prints the figures."""
  common.begin(argv)
  checkpoint = _CHECKPOINT.value
  own, url = common.start_server(checkpoint)
  urls, servers = {'this server': f'{url}api/remove'}, [own]
  try:
    if _REMBG.value:
      rembg, urls['rembg s'] = start_rembg(_REMBG.value)
      servers.append(rembg)
    with tempfile.TemporaryDirectory() as name:
      photo = Path(name) / 'photo.jpg'
      common.draw_photo(photo)
      measure_call(urls['this server'], photo, checkpoint, _REPEATS.value)
      content = photo.read_bytes()
      asks = {
        name: functools.partial(post, address, content, _FIELDS.get(name))
        for name, address in urls.items()
      }
      rates = {name: [] for name in urls}
      for _ in range(_ROUNDS):
        for name, ask in asks.items():
          ask()  # Warm.
          rates[name].append(measure_rate(ask, _CLIENTS.value))
    for name, values in rates.items():
      print(
        f'{name}, {_CLIENTS.value} clients: {statistics.median(values):.2f} '
        'photos/s'
      )
  finally:
    for server in servers:
      server.send_signal(signal.SIGTERM)
      server.wait()


if __name__ == '__main__':
  cli.run(main, __name__)
