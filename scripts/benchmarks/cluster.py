"""Measures `predict --engine=ray` on this machine, beside the local engine.

```bash
python -m scripts.benchmarks.cluster --cases=engines --count=500
python -m scripts.benchmarks.cluster --cases=names --count=1000000
```

engines: photos of 1500x1000 by both engines, one after the other: seconds to
  the first result, and photos per second after it.
names: names on a store that has nothing but its listing and one small photo for
  all of them: the driver's peak memory once all are listed, and the seconds to
  the first result and to the last name. Ends then, as by Ctrl-C.

Needs the extras cluster and s3.
"""

import http.server
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

from absl import flags
from PIL import Image

from scripts.benchmarks import common

PAGE = 1000  # Names, as S3 gives them.
SETTLED = 0.1  # Share of the photos that are not timed.

_COUNT = flags.DEFINE_integer(
  'count', 500, 'Of photos or names.', lower_bound=20
)


def measure_engines(folder: Path) -> None:
  """Prints both engines' starts and speeds."""
  photos = folder / 'photos'
  common.make_photos(photos, _COUNT.value, (1500, 1000))
  common.print_head('--engine', 'first result after, s', 'photos/s', 'in all')
  for engine in ('local', 'ray'):
    began = time.time()
    common.run_python(
      *('-m', 'rmbg_jax.predict', f'--engine={engine}', f'--input={photos}'),
      f'--output={folder / engine}',
    )
    whole, results = time.time() - began, (folder / engine).glob('cutout/*')
    times = sorted(path.stat().st_mtime for path in results)
    times = times[int(SETTLED * len(times)) :]
    speed = (len(times) - 1) / (times[-1] - times[0])
    common.print_row(engine, times[0] - began, speed, whole)


class _Names(http.server.BaseHTTPRequestHandler):
  """A store with as many names as it is told, and one photo behind them."""

  protocol_version = 'HTTP/1.1'
  photo = b''

  def log_message(self, *_: object) -> None:
    """Says nothing."""

  def do_GET(self):  # noqa: N802 (The library's name for it.)
    """Answers with a page of names, or with the photo."""
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
    body, kind = self.photo, 'image/jpeg'
    if 'list-type' in query:
      begin = int(query.get('continuation-token', ['0'])[0])
      end = min(begin + PAGE, _COUNT.value)
      names = ''.join(
        f'<Contents><Key>photos/{index:09}.jpg</Key><Size>1</Size></Contents>'
        for index in range(begin, end)
      )
      more = str(end < _COUNT.value).lower()
      page = (
        f'<ListBucketResult><IsTruncated>{more}</IsTruncated>'
        f'<NextContinuationToken>{end}</NextContinuationToken>{names}'
        '</ListBucketResult>'
      )
      body, kind = page.encode(), 'application/xml'
    self.send_response(200)
    self.send_header('Content-Type', kind)
    self.send_header('Content-Length', str(len(body)))
    self.end_headers()
    self.wfile.write(body)


def measure_names(folder: Path) -> None:
  """Prints time and memory that many names take."""
  # Ignored in the background of a shell, and then by the command as well.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  Image.new('RGB', (60, 40), 'grey').save(folder / 'photo.jpg')
  _Names.photo = (folder / 'photo.jpg').read_bytes()
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Names)
  # Says nothing of connections that end with the command.
  server.handle_error = lambda *_: None
  threading.Thread(target=server.serve_forever, daemon=True).start()
  store = {
    'AWS_ENDPOINT_URL': f'http://127.0.0.1:{server.server_port}',
    'AWS_ACCESS_KEY_ID': 'none',
    'AWS_SECRET_ACCESS_KEY': 'none',
    'AWS_DEFAULT_REGION': 'us-east-1',
  }
  began, output, log = time.time(), folder / 'out', folder / 'log'
  with log.open('w') as messages:
    process = subprocess.Popen(
      [sys.executable, '-m', 'rmbg_jax.predict', '--input=s3://bucket/photos']
      + [f'--output={output}', '--engine=ray', '--save=mask'],
      cwd=common.ROOT,
      env={**os.environ, **store},
      stdout=messages,
      stderr=subprocess.STDOUT,
    )
  first = last = 0.0
  while not (first and last):
    time.sleep(0.2)
    if process.poll() is not None:
      raise SystemExit(log.read_text()[-2000:])
    if not first and any(output.glob('mask/*.png')):
      first = time.time() - began
    # The manifest's last part says so at its end.
    parts = sorted(output.glob('report/manifest-*/[0-9]*.json'))
    if not last and parts and parts[-1].read_bytes().endswith(b'true}'):
      last = time.time() - began
  peak = common.read_peak_mb(process.pid)
  process.send_signal(signal.SIGINT)
  process.wait()
  print(
    f'{_COUNT.value:,} names: first result after {first:.1f} s, all listed '
    f'after {last:.0f} s, driver at most {peak:.0f} MB'
  )


if __name__ == '__main__':
  common.run({'engines': measure_engines, 'names': measure_names})
