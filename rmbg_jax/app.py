"""A page in the browser to cut out photos on, and HTTP calls for programs.

```bash
pip install -e '.[app]'
python -m rmbg_jax.app --checkpoint=runs/lite,released
```

The page is for this machine alone unless `--host` says otherwise.
"""

import os
import signal
import sys
import tempfile
from pathlib import Path

from absl import flags
from PIL import Image

from data_pipelines import cli
from data_pipelines.io import errors, files
from rmbg_jax import runtime_flags


def main() -> None:
  """Serves the page until SIGINT or SIGTERM."""
  # Exit normally, so that the folders below are deleted.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
  # Uploads and results are gone when the page is.
  with tempfile.TemporaryDirectory(
    prefix='rmbg_jax_app_', dir=os.environ.get('GRADIO_TEMP_DIR')
  ) as folder:
    _serve(Path(folder).resolve())


def _serve(folder: Path) -> None:
  values = flags.FLAGS
  errors.check_extra('app', 'The page needs Gradio', 'gradio')
  if not values.checkpoint:
    raise errors.UserError('--checkpoint is empty. Pass at least one.')
  # Gradio reads these at import.
  os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
  os.environ['GRADIO_RUN_HISTORY'] = 'False'
  os.environ['GRADIO_TEMP_DIR'] = str(folder)
  from rmbg_jax.inference import runtimes
  from rmbg_jax.web import options as options_lib
  from rmbg_jax.web import server as server_lib
  from rmbg_jax.web import service as service_lib
  from rmbg_jax.weights import onnx_published

  keys = _read_keys(values.api_key_file) if values.api_key_file else ()
  # Before the network is loaded: a port that is taken is said at once.
  listening = server_lib.bind(values.host, values.port)
  options = runtime_flags.make_options()
  runtimes.start_process(options['runtime'])
  Image.MAX_IMAGE_PIXELS = None  # Photos are held against --max_pixels.
  checkpoints = dict.fromkeys(values.checkpoint + onnx_published.list_present())
  service = service_lib.Service(
    list(checkpoints),
    limits=options_lib.Limits(
      pixels=values.max_pixels,
      megabytes=values.max_megabytes,
      files=values.max_files,
    ),
    folder=folder / 'results',
    options=options,
  )
  server = server_lib.make_server(
    server_lib.make_application(
      service,
      keys=keys,
      queue=values.queue,
      folder=folder / 'bodies',
      root_path=values.root_path,
    )
  )
  # It listens already: who comes now waits for the server.
  url = server_lib.find_url(listening, values.host)
  print(
    f'The page is at {url} (Ctrl-C ends it), one HTTP call at {url}api/remove',
    flush=True,
  )
  try:
    server.run([listening])  # Ends by raising what SIGINT and SIGTERM raise.
  except KeyboardInterrupt:
    raise SystemExit(130) from None
  finally:
    print('The page is closed.')


def _read_keys(path: str) -> tuple[bytes, ...]:
  """Returns the keys in a file, one a line.

  Raises:
    UserError: if there is none, no such file, or it is no text.
  """
  keys: tuple[bytes, ...] = ()
  fault: str | None = 'no key in it'
  try:
    lines = files.to_utf8(Path(path).read_bytes()).splitlines()
    keys = tuple(line.strip() for line in lines if line.strip())
  except OSError as error:
    fault = error.strerror
  except ValueError as error:
    fault = f'not a text ({error})'
  if not keys:
    raise errors.UserError(
      f'--api_key_file={path}: {fault}. Pass a text in UTF-8 with a key on '
      'each line.'
    )
  return keys


def _define_flags() -> None:
  flags.adopt_module_key_flags(runtime_flags)  # For --help.
  cli.define_paths(
    'checkpoint',
    ['released'],
    'What the page offers, the first as the default; each as predict takes it. '
    'Those that are downloaded already are offered as well.',
    urls=('hf',),
  )
  flags.DEFINE_string(
    'host', '127.0.0.1', '0.0.0.0 lets other machines see the page.'
  )
  flags.DEFINE_integer(
    'port',
    None,
    'By default the first free from 7860 on; 0 for any.',
    lower_bound=0,
    upper_bound=65535,
  )
  flags.DEFINE_string(
    'root_path',
    '',
    'The path below which a proxy shows the page, such as /cutout.',
  )
  for name, most, text in (
    ('max_pixels', 50_000_000, 'Refuse photos with more.'),
    ('max_megabytes', 30, 'Refuse larger files.'),
    ('max_files', 20, 'Refuse more photos at once.'),
    ('queue', 64, 'Refuse requests when so many are waiting.'),
  ):
    flags.DEFINE_integer(name, most, text, lower_bound=1)
  cli.define_path(
    'api_key_file',
    '',
    'A file with keys, one a line: HTTP calls must then have one of them in '
    'X-Api-Key, and the page asks for one as its password.',
  )


def run() -> None:
  """Runs the command line."""
  _define_flags()
  cli.run(main, __name__)


if __name__ == '__main__':
  run()
