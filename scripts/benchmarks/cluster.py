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
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

from absl import flags

from scripts.benchmarks import common

PAGE = 1000  # Names, as S3 gives them.
SETTLED = 0.1  # Share of the photos that are not timed.

_CASES = flags.DEFINE_list('cases', ['engines'], 'Of engines, names.')
_COUNT = flags.DEFINE_integer(
  'count', 500, 'Of photos or names.', lower_bound=20
)


def make_command(source: str | Path, output: Path, *flags: str) -> list[str]:
  """Returns the command that does the photos of a place."""
  command = [sys.executable, '-m', 'rmbg_jax.predict', f'--input={source}']
  return [*command, f'--output={output}', *flags]


def measure_engines(folder: Path) -> None:
  """Prints both engines' starts and speeds."""
  photos = folder / 'photos'
  common.make_photos(photos, _COUNT.value, (1500, 1000))
  speeds = {}
  for engine in ('local', 'ray'):
    output = folder / engine
    began = time.time()
    common.run_process(*make_command(photos, output, f'--engine={engine}'))
    ended = time.time()
    times = sorted(path.stat().st_mtime for path in output.glob('cutout/*'))
    settled = int(SETTLED * len(times))
    speed = (len(times) - 1 - settled) / (times[-1] - times[settled])
    print(
      f'{engine}: first result after {times[0] - began:.1f} s, then '
      f'{speed:.2f} photos/s, {ended - began:.0f} s in all',
      flush=True,
    )
    speeds[engine] = speed
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


def count_listed(output: Path) -> int:
  """Returns how many names are in the parts of a manifest."""
  return sum(
    len(task['photo'])
    for part in output.glob('report/manifest-*/[0-9]*.json')
    for task in json.loads(part.read_bytes())['tasks']
  )


def measure_names(folder: Path) -> None:
  """Prints time and memory that many names take."""
  from PIL import Image

  count = _COUNT.value
  file = io.BytesIO()
  Image.new('RGB', (60, 40), 'grey').save(file, 'jpeg')
  _Names.count, _Names.photo = count, file.getvalue()
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Names)
  # Says nothing of connections that end with the command.
  server.handle_error = lambda *_: None
  threading.Thread(target=server.serve_forever, daemon=True).start()
  output, log = folder / 'names', folder / 'names.log'
  store = {
    'AWS_ENDPOINT_URL': f'http://127.0.0.1:{server.server_port}',
    'AWS_ACCESS_KEY_ID': 'none',
    'AWS_SECRET_ACCESS_KEY': 'none',
    'AWS_DEFAULT_REGION': 'us-east-1',
  }
  options = 's3://bucket/photos', output, '--engine=ray', '--save=mask'
  began = time.time()
  with log.open('w') as messages:
    process = subprocess.Popen(
      make_command(*options),
      cwd=common.ROOT,
      env={**os.environ, **store},
      stdout=messages,
      stderr=subprocess.STDOUT,
    )
  first = last = None
  seen = -1
  while not (first and last):
    time.sleep(0.2)
    if process.poll() is not None:
      raise SystemExit(log.read_text()[-2000:])
    if not first and any(output.glob('mask/*.png')):
      first = time.time() - began
    parts = len(list(output.glob('report/manifest-*/[0-9]*.json')))
    if not last and parts != seen:
      seen = parts
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


def measure(folder: Path) -> None:
  """Runs the chosen cases."""
  # Ignored in the background of a shell, and then by the command as well.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  cases = {'engines': measure_engines, 'names': measure_names}
  for measure_case in common.choose(_CASES, cases).values():
    measure_case(folder)


if __name__ == '__main__':
  common.run(measure)
