"""The processor, and work on many files at once in bounded memory."""

import collections
import contextlib
import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from pathlib import Path
from typing import TypeVar

# Linux's names for those of x86 and Arm.
_INSTRUCTION_SETS = (
  'avx2',
  'avx512f',
  'avx512_bf16',
  'amx_bf16',
  'asimd',
  'bf16',
)

_Item = TypeVar('_Item')
_Result = TypeVar('_Result')


def count_cores() -> int:
  """Returns how many cores this process may use, as far as the system says."""
  # It may have been given fewer than the machine has; not all systems say so.
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def name_processor() -> str:
  """Returns the processor's name, its architecture where it says no more."""
  return _find_fact('model name') or platform.processor() or platform.machine()


def list_instruction_sets() -> list[str]:
  """Returns the instruction sets that speed networks up, of this processor."""
  present = _find_fact('flags|Features').split()
  return [name for name in _INSTRUCTION_SETS if name in present]


def _find_fact(key: str) -> str:
  """Returns what Linux says of the first processor, '' if it does not."""
  try:
    text = Path('/proc/cpuinfo').read_text()
  except OSError:
    return ''
  found = re.search(rf'^(?:{key})\s*: (.+)$', text, re.MULTILINE)
  return found[1] if found else ''


def map_in_order(
  function: Callable[[_Item], _Result],
  items: Iterable[_Item],
  *,
  pool: futures.Executor | None = None,
  ahead: int = 8,
) -> Iterator[_Result]:
  """Yields the results in the items' order, a few being computed ahead.

  The first exception ends the work; what was not begun is given up.

  Args:
    function: What makes a result of an item.
    items: Taken as their turn comes.
    pool: What computes; None for threads, one per core: Pillow decodes,
      resizes and encodes without Python's lock.
    ahead: Items per core that are taken ahead of the results.
  """
  cores = count_cores()
  own = (
    contextlib.nullcontext(pool) if pool else futures.ThreadPoolExecutor(cores)
  )
  pending: collections.deque = collections.deque()
  with own as workers:
    try:
      for item in items:
        pending.append(workers.submit(function, item))
        if len(pending) >= ahead * cores:
          yield pending.popleft().result()
      while pending:
        yield pending.popleft().result()
    finally:
      for future in pending:
        future.cancel()
