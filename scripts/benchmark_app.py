"""Times the page for one photo beside what `predict` does for it.

```bash
python scripts/benchmark_app.py
```

page: from the upload of a 1500x1000 JPEG to the downloaded mask and cut-out,
  through gradio_client and a server in another process.
predict: the same photo, from its file to the files of mask and cut-out, in
  this process.

Both are warm and take turns. Needs `pip install '.[app]'`.
"""

import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from absl import app, flags
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'

from data_pipelines import parallel
from rmbg_jax import command_line

_CHECKPOINT = command_line.define_path(
  'checkpoint', 'released', 'As `predict` takes it.'
)
_REPEATS = flags.DEFINE_integer('repeats', 15, 'Timed calls of each.')


def start_server(checkpoint: str) -> tuple[subprocess.Popen, str]:
  """Returns the page's process and its address, once it answers."""
  server = subprocess.Popen(
    [sys.executable, '-m', 'rmbg_jax.app', f'--checkpoint={checkpoint}'],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    text=True,
  )
  for line in server.stdout:
    if found := re.search(r'http://\S+', line):
      return server, found.group()
  raise SystemExit('The page did not start.')


def make_photo(path: Path) -> None:
  """Writes a JPEG of 1500x1000 pixels with figures before a background."""
  from data_pipelines import demo

  pixels, _, _ = demo.draw_pair(np.random.default_rng(10), (1000, 1500))
  Image.fromarray(pixels).save(path, quality=90)


def measure(checkpoint: str, repeats: int) -> None:
  """Prints the median seconds of both, and their ratio."""
  import gradio_client

  from rmbg_jax import BackgroundRemover, runtime
  from rmbg_jax.prediction import listing, pipeline, rendering

  runtime.start()
  server, url = start_server(checkpoint)
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    make_photo(folder / 'photo.jpg')
    client = gradio_client.Client(
      url,
      verbose=False,
      analytics_enabled=False,
      download_files=folder / 'downloads',
    )
    remover = BackgroundRemover.from_checkpoint(checkpoint)
    jobs = listing.list_jobs(str(folder / 'photo.jpg'))
    task = pipeline.Task(
      output=folder / 'out',
      kinds=('mask', 'cutout'),
      style=rendering.Style(),
      overwrite=True,
    )

    def ask_page():
      photos = [gradio_client.handle_file(folder / 'photo.jpg')]
      cutouts, _, _ = client.predict(photos, api_name='/remove_background')
      return Path(cutouts[0])

    def predict():
      entries = []
      pipeline.run(
        remover, jobs, task, add_entry=entries.append, stop=threading.Event()
      )
      return folder / 'out/cutout/photo.png'

    if ask_page().read_bytes() != predict().read_bytes():
      raise SystemExit('The page and predict disagree.')
    seconds = {ask_page: [], predict: []}
    for _ in range(repeats):
      for function, values in seconds.items():
        began = time.perf_counter()
        function()
        values.append(time.perf_counter() - began)
    client.close()
  server.send_signal(signal.SIGTERM)
  server.wait()
  page, plain = (statistics.median(values) for values in seconds.values())
  print(
    f'1500x1000, {checkpoint}: {page:.3f} s through the page, {plain:.3f} s by '
    f'predict, ratio {page / plain:.2f}'
  )


def main(argv: list[str]) -> None:
  """Prints the figures."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  print(f'{platform.machine()}, {parallel.count_cores()} cores', flush=True)
  measure(_CHECKPOINT.value, _REPEATS.value)


if __name__ == '__main__':
  command_line.run(main, __name__)
