"""Trains a network: `python -m rmbg_jax.main --config=demo`.

A configuration of the project goes by its name too, from any folder:
`--config=demo`.
"""

from pathlib import Path

from absl import flags

from data_pipelines import cli
from data_pipelines.io import errors, files
from rmbg_jax import command_line

_CONFIG = command_line.define_config(
  'Configuration: the path of a file, or the name of one in configs/.'
)
_WORKDIR = cli.define_path(
  'workdir',
  None,
  'Folder for checkpoints, logs and pictures; a training found there is '
  'resumed. Default: runs/NAME, with the name of the configuration.',
)
_DISTRIBUTED = flags.DEFINE_bool(
  'distributed',
  False,
  'Train on several hosts together, as SLURM, Open MPI or Kubernetes started '
  'the processes. Elsewhere, pass the next three flags instead.',
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator', None, 'HOST:PORT of process 0, the same for every process.'
)
_NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'How many.')
_PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Which, from 0.')


def main() -> None:
  """Runs the training that the flags describe."""
  # Imported here, so that --help and a wrong flag are answered at once.
  import jax

  from rmbg_jax import runtime
  from rmbg_jax.training import loop

  numbers = _NUM_PROCESSES.value, _PROCESS_ID.value
  address = _COORDINATOR.value or ''
  if ':' not in address and (address or numbers != (None, None)):
    raise errors.UserError(
      f'--coordinator={address}: pass HOST:PORT of process 0, which '
      '--num_processes and --process_id need.'
    )
  # Devices may only be asked for once the processes have found each other.
  runtime.start(check=False)
  if _DISTRIBUTED.value or _COORDINATOR.value:
    try:
      # None: taken from the environment.
      jax.distributed.initialize(_COORDINATOR.value, *numbers)
    except (ValueError, RuntimeError) as error:
      raise errors.UserError(
        f'The processes cannot be joined: {str(error).rstrip(".")}. Without '
        'SLURM, Open MPI or Kubernetes, pass --coordinator=HOST:PORT, '
        '--num_processes and, from 0, --process_id to each of them.'
      ) from error
  runtime.check_devices()
  workdir = Path(_WORKDIR.value or Path('runs') / _CONFIG.value.name)
  # One process makes it for all.
  if jax.process_index() == 0:
    files.check_folder(workdir, 'workdir')
  loop.train_and_evaluate(_CONFIG.value, workdir)


def run() -> None:
  """Runs the command line."""
  command_line.run(main, __name__)


if __name__ == '__main__':
  run()
