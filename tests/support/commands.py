"""Runs commands in processes of their own that have the libraries already.

Importing JAX, Flax and Orbax takes longer than most commands of the tests do. A
server imports them once, and forks for each command. What a command imports
itself, and when, is tested with a new Python.
"""

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


class Command:
  """A command that may be running, with the methods of a `Popen`."""

  def __init__(self, arguments: Sequence[str], folder: Path):
    self.arguments = arguments
    self.returncode: int | None = None
    self._folder = folder
    server, _ = _start_server()
    while not (folder / 'pid').exists():
      assert server.poll() is None, 'the server has ended'
      time.sleep(0.001)
    self.pid = int((folder / 'pid').read_text())

  def poll(self) -> int | None:
    """Returns its exit code, None while it runs."""
    code = self._folder / 'code'
    if self.returncode is None and code.exists():
      self.returncode = int(code.read_text())
    return self.returncode

  def communicate(self) -> tuple[str, str]:
    """Waits for its end; returns what it printed to both streams."""
    while self.poll() is None:
      time.sleep(0.005)
    out, err = (
      (self._folder / name).read_text(errors='replace')
      for name in ('out', 'err')
    )
    return out, err

  def send_signal(self, number: signal.Signals) -> None:
    """Sends a signal, if it still runs."""
    if self.poll() is None:
      os.kill(self.pid, number)


def start(
  *arguments: object,
  cwd: Path = _ROOT,
  env: Mapping[str, str] | None = None,
  hidden: Sequence[str] = (),
) -> Command:
  """Starts Python with arguments.

  Args:
    *arguments: Arguments, such as '-m', 'rmbg_jax.predict', a path.
    cwd: Working directory.
    env: Environment; None for this process's.
    hidden: Packages that the command does not find.
  """
  server, folders = _start_server()
  folder = Path(tempfile.mkdtemp(dir=folders))
  texts = [str(argument) for argument in arguments]
  env = dict(os.environ if env is None else env)
  # JAX has read its own when it was imported.
  for name in env.keys() | os.environ.keys():
    if name.startswith('JAX_') and env.get(name) != os.environ.get(name):
      raise ValueError(f'{name} has no effect here: start a new Python.')
  request = {
    'arguments': texts,
    'cwd': str(cwd),
    'env': env,
    'hidden': list(hidden),
    'folder': str(folder),
  }
  server.stdin.write(json.dumps(request) + '\n')
  server.stdin.flush()
  return Command(texts, folder)


def run(
  *arguments: object, **options: object
) -> subprocess.CompletedProcess[str]:
  """Runs Python as `start` does, to its end; returns what came of it."""
  command = start(*arguments, **options)
  out, err = command.communicate()
  return subprocess.CompletedProcess(
    command.arguments, command.returncode, out, err
  )


@functools.cache
def _start_server() -> tuple[subprocess.Popen, str]:
  folder = tempfile.TemporaryDirectory(prefix='commands_')
  server = subprocess.Popen(
    [sys.executable, '-m', 'tests.support.command_server'],
    cwd=_ROOT,
    stdin=subprocess.PIPE,
    text=True,
  )
  # The last one first: the end of its input ends the server.
  atexit.register(folder.cleanup)
  atexit.register(server.wait)
  atexit.register(server.stdin.close)
  return server, folder.name
