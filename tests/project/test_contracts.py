"""Who imports whom: as pyproject.toml demands, and as docs/design.md draws."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

grimp = pytest.importorskip('grimp')
pytest.importorskip('importlinter')

ROOT = Path(__file__).resolve().parents[2]
# Drawn as one, with the tools that are started by their package's name.
COMMANDS = {
  f'data_pipelines.{name}'
  for name in ('check', 'demo', 'download', 'prepare', 'tfds_sets')
}
STARTED = 'data_pipelines.tools.__main__'
# All others use it: its arrows are not drawn.
EVERYWHERE = 'io'


def test_the_contracts_are_kept():
  code = 'from importlinter import cli; cli.lint_imports_command()'
  result = subprocess.run(
    [sys.executable, '-c', code, '--no-cache', '--no-logo'],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stdout + result.stderr
  assert '0 broken' in result.stdout


def find_room(module):
  """The room of a module as the picture names it."""
  package, _, rest = module.partition('.')
  if module == STARTED or module in COMMANDS:
    return 'commands'
  return rest.partition('.')[0] or package if package != 'configs' else package


def test_the_picture_has_the_arrows_of_the_imports():
  graph = grimp.build_graph(
    'rmbg_jax', 'data_pipelines', 'configs', cache_dir=None
  )
  real = {
    (find_room(module), find_room(other))
    for module in graph.modules
    for other in graph.find_modules_directly_imported_by(module)
  }
  # `rmbg_jax` itself has but the version.
  real = {
    (room, other)
    for room, other in real
    if room != other and other not in (EVERYWHERE, 'rmbg_jax')
  }
  page = (ROOT / 'docs/design.md').read_text()
  picture = re.search(r'^```mermaid\n(.*?)^```', page, re.M | re.S)[1]
  drawn = set()
  for line in picture.splitlines():
    if '-->' in line:
      rooms, others = (part.split(' & ') for part in line.split('-->'))
      drawn |= {(a.strip(), b.strip()) for a in rooms for b in others}
  assert sorted(drawn - real) == [], 'drawn, but not there'
  assert sorted(real - drawn) == [], 'there, but not drawn'


def _read_imports(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom):
      yield node.module or ''
    elif isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)


@pytest.mark.parametrize(
  'folder', ['rmbg_jax', 'data_pipelines', 'configs', 'scripts']
)
def test_tests_are_imported_by_tests_alone(folder):
  for path in (ROOT / folder).rglob('*.py'):
    names = {name.partition('.')[0] for name in _read_imports(path)}
    assert 'tests' not in names, path
    assert folder == 'scripts' or 'scripts' not in names, path
    assert 'sys.path' not in path.read_text(), path
