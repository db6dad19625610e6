"""Runs command lines (`-m` or installed commands): flags, errors, Ctrl-C."""

import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Callable, Iterator, Sequence

from absl import app, flags

from data_pipelines.io import errors, storage

_HELP = ('--help', '--helpshort', '--helpfull')
_STANDARD_ERROR = 2
_INTERRUPTED = 130  # The shell's exit code for SIGINT.
# Mended outside of the program, even where the error names no file.
_SYSTEM_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)

_to_write: list[str] = []  # Names of flags; see `define_file`.

# Flags belong to the module that asks for them.
flags.disclaim_key_flags()


class _PathParser(flags.ArgumentParser):
  """Takes a path, with `~` for the home folder.

  A shell replaces that in front of a path alone, not behind `--flag=`. URLs are
  refused but for some kinds, or they would become folders called `s3:`.
  """

  def __init__(self, urls: Sequence[str]):
    super().__init__()
    self._urls = urls

  def parse(self, argument: str) -> str:
    return parse_path(argument, self._urls)


class _PathListParser(flags.ListParser):
  """Takes paths with commas between, as `_PathParser` does one."""

  def __init__(self, urls: Sequence[str]):
    super().__init__()
    self._each = _PathParser(urls)

  def parse(self, argument: str | list[str]) -> list[str]:
    return [self._each.parse(path) for path in super().parse(argument)]


def parse_path(argument: str, urls: Sequence[str]) -> str:
  """Returns a path with its home folder, or a URL of one of the kinds.

  Raises:
    UserError: if it is another URL, or there is no such home folder.
  """
  storage.check_path(argument, urls)
  return expand_home(argument)


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
  urls: Sequence[str] = (),
) -> flags.FlagHolder:
  """Defines a flag that takes a path, and URLs of some kinds, such as 's3'.

  `short` is another name for it, '' for none.
  """
  holder = flags.DEFINE(
    _PathParser(urls), name, default, description, required=required
  )
  if short:
    flags.DEFINE_alias(short, name)
  return holder


def define_file(
  name: str,
  default: str | None,
  description: str,
  *,
  short: str = '',
  required: bool = False,
) -> flags.FlagHolder:
  """Defines a flag that takes the path of a file to write, and `--overwrite`.

  Without that, `run` refuses a file that is there. `short` is as for
  `define_path`.
  """
  define_overwrite()
  _to_write.append(name)
  return define_path(name, default, description, short=short, required=required)


def define_overwrite() -> None:
  """Defines `--overwrite`, unless another file's flag has."""
  if 'overwrite' not in flags.FLAGS:
    flags.DEFINE_bool('overwrite', False, 'Replace a file that is there.')


def define_paths(
  name: str, default: list[str], description: str, *, urls: Sequence[str] = ()
) -> flags.FlagHolder:
  """Defines a flag that takes paths with commas between; see `define_path`."""
  return flags.DEFINE(
    _PathListParser(urls),
    name,
    default,
    description,
    serializer=flags.ListSerializer(','),
  )


def is_passed(flag: flags.FlagHolder) -> bool:
  """Returns whether the command line has a flag."""
  return not flags.FLAGS[flag.name].using_default_value


def check_needed(
  needed: str, is_there: bool, *dependent: flags.FlagHolder
) -> None:
  """Refuses flags that change nothing without another one.

  Args:
    needed: The other one, as the user writes it.
    is_there: Whether it is passed.
    dependent: Flags that need it.

  Raises:
    UserError: naming both.
  """
  for flag in dependent:
    is_used = is_passed(flag) and flag.value is not False and flag.value != ''
    if is_used and not is_there:
      raise errors.UserError(
        f'--{flag.name}={flag.value} is for {needed}. Pass both, or neither.'
      )


def open_streams() -> None:
  """Opens the standard streams that are closed, so that no library fails.

  Programs with windows and services have none. What is opened next would get a
  closed one's number, and all that libraries print there.
  """
  # The system gives the lowest number that is free.
  while (number := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
    pass
  os.close(number)
  for name, mode in (('stdin', 'r'), ('stdout', 'w'), ('stderr', 'w')):
    if getattr(sys, name) is None:
      # For the rest of the process.
      stream = open(os.devnull, mode, encoding='utf-8')  # noqa: SIM115, PTH123
      setattr(sys, name, stream)


def print_any_name() -> None:
  """Escapes characters that the console cannot print, as in odd file names."""
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='backslashreplace')


def run(
  main: Callable[..., None],
  module: str,
  *,
  takes_arguments: bool = False,
  required: Sequence[str] = (),
  parse: Callable[[list[str]], list[str]] = app.parse_flags_with_usage,
) -> None:
  """Parses the flags and calls `main`; `reporting` prints its errors.

  Args:
    main: Runs the command, when the flags are set.
    module: `__name__` of the module that `main` is in.
    takes_arguments: Whether `main` gets the arguments that are not flags, after
      the program's name; else they are refused.
    required: Names of the flags that must be passed.
    parse: Sets the flags from a command line and returns what is left of it.
  """
  open_streams()
  if module != '__main__':
    # absl's --help shows the started file's docstring and flags. For an
    # installed command, that file only imports the module.
    started = sys.modules['__main__']
    started.__doc__ = sys.modules[module].__doc__
    for flag in flags.FLAGS.get_key_flags_for_module(module):
      flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
  flags.mark_flags_as_required(required)
  print_any_name()

  def parse_flags(argv):
    try:
      return parse(argv)
    except SystemExit:
      if set(_HELP).intersection(argv):
        raise SystemExit(0) from None  # absl's 1 is for what went wrong.
      raise

  def run_main(argv):
    try:
      for name in _to_write:
        if path := flags.FLAGS[name].value:
          check_new(name, path)
      if takes_arguments:
        main(argv)
      elif argv[1:]:
        raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
      else:
        main()
    except app.UsageError as error:  # absl would print all flags.
      raise errors.UserError(
        f'{str(error).rstrip(".")}. Put patterns in quotes, write flags as '
        '--name=value; --help lists them.'
      ) from error
    finally:
      sys.stdout.flush()  # Errors of the output appear here, not at exit.

  with reporting():
    app.run(run_main, flags_parser=parse_flags)


def check_new(name: str, path: str) -> None:
  """Raises a `UserError` if a flag's file is there, without `--overwrite`."""
  if os.path.lexists(path) and not flags.FLAGS.overwrite:
    raise errors.UserError(
      f'--{name}={path} is there already. Pass --overwrite to replace it, or '
      'another name.'
    )


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


def _give_up_closed_output(error: Exception) -> None:
  """Ends the program if its output is closed, as by `| head`."""
  if not isinstance(error, BrokenPipeError) or not hasattr(select, 'poll'):
    return
  output = select.poll()
  output.register(sys.stdout, select.POLLERR)
  if output.poll(0):  # Else another pipe broke.
    # Python would complain when it flushes the output at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(1) from None


def _describe(error: errors.UserError | OSError) -> str:
  """Returns what to say of an error, '' for one that the user cannot mend."""
  if isinstance(error, errors.UserError):
    return str(error)
  reason = error.strerror or str(error)
  if error.filename is None:
    return reason if error.errno in _SYSTEM_ERRORS else ''
  return f'{os.fsdecode(error.filename)}: {reason}'
