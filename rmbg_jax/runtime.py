"""What a command line sets up before JAX is used."""

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

import jax
from absl import logging

from rmbg_jax.pretrained import download

# As JAX names it to those who listen.
COMPILATION = '/jax/core/compile/backend_compile_duration'
_LONG = 1.0  # Seconds; what compiles faster leaves little behind.


def start() -> None:
  """Quietens libraries and keeps compiled programs for the next process.

  Respects `JAX_COMPILATION_CACHE_DIR` where the user has set it.
  """
  logging.set_verbosity(logging.WARNING)  # Orbax and JAX are talkative.
  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    cache = download.cache_dir() / 'xla'
    jax.config.update('jax_compilation_cache_dir', str(cache))
  return_memory_after_compiling()


def return_memory_after_compiling() -> None:
  """Has the memory that a compilation leaves behind returned to the system.

  glibc keeps what was freed for the next allocation, but the buffers of the
  compiled program never come from there: without this, the original network's
  training step holds a gigabyte that nobody uses. Other systems are left alone.
  """
  trim = find_trim()

  def listen(event: str, seconds: float, **details: Any) -> None:
    del details
    if event == COMPILATION and seconds > _LONG:
      trim(0)

  if trim:
    jax.monitoring.register_event_duration_secs_listener(listen)


def find_trim() -> Callable[[int], int] | None:
  """Returns glibc's `malloc_trim`, None on other systems."""
  if not sys.platform.startswith('linux'):
    return None
  return getattr(ctypes.CDLL(None), 'malloc_trim', None)
