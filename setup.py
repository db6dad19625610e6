"""Lays a checkout out as a wheel; everything else is in pyproject.toml.

In a checkout, `configs` and `data_pipelines` are beside `rmbg_jax`, for people
to find. Installed, such general names would be in the way of packages that
other projects have: there they are inside of `rmbg_jax`, and imported so.
"""

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py

# An editable installation is the checkout, as it is.
MOVED = () if 'editable_wheel' in sys.argv else ('configs', 'data_pipelines')
KEPT = [name for name in ('configs', 'data_pipelines') if name not in MOVED]


def _with_rooms(names: Iterable[str]) -> list[str]:
  """Returns patterns of packages and of the packages in them."""
  return [pattern for name in names for pattern in (name, f'{name}.*')]


class BuildPy(build_py):
  """Copies the packages; what imports a moved one says where it is now."""

  def build_module(
    self, module: str, module_file: str, package: str
  ) -> tuple[str, bool]:
    """Copies a module."""
    result = super().build_module(module, module_file, package)
    copy = Path(result[0])
    text = copy.read_text(encoding='utf-8')
    for name in MOVED:
      # Imports, and the commands that messages name.
      text = re.sub(
        rf'(?<![\w./])(?={name}\.[a-z]|{name} import )', 'rmbg_jax.', text
      )
    copy.write_text(text, encoding='utf-8')
    return result


setup(
  packages=[
    *find_namespace_packages(include=['rmbg_jax*', *_with_rooms(KEPT)]),
    *(
      f'rmbg_jax.{package}'
      for package in find_namespace_packages(include=_with_rooms(MOVED))
    ),
  ],
  package_dir={f'rmbg_jax.{name}': name for name in MOVED},
  cmdclass={'build_py': BuildPy},
)
