r"""Trains the network of `--refine=learned`.

```bash
python -m rmbg_jax.train_refiner --config=refiner \
  --config.data.dir=ALPHAS --config.data.backgrounds=PHOTOS
```
"""

from pathlib import Path

from data_pipelines import cli
from data_pipelines.io import files
from rmbg_jax import command_line

_CONFIG = command_line.define_config(
  'Configuration: the path of a file, or the name of one in configs/.'
)
_WORKDIR = cli.define_path(
  'workdir',
  None,
  'Folder for compositions and checkpoints; a training found there is resumed. '
  'Default: runs/NAME, with the name of the configuration.',
)


def main() -> None:
  """Runs the training that the flags describe."""
  # Imported here, so that --help and a wrong flag are answered at once.
  from rmbg_jax import runtime
  from rmbg_jax.refining import training

  runtime.start()
  workdir = Path(_WORKDIR.value or Path('runs') / _CONFIG.value.name)
  files.check_folder(workdir, 'workdir')
  training.train(_CONFIG.value, workdir)
  print(
    'Complete. Use it: python -m rmbg_jax.predict --refine=learned '
    f'--refiner={workdir} --input=PHOTOS --output=OUT'
  )


def run() -> None:
  """Runs the command line."""
  command_line.run(main, __name__)


if __name__ == '__main__':
  run()
