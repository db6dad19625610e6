"""Sets everything up, trains on the embedded demo set, cuts out test photos.

```bash
python3 scripts/quickstart.py
```

Needs Python 3.11 or newer and, the first time, access to PyPI. Run again, it
finds the environment and the trained network and only cuts out.
"""

import argparse
import sys
from pathlib import Path

import bootstrap

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
  # The rest goes to the training, such as --config.train.epochs=2.
  arguments, overrides = parser.parse_known_args()
  python = (
    sys.executable
    if arguments.no_install
    else bootstrap.prepare('requirements.txt')
  )
  output = Path(arguments.output)
  photos = output / 'photos'

  # Other pictures than those of the training: another seed.
  bootstrap.run(
    [python, '-m', 'data_pipelines.demo', f'--output={photos}', '--count=12']
    + ['--size=320', '--seed=7']
  )
  bootstrap.run(
    [python, '-m', 'rmbg_jax.main', '--config=configs/demo.py']
    + [f'--workdir={arguments.workdir}', *overrides]
  )
  bootstrap.run(
    [python, '-m', 'rmbg_jax.predict', f'--checkpoint={arguments.workdir}']
    + [f'--input={photos / "Images"}', f'--output={output}']
    + ['--save=mask,cutout,side_by_side']
  )
  print(
    f'Look at {output / "side_by_side"} (photo and result), '
    f'{output / "cutout"} and {output / "mask"}.'
  )
  print('Your own photos, with the weights that come with the project:')
  if not arguments.no_install:
    print(f'  {bootstrap.ACTIVATE}   # in every new shell')
  print('  python -m rmbg_jax.predict --input=PHOTOS --output=OUT')


if __name__ == '__main__':
  bootstrap.start(main)
