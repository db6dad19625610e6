"""The types: a checker finds them right, and none is missing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ('rmbg_jax', 'data_pipelines', 'configs', 'scripts')


@pytest.mark.skipif(
  sys.version_info >= (3, 12),
  reason='other versions of the libraries declare other types: one is checked',
)
def test_the_checker_finds_nothing():
  pytest.importorskip('ty')
  result = subprocess.run(
    [sys.executable, '-m', 'ty', 'check', '--output-format=concise'],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stdout + result.stderr


def find_untyped(source):
  """Yields (line, function, parameter) of what has no type or just `Any`.

  With the reason in a comment of its line, `Any` is one.
  """
  lines = source.splitlines()
  for node in ast.walk(ast.parse(source)):
    body = node.body if isinstance(node, ast.Module | ast.ClassDef) else ()
    for function in body:
      if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
        continue
      is_magic = function.name in ('__init__', '__call__')
      if function.name.startswith('_') and not is_magic:
        continue
      spec = function.args
      rest = [one for one in (spec.vararg, spec.kwarg) if one]
      for parameter in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs, *rest):
        if parameter.arg in ('self', 'cls'):
          continue
        names = {
          found.id
          for found in ast.walk(parameter.annotation or ast.Module([], []))
          if isinstance(found, ast.Name)
        }
        excused = '#' in lines[parameter.lineno - 1]
        if not parameter.annotation or ('Any' in names and not excused):
          yield parameter.lineno, function.name, parameter.arg


def test_every_parameter_of_a_public_function_has_a_type():
  found = [
    (str(path.relative_to(ROOT)), *place)
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob('*.py'))
    for place in find_untyped(path.read_text(encoding='utf-8'))
  ]
  assert not found


def test_what_has_no_type_is_found():
  source = '\n'.join(
    (
      'def bare(x): pass',
      'def loose(x: dict[str, Any]): pass',
      'def excused(x: Any):  # Whatever it is.',
      '  pass',
      'def _private(x): pass',
      'class Thing:',
      '  def __init__(self, x): pass',
    )
  )
  places = [name for _, name, _ in find_untyped(source)]
  assert places == ['bare', 'loose', '__init__']
