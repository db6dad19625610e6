"""Runs commands in processes of their own that have the libraries already.

Importing JAX, Flax and Orbax takes longer than most commands of the tests do. A
server imports them once, and forks for each command. What a command imports
itself, and when, is tested with a new Python.
"""

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def run(
  *arguments: object,
  cwd: Path = _ROOT,
  env: Mapping[str, str] | None = None,
  hidden: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
  """Runs Python with arguments; returns its exit code and what it printed.

  Args:
    *arguments: Arguments, such as '-m', 'rmbg_jax.predict', a path.
    cwd: Working directory.
    env: Environment; None for this process's.
    hidden: Packages that the command does not find.
  """
  command = [str(argument) for argument in arguments]
  with tempfile.TemporaryDirectory() as folder:
    streams = {name: Path(folder, name) for name in ('out', 'err')}
    request = {
      'arguments': command,
      'cwd': str(cwd),
      'env': dict(os.environ if env is None else env),
      'hidden': list(hidden),
      **{name: str(path) for name, path in streams.items()},
    }
    server = _start_server()
    server.stdin.write(json.dumps(request) + '\n')
    server.stdin.flush()
    code = int(server.stdout.readline())
    stdout, stderr = (
      path.read_text(errors='replace') for path in streams.values()
    )
  return subprocess.CompletedProcess(command, code, stdout, stderr)


@functools.cache
def _start_server() -> subprocess.Popen:
  server = subprocess.Popen(
    [sys.executable, '-m', 'tests.support.command_server'],
    cwd=_ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  atexit.register(server.wait)
  atexit.register(server.stdin.close)  # Before: it ends the server.
  return server
