"""Sets a command's process up; errors of used up memory name remedies.

It imports JAX only where JAX is used.
"""

import contextlib
import ctypes
import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from absl import logging as absl_logging

from data_pipelines.io import errors
from rmbg_jax.weights import cache

if TYPE_CHECKING:
  import jax

# JAX's name of the event.
COMPILATION = '/jax/core/compile/backend_compile_duration'
_CONTAINER_LIMIT = Path('/sys/fs/cgroup/memory.max')
_LONG = 1.0  # Seconds; what compiles faster leaves little behind.
# New objects, and collections of younger ones, after which Python collects.
_COLLECT_AFTER = 50_000, 20, 100


def start(*, uses_jax: bool = True, check: bool = True) -> None:
  """Quietens libraries; JAX keeps compiled programs for the next process.

  Respects `JAX_COMPILATION_CACHE_DIR` where the user has set it. Where there is
  no folder to write to, as in some containers, nothing is kept.

  Args:
    uses_jax: Whether JAX is used at all.
    check: Whether to `check_devices`, which must not be before several
      processes have found each other.

  Raises:
    UserError: as `check_devices`.
  """
  absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax is talkative.
  absl_logging.get_absl_logger().addFilter(_is_not_raised)
  if not uses_jax:
    return
  import jax

  # Traced programs are millions of objects and no garbage: to look through them
  # as often as Python does takes a quarter of the tracing.
  gc.set_threshold(*_COLLECT_AFTER)
  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    with contextlib.suppress(errors.UserError, OSError):
      folder = cache.cache_dir() / 'xla'
      folder.mkdir(parents=True, exist_ok=True)
      if os.access(folder, os.W_OK):
        jax.config.update('jax_compilation_cache_dir', str(folder))
  return_memory_after_compiling()
  if check:
    check_devices()


def check_devices() -> None:
  """Checks that there are devices of the kind that `JAX_PLATFORMS` asks for.

  Raises:
    UserError: if there are none.
  """
  import jax

  wanted = os.environ.get('JAX_PLATFORMS')
  try:
    jax.devices()
  except (AssertionError, RuntimeError) as error:
    if not wanted:
      raise
    reason = str(error).partition('\n')[0] or 'it finds none'
    raise errors.UserError(
      f'JAX_PLATFORMS={wanted}: JAX cannot use such a device ({reason}). Unset '
      "it to use what there is; for NVIDIA's GPUs: pip install 'jax[cuda12]'."
    ) from error


def _is_not_raised(record: logging.LogRecord) -> bool:
  """Returns whether a message says more than an exception will.

  What goes wrong in Orbax's threads is logged by each of them, with all of its
  traceback, and raised as well.
  """
  is_error = record.levelno >= logging.ERROR
  return not (is_error and 'orbax' in record.pathname)


def return_memory_after_compiling() -> None:
  """Returns the memory that a compilation leaves behind to the system.

  glibc keeps what was freed for the next allocation, but the buffers of the
  compiled program never come from there: without this, the original network's
  training step holds a gigabyte that nobody uses. Other systems are left alone.
  """
  import jax

  trim = find_trim()
  if trim is None:
    return

  def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
    del kwargs
    if event == COMPILATION and duration_secs > _LONG:
      trim(0)

  jax.monitoring.register_event_duration_secs_listener(listen)


def find_trim() -> Callable[[int], int] | None:
  """Returns glibc's `malloc_trim`, None on other systems."""
  if not sys.platform.startswith('linux'):
    return None
  return getattr(ctypes.CDLL(None), 'malloc_trim', None)


def find_free_memory(device: 'jax.Device') -> int:
  """Returns the bytes that a device has left, 0 if it is not known.

  For a CPU, its share of the memory of the machine, or of the container.
  """
  import jax

  stats = device.memory_stats() or {}
  if 'bytes_limit' in stats:
    return stats['bytes_limit'] - stats.get('bytes_in_use', 0)
  if device.platform != 'cpu' or not hasattr(os, 'sysconf'):
    return 0
  limit = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  with contextlib.suppress(OSError, ValueError):  # 'max' is no number.
    limit = min(limit, int(_CONTAINER_LIMIT.read_text()))
  return limit // jax.local_device_count()


def is_exhausted(error: Exception) -> bool:
  """Returns whether an error of JAX or Python says that memory ran out."""
  # JAX has one class for all errors of the device; the text tells.
  return isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error)


@contextlib.contextmanager
def naming_remedies(remedies: str) -> Iterator[None]:
  """Adds to errors of used up memory what to change.

  Args:
    remedies: Sentence that says what the user can do.

  Raises:
    UserError: for that error, of any device; others stay what they are.
  """
  import jax

  try:
    yield
  except (jax.errors.JaxRuntimeError, MemoryError) as error:
    if not is_exhausted(error):
      raise
    first = str(error).partition('\n')[0] or 'no more memory'
    raise errors.UserError(
      f'The memory of the {jax.default_backend().upper()} is used up. '
      f'{remedies} ({first})'
    ) from error
