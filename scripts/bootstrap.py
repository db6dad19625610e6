"""The virtual environment of `quickstart.py` and `test.py`.

Standard library only: these scripts run before anything is installed.
"""

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MINIMUM_PYTHON = (3, 11)


def prepare(requirements: str) -> Path:
  """Makes `.venv` with the requirements, once, and returns its Python.

  Args:
    requirements: the name of a requirements file in the project's folder.
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
  if stamp.exists() and stamp.read_text() == wanted:
    return python
  if not python.exists():
    print(f'Making the virtual environment {folder}', flush=True)
    try:
      venv.create(folder, with_pip=True, clear=True)
    except subprocess.CalledProcessError as error:
      raise SystemExit(
        'This Python cannot make virtual environments with pip. On Debian and '
        'Ubuntu: apt install python3-venv.'
      ) from error
  print(f'Installing {requirements}', flush=True)
  run(
    [python, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check']
    + ['-r', ROOT / requirements]
  )
  stamp.write_text(wanted)  # Last: an interrupted installation is repeated.
  return python


def run(command: list) -> None:
  """Runs a command in the project's folder; exits as it does if it fails."""
  code = subprocess.run([str(part) for part in command], cwd=ROOT).returncode
  if code:
    raise SystemExit(code)


def _fingerprint() -> str:
  content = b''.join(
    path.read_bytes() for path in sorted(ROOT.glob('requirements*.txt'))
  )
  return hashlib.sha256(content).hexdigest()
