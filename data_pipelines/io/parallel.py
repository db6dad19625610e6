"""Works on many files at once, in memory that does not grow with them."""

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import TypeVar

_Item = TypeVar('_Item')
_Result = TypeVar('_Result')


def count_cores() -> int:
  """Returns how many cores this process may use, as far as the system says."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def map_in_order(
  function: Callable[[_Item], _Result], items: Iterable[_Item]
) -> Iterator[_Result]:
  """Yields the results in the items' order, a few being computed ahead.

  Threads, one per core: Pillow decodes, resizes and encodes without Python's
  lock. The first exception ends the work; what was not begun is given up.
  """
  cores = count_cores()
  with futures.ThreadPoolExecutor(cores) as pool:
    pending: collections.deque = collections.deque()
    try:
      for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) >= 8 * cores:
          yield pending.popleft().result()
      while pending:
        yield pending.popleft().result()
    finally:
      pool.shutdown(cancel_futures=True)
