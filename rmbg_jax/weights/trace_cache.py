"""Keeps what tracing finds out for the next process, beside compiled programs.

Where JAX has no folder for compiled programs (`runtime.start` gives it one),
nothing is kept.
"""

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax import export

from data_pipelines.io import files
from rmbg_jax.models import compiling

# Any: JAX makes the settings' attributes when it is imported.
_config: Any = jax.config


def keep(make: Callable[[], bytes], *parts: object) -> bytes:
  """Returns what `make` returned when it was called with the same parts.

  In this version of the project and its libraries, whose files may have
  changed without a new number.

  Args:
    make: Called where nothing is kept.
    *parts: All that its result depends on besides, told apart by their texts.
  """
  folder = _config.jax_compilation_cache_dir
  if not folder:
    return make()
  text = repr((jax.__version__, jax.lib.__version__, _list_sources(), parts))
  name = hashlib.sha256(text.encode()).hexdigest()
  path = Path(folder) / 'rmbg_jax' / name
  with contextlib.suppress(OSError, ValueError):  # Not there, or damaged.
    digest, content = path.read_bytes().split(b'\n', 1)
    if digest == hashlib.sha256(content).hexdigest().encode():
      return content
  content = make()
  digest = hashlib.sha256(content).hexdigest().encode()
  with (
    contextlib.suppress(OSError),  # A full disk costs time alone.
    files.write_atomically(path) as partial,
  ):
    partial.write_bytes(digest + b'\n' + content)
  return content


def keep_program(
  function: Callable[..., Any],  # Of arrays, to arrays.
  arguments: tuple,
  *parts: object,
) -> Callable[..., Any]:
  """Returns a function, jitted; it is not traced where it is kept.

  Args:
    function: Function that is called on one device.
    arguments: Arrays or their shapes, a tuple.
    *parts: All that the function depends on besides.
  """
  options = compiling.make_options()
  if not _config.jax_compilation_cache_dir:
    return jax.jit(function, compiler_options=options)
  shapes = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments
  )
  content = keep(
    lambda: bytes(export.export(jax.jit(function))(*shapes).serialize()),
    jax.default_backend(),
    (_config.jax_enable_x64, _config.jax_default_matmul_precision),
    shapes,
    *parts,
  )
  program = export.deserialize(bytearray(content))
  return jax.jit(program.call, compiler_options=options)


def _list_sources() -> list[tuple[str, int, int]]:
  """Returns names, times and sizes of this package's files."""
  package = Path(__file__).parents[1]
  found = []
  for path in sorted(package.rglob('*.py')):
    status = path.stat()
    found.append((str(path), status.st_mtime_ns, status.st_size))
  return found
