"""Forks a process with the libraries for each command; see `commands.py`.

A line of JSON comes in for each: `arguments` of Python, `cwd`, `env`, `hidden`
packages, and a `folder`. There, `out` and `err` get what it prints, `pid` its
number, and `code` its exit code.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import sys
from importlib import machinery
from pathlib import Path
from typing import Any

# Nothing of the project, and nothing that starts a thread when it is imported.
_LIBRARIES = (
  *('absl.app', 'flax.linen', 'grain.python', 'jax', 'matplotlib.figure'),
  *('ml_collections', 'numpy', 'openvino', 'optax', 'orbax.checkpoint'),
  *('PIL.Image', 'scipy.ndimage', 'sklearn.neighbors'),
)


def serve() -> dict[str, Any]:
  """Returns a command, in a process for it; the first process never returns."""
  signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Nobody waits for the keepers.
  for line in sys.stdin:
    request = json.loads(line)
    if not os.fork():
      signal.signal(signal.SIGCHLD, signal.SIG_DFL)
      return _keep(request)
  raise SystemExit


def _keep(request: dict[str, Any]) -> dict[str, Any]:
  """Returns in a process for the command; waits for it in this one."""
  folder = Path(request['folder'])
  child = os.fork()
  if not child:
    return request
  _write(folder / 'pid', child)
  _, status = os.waitpid(child, 0)
  _write(folder / 'code', os.waitstatus_to_exitcode(status))
  os._exit(0)


def _write(path: Path, number: int) -> None:
  partial = path.with_suffix('.partial')
  partial.write_text(str(number))
  partial.replace(path)


def run(request: dict[str, Any]) -> None:
  """Runs a command as Python does: with its arguments, folder and streams."""
  os.chdir(request['cwd'])
  os.environ.clear()
  os.environ.update(request['env'])
  for target, path, mode in (
    (0, os.devnull, 'r'),
    (1, Path(request['folder'], 'out'), 'w'),
    (2, Path(request['folder'], 'err'), 'w'),
  ):
    with Path(path).open(mode) as file:
      os.dup2(file.fileno(), target)
  _hide(request['hidden'])
  kind, *arguments = request['arguments']
  sys.argv[:] = [kind, *arguments]
  sys.path[0] = ''
  if kind == '-c':
    del sys.argv[1]
    exec(arguments[0], {'__name__': '__main__'})
  elif kind == '-m':
    del sys.argv[1]
    runpy.run_module(arguments[0], run_name='__main__', alter_sys=True)
  else:
    sys.path[0] = str(Path(kind).absolute().parent)
    runpy.run_path(kind, run_name='__main__')


def _hide(packages: list[str]) -> None:
  found = {name.partition('.')[0] for name in sys.modules} & {*packages}
  assert not found, f'the server must not import {found}'
  find_spec = machinery.PathFinder.find_spec

  def find_others(name, path=None, target=None):
    if name.partition('.')[0] in packages:
      return None
    return find_spec(name, path, target)

  machinery.PathFinder.find_spec = find_others


if __name__ == '__main__':
  for library in _LIBRARIES:
    importlib.import_module(library)
  gc.freeze()  # Or the first collection of each process copies all pages.
  run(serve())
