"""What the command lines share, run by `-m` or by an installed command."""

import contextlib
import errno
import importlib.util
import io
import os
import select
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from data_pipelines import errors

_HELP = ('--help', '--helpshort', '--helpfull')
_INTERRUPTED = 130  # The shell's exit code for SIGINT.
# Installed, the configurations are inside of the package; in a checkout,
# beside it.
CONFIGS = next(
  folder
  for parent in (Path(__file__).parent, Path(__file__).parents[1])
  if (folder := parent / 'configs').is_dir()
)
# What of a configuration are paths.
_CONFIG_PATHS = (
  'data.dir',
  'data.device.cache_dir',
  'init_from',
  'model.encoder.weights',
)
# Mended outside of the program, even where the error names no file.
_SYSTEM_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)

# What is defined here is a flag of the module that asks for it.
flags.disclaim_key_flags()


class _PathParser(flags.ArgumentParser):
  """Takes a path, with `~` for the home folder.

  A shell replaces that in front of a path alone, not behind `--flag=`.
  """

  def parse(self, argument: str) -> str:
    return expand_home(argument)

  def flag_type(self) -> str:
    return 'path'


class _PathListParser(flags.ListParser):
  """Takes paths with commas between."""

  def parse(self, argument: str | list[str]) -> list[str]:
    return [expand_home(path) for path in super().parse(argument)]


def expand_home(path: str) -> str:
  """Returns a path with `~` or `~user` in front of it replaced.

  Raises:
    UserError: if there is no such home folder.
  """
  expanded = os.path.expanduser(path)  # noqa: PTH111 (Path drops './').
  if expanded.startswith('~'):
    raise errors.UserError(
      f'{path}: there is no such home folder. Pass the whole path, or '
      f'./{path} for a name that begins with ~.'
    )
  return expanded


def define_path(
  name: str,
  default: str | None,
  description: str,
  *,
  short: str = '',
  required: bool = False,
) -> flags.FlagHolder:
  """Defines a flag that takes a path.

  Args:
    name: of the flag.
    default: its value where it is not passed.
    description: for --help.
    short: a shorter name that means the same, '' for none.
    required: whether it must be passed.
  """
  holder = flags.DEFINE(
    _PathParser(), name, default, description, required=required
  )
  if short:
    flags.DEFINE_alias(short, name)
  return holder


def define_paths(
  name: str, default: list[str], description: str
) -> flags.FlagHolder:
  """Defines a flag that takes paths with commas between."""
  return flags.DEFINE(
    _PathListParser(),
    name,
    default,
    description,
    serializer=flags.ListSerializer(','),
  )


def print_any_name() -> None:
  """Has what the console cannot print escaped: names may be of any bytes."""
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='backslashreplace')


def define_config(description: str) -> flags.FlagHolder:
  """Defines `--config`: the path of a configuration, or its name.

  Args:
    description: for --help.

  Raises:
    SystemExit: if what training needs is not installed.
  """
  try:
    from ml_collections import config_flags
  except ImportError as error:
    raise SystemExit(
      'Error: training needs more packages than cutting out photos. In a '
      "checkout run: pip install '.[train]', or pip install -r "
      'requirements.txt.'
    ) from error
  return config_flags.DEFINE_config_file('config', None, description)


def run(
  main: Callable[[list[str]], None],
  module: str,
  *,
  required: Sequence[str] = (),
) -> None:
  """Parses the flags and calls `main`, `reporting` what goes wrong.

  Args:
    main: gets the arguments that are not flags, after the program's name.
    module: `__name__` of the module that `main` is in.
    required: names of the flags that must be passed.
  """
  if module != '__main__':
    # To --help, absl answers with what it knows of the file that was started:
    # for an installed command, not the module, but a few lines that import it.
    started = sys.modules['__main__']
    started.__doc__ = sys.modules[module].__doc__
    for flag in flags.FLAGS.get_key_flags_for_module(module):
      flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
  flags.mark_flags_as_required(required)
  print_any_name()

  def run_main(argv):
    try:
      main(argv)
    finally:
      sys.stdout.flush()  # What is wrong with it is said here, not at the end.

  with reporting():
    app.run(run_main, flags_parser=_parse_flags)


@contextlib.contextmanager
def reporting() -> Iterator[None]:
  """Ends the program with a line for what the user can mend.

  That is a `UserError`, and an `OSError` of a file: the exit code is 1. Ctrl-C
  is answered by a line too, and by the exit code 130 (a training that SIGTERM
  has ended: 143). Any other exception is a mistake of the program and keeps its
  traceback.

  Raises:
    SystemExit: with the line, or the exit code.
  """
  try:
    yield
  except errors.Stopped as stopped:
    print(stopped, file=sys.stderr)
    raise
  except KeyboardInterrupt:
    print('Interrupted.', file=sys.stderr)
    raise SystemExit(_INTERRUPTED) from None
  except (errors.UserError, OSError) as error:
    _give_up_closed_output(error)
    message = _describe(error)
    if not message:
      raise
    raise SystemExit(f'Error: {message}') from error


def check_folder(path: Path, flag: str) -> None:
  """Checks that a folder for results can be written to; leaves nothing there.

  Called before anything is computed for it.

  Args:
    path: of the folder, which need not be there yet.
    flag: that names it, for the error.

  Raises:
    UserError: if it cannot be written to.
  """
  made = [folder for folder in (path, *path.parents) if not folder.exists()]
  try:
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
      pass
    for folder in made:
      folder.rmdir()
  except OSError as error:
    reason = error.strerror
    if isinstance(error, FileExistsError | NotADirectoryError):
      reason = 'a file is in the way'
    raise errors.UserError(
      f'--{flag}: {path} cannot be written to ({reason}). Pass another folder.'
    ) from error


def find_config(name: str) -> str:
  """Returns the path of a configuration, with its argument.

  Args:
    name: that of a file in `configs/` without its ending, such as `full`, with
      an argument as in `lite:device`. A path stays as it is.

  Raises:
    UserError: if there is no configuration of that name.
  """
  stem, colon, argument = name.partition(':')
  if not stem.isidentifier():
    return expand_home(name)
  path = CONFIGS / f'{stem}.py'
  if not path.exists():
    names = sorted(file.stem for file in CONFIGS.glob('[!_]*.py'))
    raise errors.UserError(
      f'--config={name}: no such configuration. Pass the path of a file, or '
      f'one of {", ".join(names)}.'
    )
  return f'{path}{colon}{argument}'


def resolve_names(argv: Sequence[str]) -> list[str]:
  """Returns a command line with `--config=NAME` made `--config=PATH`.

  Raises:
    UserError: as `find_config`.
  """
  resolved = []
  rest = iter(argv)
  for argument in rest:
    flag, equals, value = argument.partition('=')
    if flag in ('--config', '-config') and (
      equals or (value := next(rest, ''))
    ):
      argument = f'--config={find_config(value)}'
    resolved.append(argument)
  return resolved


@contextlib.contextmanager
def own_configs(path: str) -> Iterator[None]:
  """Has `import configs` mean this project's while a configuration is read.

  A project that has a `configs` package too gets its own in its own files.

  Args:
    path: of the configuration, with its argument.
  """
  is_own = Path(path.partition(':')[0]).resolve().parent == CONFIGS.resolve()
  if not is_own and importlib.util.find_spec('configs'):
    yield
    return
  others = _pop_configs()
  spec = importlib.util.spec_from_file_location(
    'configs',
    CONFIGS / '__init__.py',
    submodule_search_locations=[str(CONFIGS)],
  )
  sys.modules['configs'] = package = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(package)
  try:
    yield
  finally:
    _pop_configs()
    sys.modules.update(others)


def _pop_configs() -> dict:
  names = [name for name in sys.modules if name.partition('.')[0] == 'configs']
  return {name: sys.modules.pop(name) for name in names}


def _give_up_closed_output(error: Exception) -> None:
  """Ends the program where its reader has enough, as in `| head`."""
  if not isinstance(error, BrokenPipeError) or not hasattr(select, 'poll'):
    return
  output = select.poll()
  output.register(sys.stdout, select.POLLERR)
  if output.poll(0):  # Else it is another pipe.
    # Python would flush it once more, and complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(1) from None


def _describe(error: Exception) -> str:
  """Returns what to say of an error, '' for one that the user cannot mend."""
  if isinstance(error, errors.UserError):
    return str(error)
  if error.filename is None and error.errno not in _SYSTEM_ERRORS:
    return ''
  reason = error.strerror or str(error)
  if error.filename is None:
    return reason
  return f'{os.fsdecode(error.filename)}: {reason}'


def _parse_flags(argv: Sequence[str]) -> list[str]:
  """Returns what is left of a command line; says in a line what is wrong."""
  try:
    if 'config' not in flags.FLAGS:
      return app.parse_flags_with_usage(argv)
    return _parse_with_config(argv)
  except SystemExit:
    if set(_HELP).intersection(argv):
      raise SystemExit(0) from None  # Absl's 1 is for what went wrong.
    raise


def _parse_with_config(argv: Sequence[str]) -> list[str]:
  argv = resolve_names(argv)
  paths = [a.partition('=')[2] for a in argv if a.startswith('--config=')]
  try:
    with own_configs(paths[-1] if paths else ''):
      rest = _parse_all(argv)
    config = flags.FLAGS['config'].value
    # A file that could not be read says so when it is first asked for anything.
    getattr(config, 'name', None)
  except OSError as error:
    reason = str(error).splitlines()[-1].strip()
    raise errors.UserError(f'--config: {reason}') from error
  except (AttributeError, KeyError, TypeError) as error:
    problem = _describe_wrong_setting(argv, error)
    if not problem:
      raise  # Of the configuration's own code.
    raise errors.UserError(problem) from error
  _expand_paths(config)
  return rest


def _parse_all(argv: Sequence[str]) -> list[str]:
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    cause = error
    while cause := cause.__context__:
      # Around what a configuration says, ml_collections puts its traceback.
      if isinstance(cause, errors.UserError) and not cause.__context__:
        raise cause from None
    return app.parse_flags_with_usage(argv)


def _expand_paths(config: Any) -> None:
  """Replaces `~` in the paths of a configuration, None if there is none."""
  for key in _CONFIG_PATHS if config is not None else ():
    *groups, name = key.split('.')
    group = config
    for part in groups:
      group = group.get(part, {})
    if group.get(name):
      group[name] = expand_home(group[name])


def _describe_wrong_setting(argv: Sequence[str], error: Exception) -> str:
  """Returns what is wrong with an override, '' if it is not one of them."""
  settings = [part for part in argv if part.startswith('--config.')]
  if isinstance(error, TypeError):
    return f'{", ".join(settings)}: a value has no settings of its own: {error}'
  # One error holds the other: 'key', and perhaps in a new line a better one.
  while error.args and isinstance(error.args[0], Exception):
    error = error.args[0]
  key, _, hint = str(error.args[0] if error.args else '').partition('\n')
  for setting in settings:
    if key.strip("'") in setting.partition('=')[0].split('.'):
      hint = hint or 'configs/default.py has all that there are.'
      return f'{setting}: there is no setting {key}. {hint}'
  return ''
