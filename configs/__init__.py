"""Configurations. Each file's docstring gives its command, time and result."""

from collections.abc import Sequence
from pathlib import Path

_FOLDER = Path(__file__).parent


def resolve_names(argv: Sequence[str]) -> list[str]:
  """Returns a command line with `--config=NAME` made the path of that file.

  A name is that of a file in this folder without its ending, such as `full`,
  with an argument as in `lite:campaign`. Paths stay as they are.

  Raises:
    ValueError: if there is no configuration of that name.
  """
  resolved = list(argv)
  for index, argument in enumerate(resolved):
    flag, equals, value = argument.partition('=')
    if flag not in ('--config', '-config'):
      continue
    if equals:
      resolved[index] = f'{flag}={find_config(value)}'
    elif index + 1 < len(resolved):
      resolved[index + 1] = find_config(resolved[index + 1])
  return resolved


def find_config(name: str) -> str:
  """Returns the path of a configuration, with its argument.

  Args:
    name: as of `resolve_names`; a path is returned as it is.

  Raises:
    ValueError: if there is no configuration of that name.
  """
  stem, colon, argument = name.partition(':')
  if not stem.isidentifier():
    return name
  path = _FOLDER / f'{stem}.py'
  if not path.exists():
    names = sorted(file.stem for file in _FOLDER.glob('[!_]*.py'))
    raise ValueError(
      f'--config={name}: no such configuration. Pass the path of a file, or '
      f'one of {", ".join(names)}.'
    )
  return f'{path}{colon}{argument}'
