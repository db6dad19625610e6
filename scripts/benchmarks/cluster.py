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
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from absl import flags

from data_pipelines import cli
from scripts.benchmarks import common

CASES = ('engines', 'names')
PAGE = 1000  # Names, as S3 gives them.
SETTLED = 0.1  # Of the photos, that are not timed.


def start(
  source: str,
  output: Path,
  *flags: str,
  log: IO[str],
  environment: Mapping[str, str] | None = None,
) -> subprocess.Popen:
  """Starts the command; returns its process."""
  return subprocess.Popen(
    [
      *(sys.executable, '-m', 'rmbg_jax.predict'),
      *(f'--input={source}', f'--output={output}', *flags),
    ],
    cwd=common.ROOT,
    env={**os.environ, **(environment or {})},
    stdout=log,
    stderr=subprocess.STDOUT,
  )


def measure_engine(folder: Path, engine: str) -> float:
  """Prints a start and a speed; returns the speed in photos per second."""
  output = folder / engine
  with (folder / f'{engine}.log').open('w+') as log:
    before = os.times()
    began = time.time()
    process = start(
      str(folder / 'photos'), output, f'--engine={engine}', log=log
    )
    code = process.wait()
    ended = time.time()
    after = os.times()
    if code:
      log.seek(0)
      raise SystemExit(log.read()[-2000:])
  times = sorted(path.stat().st_mtime for path in output.glob('cutout/*'))
  settled = int(SETTLED * len(times))
  speed = (len(times) - 1 - settled) / (times[-1] - times[settled])
  print(
    f'{engine}: first result after {times[0] - began:.1f} s, then {speed:.2f} '
    f'photos/s, {ended - began:.0f} s in all',
    flush=True,
  )
  if engine == 'local':  # Ray's actors are no children of the command.
    spent = after.children_user + after.children_system
    spent -= before.children_user + before.children_system
    print(f'local: {spent / len(times):.2f} s of one core a photo', flush=True)
  return speed


def measure_engines(folder: Path, count: int) -> None:
  """Prints both engines' starts and speeds."""
  common.make_photos(folder / 'photos', count, (1500, 1000))
  speeds = {name: measure_engine(folder, name) for name in ('local', 'ray')}
  print(f'ray / local: {speeds["ray"] / speeds["local"]:.2f}')


class _Names(http.server.BaseHTTPRequestHandler):
  """A store with as many names as it is told, and one photo behind them."""

  protocol_version = 'HTTP/1.1'
  count = 0
  photo = b''

  def log_message(self, *_: object) -> None:
    """Says nothing."""

  def do_GET(self):  # noqa: N802 (The library's name for it.)
    """Answers with a page of names, or with the photo."""
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
    body, kind = self.photo, 'image/jpeg'
    if 'list-type' in query:
      begin = int(query.get('continuation-token', ['0'])[0])
      end = min(begin + PAGE, self.count)
      names = ''.join(
        f'<Contents><Key>photos/{index:09}.jpg</Key><Size>1</Size></Contents>'
        for index in range(begin, end)
      )
      more = str(end < self.count).lower()
      body, kind = (
        (
          f'<ListBucketResult><IsTruncated>{more}</IsTruncated>'
          f'<NextContinuationToken>{end}</NextContinuationToken>{names}'
          '</ListBucketResult>'
        ).encode(),
        'application/xml',
      )
    self.send_response(200)
    self.send_header('Content-Type', kind)
    self.send_header('Content-Length', str(len(body)))
    self.end_headers()
    self.wfile.write(body)


class _Server(http.server.ThreadingHTTPServer):
  def handle_error(self, *_: object) -> None:
    """Says nothing of connections that end with the command."""


def count_listed(output: Path) -> int:
  """Returns how many names are in the parts of a manifest."""
  import pyarrow.compute as pc
  import pyarrow.parquet as pq

  return sum(
    pc.sum(pc.list_value_length(pq.read_table(part).column('photo'))).as_py()
    or 0
    for part in output.glob('report/manifest-*/[0-9]*.parquet')
  )


def find_parts(output: Path) -> int:
  """Returns how many parts of a manifest there are."""
  return len(list(output.glob('report/manifest-*/[0-9]*.parquet')))


def measure_names(folder: Path, count: int) -> None:
  """Prints what many names take of the driver."""
  from PIL import Image

  file = io.BytesIO()
  Image.new('RGB', (60, 40), 'grey').save(file, 'jpeg')
  _Names.count, _Names.photo = count, file.getvalue()
  server = _Server(('127.0.0.1', 0), _Names)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  output = folder / 'names'
  with (folder / 'names.log').open('w+') as log:
    began = time.time()
    process = start(
      's3://bucket/photos',
      output,
      *('--engine=ray', '--save=mask'),
      log=log,
      environment={
        'AWS_ENDPOINT_URL': f'http://127.0.0.1:{server.server_port}',
        'AWS_ACCESS_KEY_ID': 'none',
        'AWS_SECRET_ACCESS_KEY': 'none',
        'AWS_DEFAULT_REGION': 'us-east-1',
      },
    )
    first = last = None
    seen = -1
    while not (first and last):
      time.sleep(0.2)
      if process.poll() is not None:
        log.seek(0)
        raise SystemExit(log.read()[-2000:])
      if not first and any(output.glob('mask/*.png')):
        first = time.time() - began
      if not last and find_parts(output) != seen:
        seen = find_parts(output)
        if count_listed(output) >= count:
          last = time.time() - began
    status = Path(f'/proc/{process.pid}/status').read_text()
    peak = int(re.search(r'VmHWM:\s+(\d+)', status)[1]) / 1e6
    done = len(list(output.glob('mask/*.png')))
    process.send_signal(signal.SIGINT)
    process.wait()
  server.shutdown()
  print(
    f'{count:,} names: first result after {first:.1f} s, all listed after '
    f'{last:.0f} s, driver at most {peak:.2f} GB ({done} photos done by then)'
  )


def main(argv: list[str]) -> None:
  """Runs the chosen cases."""
  common.begin(argv)
  # Ignored in the background of a shell, and then by the command as well.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    if 'engines' in flags.FLAGS.cases:
      measure_engines(folder, flags.FLAGS.count)
    if 'names' in flags.FLAGS.cases:
      measure_names(folder, flags.FLAGS.count)


if __name__ == '__main__':
  flags.DEFINE_list('cases', ['engines'], f'Of {", ".join(CASES)}.')
  flags.DEFINE_integer('count', 500, 'Of photos or names.', lower_bound=20)
  cli.run(main, __name__)
