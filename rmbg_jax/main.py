"""Trains a network: `python -m rmbg_jax.main --config=configs/demo.py`."""

from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
  'config', None, 'Configuration file, see configs/.', lock_config=True
)
_WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  'Folder for checkpoints, logs and pictures; a training found there is '
  'resumed. Default: runs/NAME, with the name of the configuration.',
)


def main(argv: list[str]) -> None:
  """Runs the training that the flags describe."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  logging.set_verbosity(logging.WARNING)  # Orbax and JAX are talkative.
  # Imported here, so that --help and a wrong flag are answered at once.
  from rmbg_jax import train

  workdir = Path(_WORKDIR.value or Path('runs') / _CONFIG.value.name)
  try:
    train.train_and_evaluate(_CONFIG.value, workdir)
  except (ValueError, FileNotFoundError, FloatingPointError) as error:
    raise SystemExit(f'Error: {error}') from error


def run() -> None:
  """The command line's entry point."""
  flags.mark_flag_as_required('config')
  app.run(main)


if __name__ == '__main__':
  run()
