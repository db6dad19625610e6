"""Sets everything up, cuts out photographs, and trains a demo network.

```bash
python3 scripts/quickstart.py
```

Needs Python 3.11 or newer and, the first time, access to PyPI. The photographs
and the weights come with the project. Run again, it finds the environment and
the trained network and only cuts out.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import bootstrap

PHOTOS = 'docs/images/photos'


def main() -> None:
  """Runs the steps."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    '--output', default='quickstart_output', help='Folder for the results.'
  )
  parser.add_argument(
    '--workdir', default='runs/quickstart', help='Folder of the training.'
  )
  parser.add_argument(
    '--no-install',
    action='store_true',
    help='Use the Python this is run with, as it is.',
  )
  parser.add_argument(
    '--no-open',
    action='store_true',
    help='Do not open the picture of the results.',
  )
  # The rest goes to the training, such as --config.train.epochs=2.
  arguments, overrides = parser.parse_known_args()
  # What it starts runs in the project's folder.
  output = Path(arguments.output).absolute()
  workdir = Path(arguments.workdir).absolute()
  python = sys.executable

  with announcing('1/3 Setting up: some minutes the first time, then none.'):
    if not arguments.no_install:
      python = bootstrap.prepare('requirements.txt')

  def make_sheet(photos, results, *options):
    sheet = results / 'sheet.png'
    bootstrap.run(
      [python, '-m', 'scripts.contact_sheet', f'--input={photos}']
      + [f'--results={results}', f'--output={sheet}', '--overwrite', *options]
    )
    return sheet

  predict = [python, '-m', 'rmbg_jax.predict', '--save=mask,cutout']
  with announcing('2/3 Cutting out four photographs: half a minute or less.'):
    bootstrap.run([*predict, f'--input={PHOTOS}/*.jpg', f'--output={output}'])
    sheet = make_sheet(PHOTOS, output, '--cell=200', '--columns=1')
  print(f'Look at {sheet}: photo, mask and cut-out.')
  print('Your own photos, now or after what follows:')
  if not arguments.no_install:
    print(f'  {bootstrap.ACTIVATE}   # in every new shell')
  print('  python -m rmbg_jax.predict --input=PHOTOS --output=OUT', flush=True)
  if not arguments.no_open:
    open_picture(sheet)

  with announcing(
    '3/3 Training a network from nothing, on drawn pictures, to show that '
    'training works: one to three minutes the first time (Ctrl-C ends it).'
  ):
    # Other pictures than those of the training: another seed.
    pictures, demo = output / 'demo/pictures', output / 'demo'
    bootstrap.run(
      [python, '-m', 'data_pipelines.demo', f'--output={pictures}']
      + ['--count=12', '--size=320', '--seed=7']
    )
    bootstrap.run(
      [python, '-m', 'rmbg_jax.main', '--config=configs/demo.py']
      + [f'--workdir={workdir}', *overrides]
    )
    bootstrap.run(
      [*predict, f'--checkpoint={workdir}']
      + [f'--input={pictures / "Images"}', f'--output={demo}']
    )
    sheet = make_sheet(pictures / 'Images', demo, '--cell=120', '--columns=2')
  print(f'Look at {sheet}: pictures that it had not seen.')


@contextlib.contextmanager
def announcing(title: str) -> 'Iterator[None]':
  """Prints what is done, and then how long it took."""
  print(f'\n{title}', flush=True)
  began = time.monotonic()
  yield
  print(f'Took {time.monotonic() - began:.0f} s.', flush=True)


def open_picture(path: Path) -> None:
  """Shows a picture as the desktop does; without a desktop, nothing."""
  if sys.platform == 'win32':
    os.startfile(path)
    return
  is_mac = sys.platform == 'darwin'
  if not (is_mac or {'DISPLAY', 'WAYLAND_DISPLAY'} & set(os.environ)):
    return
  # Without such a program, the printed path is enough.
  with contextlib.suppress(OSError):
    # On its own: it neither writes here nor ends with Ctrl-C.
    subprocess.Popen(
      ['open' if is_mac else 'xdg-open', str(path)],
      stdin=subprocess.DEVNULL,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      start_new_session=True,
    )


if __name__ == '__main__':
  bootstrap.start(main)
