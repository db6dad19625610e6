"""Errors that are the user's to mend, told apart from programming mistakes.

Command lines print these as one line; any other exception keeps its traceback.
"""

import importlib.util


def install_command(extra: str) -> str:
  """Returns the command that installs an extra of the project.

  In a checkout it names the checkout; a wheel has this file in `rmbg_jax`.
  """
  is_wheel = __name__.startswith('rmbg_jax.')
  place = 'rmbg-u2net-jax' if is_wheel else '.'
  return f"pip install {'' if is_wheel else '-e '}'{place}[{extra}]'"


def check_extra(extra: str, need: str, *modules: str) -> None:
  """Checks that an extra's modules are installed, without importing them.

  Raises:
    UserError: that says what the need is, and how to install them.
  """
  if not all(map(importlib.util.find_spec, modules)):
    raise UserError(f'{need}: {install_command(extra)}.')


class UserError(ValueError):
  """Reports a file, setting or flag that the user can correct.

  The message names the file or key, its value, and the remedy.
  """


class TooManyPixelsError(UserError):
  """Reports a photo that is larger than the user allows."""


class DivergedError(UserError, FloatingPointError):
  """Reports a training whose numbers stopped being finite."""


class Stopped(SystemExit):  # noqa: N818 (Not an error.)
  """Ends a program that a signal has asked to end, when all is saved.

  Attributes:
    code: Exit code that a shell gives for the signal.
  """

  def __init__(self, message: str, signum: int):
    super().__init__(message)
    self.code = 128 + signum


class MissingFileError(UserError, FileNotFoundError):
  """Reports a file or folder that is not there."""

  def __str__(self) -> str:
    """Returns the message (an `OSError` would format its own)."""
    return str(self.args[0]) if self.args else ''
