"""Times the page for one photo beside what `predict` does for it.

```bash
python -m scripts.benchmarks.app
```

page: from the upload of a 1500x1000 JPEG to the downloaded mask and cut-out,
  through gradio_client and a server in another process.
predict: the same photo, from its file to the files of mask and cut-out, in
  this process.

Both are warm and take turns. Needs `pip install -e '.[app]'`.
"""

import signal
import tempfile
from pathlib import Path

from absl import flags

from data_pipelines import cli
from scripts.benchmarks import common

_CHECKPOINT = cli.define_path(
  'checkpoint', 'released', 'As `predict` takes it.'
)
_REPEATS = flags.DEFINE_integer('repeats', 15, 'Timed calls of each.')


def measure(checkpoint: str, repeats: int) -> None:
  """Prints the median seconds of both, and their ratio."""
  import gradio_client

  from rmbg_jax import runtime

  runtime.start()
  server, url = common.start_server(checkpoint)
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    photo = folder / 'photo.jpg'
    common.draw_photo(photo)
    client = gradio_client.Client(
      url,
      verbose=False,
      analytics_enabled=False,
      download_files=folder / 'downloads',
    )

    def ask_page():
      photos = [gradio_client.handle_file(photo)]
      cutouts, _, _ = client.predict(photos, api_name='/remove_background')
      return Path(cutouts[0])

    predict = common.make_predict(checkpoint, photo, ('mask', 'cutout'))
    if ask_page().read_bytes() != predict().read_bytes():
      raise SystemExit('The page and predict disagree.')
    seconds = common.time_in_turn(
      {'page': ask_page, 'predict': predict}, repeats
    )
    client.close()
  server.send_signal(signal.SIGTERM)
  server.wait()
  page, plain = seconds.values()
  print(
    f'1500x1000, {checkpoint}: {page:.3f} s through the page, {plain:.3f} s by '
    f'predict, ratio {page / plain:.2f}'
  )


def main(argv: list[str]) -> None:
  """Prints the figures."""
  common.begin(argv)
  measure(_CHECKPOINT.value, _REPEATS.value)


if __name__ == '__main__':
  cli.run(main, __name__)
