"""Work on many files at once, with memory that does not grow with them."""

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any


def map_in_order(
  function: Callable[[Any], Any], items: Iterable[Any]
) -> Iterator[Any]:
  """Yields the results in the items' order, a few being computed ahead.

  Threads, one per core: Pillow decodes, resizes and encodes without Python's
  lock. The first exception ends the work; what was not begun is given up.
  """
  cores = os.cpu_count() or 1
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
