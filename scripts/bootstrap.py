"""Makes the virtual environment of `quickstart.py` and `test.py`.

Standard library only: these scripts run before anything is installed. Older
Pythons come as far as the message that says which one is needed: annotations
that they do not know are in quotes.
"""

import hashlib
import shlex
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MINIMUM_PYTHON = (3, 11)
SETUPTOOLS = 'setuptools>=77'  # The same as in pyproject.toml.
ACTIVATE = (
  str(ROOT / r'.venv\Scripts\activate')
  if sys.platform == 'win32'
  else f'. {shlex.quote(str(ROOT / ".venv/bin/activate"))}'
)


def start(main: 'Callable[[], None]') -> None:
  """Calls a script's `main`; Ctrl-C ends it with one line and code 130."""
  try:
    main()
  except KeyboardInterrupt:
    print('Interrupted. To go on, run the same command again.', flush=True)
    raise SystemExit(130) from None


def prepare(requirements: str) -> Path:
  """Makes `.venv` with the requirements, once, and returns its Python.

  The project itself is installed as it is there (editable), so that scripts
  find it from any folder.

  Args:
    requirements: The name of a requirements file in the project's folder.
  """
  if sys.version_info < MINIMUM_PYTHON:
    needed = '.'.join(map(str, MINIMUM_PYTHON))
    raise SystemExit(
      f'Python {needed} or newer is needed, this is '
      f'{sys.version.split()[0]}. Run this script with a newer one.'
    )
  folder = ROOT / '.venv'
  python = folder / (
    'Scripts/python.exe' if sys.platform == 'win32' else 'bin/python'
  )
  stamp = folder / f'{requirements}.installed'
  wanted = _fingerprint()
  is_there = python.exists()  # A link to a Python that was removed is not.
  if is_there and stamp.exists() and stamp.read_text() == wanted:
    return python
  if not is_there:
    print(f'Making the virtual environment {folder}', flush=True)
    try:
      venv.create(folder, with_pip=True, clear=True)
    except BaseException as error:
      # Without pip it is of no use: the next call makes it anew.
      python.unlink(missing_ok=True)
      if isinstance(error, OSError):
        raise SystemExit(
          f'The virtual environment cannot be made: {error}. It takes 1.3 GB '
          "in the project's folder: copy that to where you may write."
        ) from error
      if not isinstance(error, subprocess.CalledProcessError):
        raise
      raise SystemExit(
        'This Python cannot make virtual environments with pip. On Debian and '
        'Ubuntu: apt install python3-venv.'
      ) from error
  uv = shutil.which('uv')
  if is_there:
    packages = 'sys' if uv else 'sys, pip'
    test = f'import {packages}; sys.exit(sys.version_info < {MINIMUM_PYTHON})'
    command = [str(python), '-c', test]
    if subprocess.run(command, stderr=subprocess.DEVNULL).returncode:
      raise SystemExit(
        f'{folder} has an older Python, or one that does not work or has no '
        'pip. Remove that folder, and run the same command again.'
      )
  print(f'Installing {requirements}', flush=True)
  if uv:  # Several times as fast as pip.
    install = [uv, 'pip', 'install', '--quiet', '--compile-bytecode']
    install += ['--python', python]
  else:
    install = [python, '-m', 'pip', 'install', '--quiet']
    install.append('--disable-pip-version-check')
  run([*install, '-r', ROOT / requirements, SETUPTOOLS])
  # Takes the installed setuptools: nothing is fetched.
  run([*install, '--no-deps', '--no-build-isolation', '--editable', ROOT])
  stamp.write_text(wanted)  # Last: an interrupted installation is repeated.
  return python


def run(command: list) -> None:
  """Runs a command in the project's folder; exits as it does if it fails.

  Ctrl-C reaches the command as well, and what it does then, such as saving a
  training, is waited for.

  Raises:
    KeyboardInterrupt: after Ctrl-C, when the command has ended.
  """
  interrupts = []
  previous = signal.signal(
    signal.SIGINT, lambda signum, _: interrupts.append(signum)
  )
  try:
    code = subprocess.run([str(part) for part in command], cwd=ROOT).returncode
  finally:
    signal.signal(signal.SIGINT, previous)
  if interrupts:
    raise KeyboardInterrupt
  if code:
    raise SystemExit(code)


def _fingerprint() -> str:
  content = b''.join(
    path.read_bytes()
    for path in (*sorted(ROOT.glob('requirements*.txt')), ROOT / 'setup.py')
    if path.exists()
  )
  # An editable installation names the folder.
  return hashlib.sha256(content + bytes(ROOT)).hexdigest()
