"""What the command lines share, run by `-m` or by an installed command."""

import io
import os
import sys
from collections.abc import Callable, Sequence

from absl import app, flags

import configs
from data_pipelines import errors

_HELP = ('--help', '--helpshort', '--helpfull')

# What is defined here is a flag of the module that asks for it.
flags.disclaim_key_flags()


def expand_home(path: str) -> str:
  """Returns a path with `~` or `~user` in front of it replaced.

  A shell replaces that in front of a path alone, not behind `--flag=`.

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
  """Parses the flags and calls `main`; Ctrl-C ends it with code 130.

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
  try:
    app.run(main, flags_parser=_parse_flags)
  except KeyboardInterrupt:
    print('Interrupted.', file=sys.stderr)
    raise SystemExit(130) from None


def _parse_flags(argv: Sequence[str]) -> list[str]:
  """Returns what is left of a command line; says in a line what is wrong."""
  try:
    if 'config' not in flags.FLAGS:
      return app.parse_flags_with_usage(argv)
    argv = configs.resolve_names(argv)
    rest = app.parse_flags_with_usage(argv)
    # A file that could not be read says so when it is first asked for anything.
    getattr(flags.FLAGS['config'].value, 'name', None)
    return rest
  except SystemExit:
    if set(_HELP).intersection(argv):
      raise SystemExit(0) from None  # Absl's 1 is for what went wrong.
    raise
  except OSError as error:
    reason = str(error).splitlines()[-1].strip()
    raise SystemExit(f'Error: --config: {reason}') from error
  except ValueError as error:
    raise SystemExit(f'Error: {error}') from error
  except (AttributeError, KeyError, TypeError) as error:
    problem = _describe_wrong_setting(argv, error)
    if not problem:
      raise  # Of the configuration's own code.
    raise SystemExit(f'Error: {problem}') from error


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
