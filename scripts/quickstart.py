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
from pathlib import Path

import bootstrap

PHOTOS = 'docs/images/photos'
WORKDIR = 'runs/quickstart'


def main() -> None:
  """Runs the steps."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    '--output', default='quickstart_output', help='Folder for the results.'
  )
  parser.add_argument(
    '--workdir', default=WORKDIR, help='Folder of the training.'
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
  output = Path(arguments.output)

  began = announce('1/3 Setting up: some minutes the first time, then none.')
  python = (
    sys.executable
    if arguments.no_install
    else bootstrap.prepare('requirements.txt')
  )
  finish(began)

  began = announce('2/3 Cutting out four photographs: half a minute or less.')
  sheet = cut_out(python, output)
  finish(began)
  print(f'Look at {sheet}: photo, mask and cut-out.')
  print('Your own photos, now or after what follows:')
  if not arguments.no_install:
    print(f'  {bootstrap.ACTIVATE}   # in every new shell')
  print('  python -m rmbg_jax.predict --input=PHOTOS --output=OUT', flush=True)
  if not arguments.no_open:
    open_picture(bootstrap.ROOT / sheet)

  began = announce(
    '3/3 Training a network from nothing, on drawn pictures, to show that '
    'training works: two to five minutes the first time (Ctrl-C ends it).'
  )
  demo = train(python, output / 'demo', arguments.workdir, overrides)
  finish(began)
  print(f'Look at {demo}: pictures that it had not seen.')


def cut_out(python: str | Path, output: Path) -> Path:
  """Cuts out the photographs with the weights that come with the project.

  Returns:
    The picture with all of them.
  """
  bootstrap.run(
    [python, '-m', 'rmbg_jax.predict', f'--input={PHOTOS}/*.jpg']
    + [f'--output={output}', '--save=mask,cutout']
  )
  return make_sheet(python, Path(PHOTOS), output, cell=200, columns=1)


def train(
  python: str | Path, output: Path, workdir: str, overrides: list[str]
) -> Path:
  """Trains the demo network and shows what it does.

  Returns:
    The picture with its results on pictures that it had not seen.
  """
  pictures = output / 'pictures'
  # Other pictures than those of the training: another seed.
  bootstrap.run(
    [python, '-m', 'data_pipelines.demo', f'--output={pictures}', '--count=12']
    + ['--size=320', '--seed=7']
  )
  bootstrap.run(
    [python, '-m', 'rmbg_jax.main', '--config=configs/demo.py']
    + [f'--workdir={workdir}', *overrides]
  )
  bootstrap.run(
    [python, '-m', 'rmbg_jax.predict', f'--checkpoint={workdir}']
    + [f'--input={pictures / "Images"}', f'--output={output}']
    + ['--save=mask,cutout']
  )
  return make_sheet(python, pictures / 'Images', output, cell=120, columns=2)


def make_sheet(
  python: str | Path, photos: Path, output: Path, *, cell: int, columns: int
) -> Path:
  """Puts photos and results on one picture; returns its path."""
  sheet = output / 'sheet.png'
  bootstrap.run(
    [python, '-m', 'scripts.contact_sheet', f'--input={photos}']
    + [f'--results={output}', f'--output={sheet}']
    + [f'--cell={cell}', f'--columns={columns}']
  )
  return sheet


def open_picture(path: Path) -> None:
  """Shows a picture as the desktop does; without a desktop, nothing."""
  if sys.platform == 'win32':
    os.startfile(path)
    return
  if sys.platform == 'darwin':
    command = 'open'
  elif os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY'):
    command = 'xdg-open'
  else:
    return
  # Without such a program, the printed path is enough.
  with contextlib.suppress(OSError):
    # On its own: it neither writes here nor ends with Ctrl-C.
    subprocess.Popen(
      [command, str(path)],
      stdin=subprocess.DEVNULL,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      start_new_session=True,
    )


def announce(title: str) -> float:
  """Prints what is done next; returns the time."""
  print(f'\n{title}', flush=True)
  return time.monotonic()


def finish(began: float) -> None:
  """Prints how long it took."""
  print(f'Took {time.monotonic() - began:.0f} s.', flush=True)


if __name__ == '__main__':
  bootstrap.start(main)
