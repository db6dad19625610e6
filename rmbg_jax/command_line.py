"""Defines `--config` for the command lines, and explains errors in it."""

import contextlib
import difflib
import importlib.util
import runpy
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from data_pipelines import cli
from data_pipelines.io import errors, storage

# Installed, the configurations are inside of the package; in a checkout,
# beside it.
CONFIGS = next(
  folder
  for parent in (Path(__file__).parent, Path(__file__).parents[1])
  if (folder := parent / 'configs').is_dir()
)
# Keys of a configuration that hold paths, and the kinds of URLs they take.
_CONFIG_PATHS = {
  'data.dir': (),
  'data.backgrounds': (),
  'data.sharp_dir': (),
  'data.device.cache_dir': (),
  'init_from': ('hf',),
  'model.encoder.weights': ('hf',),
}

# Flags belong to the module that asks for them.
flags.disclaim_key_flags()


def define_config(description: str) -> flags.FlagHolder:
  """Defines `--config`: the path of a configuration, or its name.

  Args:
    description: Text for --help.

  Raises:
    SystemExit: if what training needs is not installed.
  """
  try:
    from ml_collections import config_flags
  except ImportError as error:
    raise SystemExit(
      'Error: training needs more packages than cutting out photos: '
      f'{errors.install_command("train")}.'
    ) from error
  return config_flags.DEFINE_config_file('config', None, description)


def run(
  main: Callable[[], None],
  module: str,
  *,
  required: Sequence[str] = ('config',),
) -> None:
  """Runs a command line that has `--config`, as `cli.run` does others."""
  cli.run(main, module, required=required, parse=_parse_with_config)


def find_config(name: str) -> str:
  """Returns the path of a configuration, with its argument.

  Args:
    name: Name of a file in `configs/` without its ending, such as `full`, or
      with an argument, such as `lite:device`. Paths stay as they are.

  Raises:
    UserError: if there is no configuration of that name.
  """
  stem, colon, argument = name.partition(':')
  if not stem.isidentifier():  # A path, by its dot or slash.
    return cli.expand_home(name)
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
  """Makes `import configs` find this project's while a configuration is read.

  A project that has a `configs` package too gets its own in its own files.

  Args:
    path: Path of the configuration, with its argument.
  """
  is_own = Path(path.partition(':')[0]).resolve().parent == CONFIGS.resolve()
  if not is_own and importlib.util.find_spec('configs'):
    yield
    return
  # Another project's package of that name is back afterwards.
  others = _pop_configs()
  sys.modules['configs'] = package = types.ModuleType('configs')
  package.__path__ = [str(CONFIGS)]
  try:
    yield
  finally:
    _pop_configs()
    sys.modules.update(others)


def _pop_configs() -> dict:
  names = [name for name in sys.modules if name.partition('.')[0] == 'configs']
  return {name: sys.modules.pop(name) for name in names}


def _parse_with_config(argv: Sequence[str]) -> list[str]:
  argv = resolve_names(argv)
  paths = [a.partition('=')[2] for a in argv if a.startswith('--config=')]
  path = paths[-1] if paths else ''
  try:
    with own_configs(path):
      rest = _parse_all(argv)
    config = flags.FLAGS['config'].value
    # A file that could not be read says so when it is first asked for anything.
    getattr(config, 'name', None)
  except OSError as error:
    reason = str(error).splitlines()[-1].strip()
    raise errors.UserError(f'--config: {reason}') from error
  except (AttributeError, KeyError, TypeError) as error:
    problem = _describe_wrong_setting(argv, path, error)
    if not problem:
      raise  # A mistake in the configuration's own code.
    raise errors.UserError(problem) from error
  _expand_paths(config)
  return rest


def _parse_all(argv: list[str]) -> list[str]:
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    cause = error
    # The innermost cause is what the configuration said.
    while cause := cause.__context__:
      # ml_collections wraps a configuration's error in a traceback.
      if isinstance(cause, errors.UserError) and not cause.__context__:
        raise cause from None
    # Not absl's own message: it parses again, and finds each setting defined.
    raise errors.UserError(f'{str(error).rstrip(".")}. See --help.') from error


def _expand_paths(config: Any) -> None:
  """Replaces `~` in the paths of a configuration, None if there is none."""
  for key, urls in _CONFIG_PATHS.items() if config is not None else ():
    *groups, name = key.split('.')
    group = config
    for part in groups:
      group = group.get(part, {})
    if group.get(name):
      try:
        storage.check_path(group[name], urls)
      except errors.UserError as error:
        raise errors.UserError(f'config.{key}={error}') from error
      group[name] = cli.expand_home(group[name])


def _describe_wrong_setting(
  argv: Sequence[str], path: str, error: Exception
) -> str:
  """Returns what is wrong with an override, '' if it is not one of them."""
  settings = [part for part in argv if part.startswith('--config.')]
  if isinstance(error, TypeError):
    return f'{", ".join(settings)}: a value has no settings of its own: {error}'
  known = _list_settings(path)
  for setting in settings:
    key = setting.partition('=')[0].removeprefix('--config.')
    if key not in known:
      near = _find_nearest(key, known)
      hint = (
        f'Did you mean --config.{near}?'
        if near
        else f'{path}, or what it imports, has all that there are.'
      )
      return f'{setting}: there is no setting {key}. {hint}'
  return ''


def _list_settings(path: str) -> list[str]:
  """Returns the keys of a configuration's settings and groups."""
  file, *arguments = path.split(':', 1)
  with own_configs(path):
    config = runpy.run_path(file)['get_config'](*arguments)

  def list_keys(group, prefix):
    for name, value in group.items():
      yield prefix + name
      if hasattr(value, 'items'):
        yield from list_keys(value, f'{prefix}{name}.')

  return list(list_keys(config, ''))


def _find_nearest(key: str, known: Sequence[str]) -> str:
  """Returns the setting that a misspelt one may mean, '' if there is none.

  One of the same name in another group; one that the name abbreviates, as `lr`
  does `learning_rate`; or one that is written much like it.
  """
  name = key.rpartition('.')[2]
  names = {other: other.rpartition('.')[2] for other in known}
  near = [
    other
    for other, its in names.items()
    if its == name or ''.join(word[0] for word in its.split('_')) == name
  ]
  near = near or difflib.get_close_matches(key, known, 1, 0.75)
  if not near:
    (close,) = difflib.get_close_matches(name, names.values(), 1, 0.75) or ('',)
    near = [other for other, its in names.items() if its == close]
  # Of several, the one in the group that was written.
  return max(
    near,
    key=lambda other: difflib.SequenceMatcher(None, other, key).ratio(),
    default='',
  )
