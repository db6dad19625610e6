"""Notices files that appear in a folder, once they are complete."""

import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rmbg_jax.batch import listing

_TICK = 500  # Milliseconds between two looks at what is not complete yet.
# Seconds without a change after which a file is tried, and after which what
# cannot be read is believed to be broken, not half written.
_SETTLED = 1.0
_GIVEN_UP = 30.0
# The folder is listed again after so many seconds, or so many times as long as
# its listing took, even if no change is noticed: systems tell nothing of other
# machines' changes, of a new folder of that name, and of results that go.
_LISTED_AGAIN, _LISTING_SHARE = 3.0, 20


def watch(
  folder: Path,
  *,
  list_jobs: Callable[[], Sequence[listing.Job]],
  do: Callable[[Sequence[listing.Job], Callable[[str], bool]], None],
  stop: threading.Event,
) -> None:
  """Does the files of a folder and those that appear there, until stopped.

  For each photo that fails, `do` must call its second argument with the path:
  True means that the file may be incomplete, and will be tried again.
  """
  import watchfiles

  arrivals = _Arrivals()
  next_listing = 0.0
  for changes in watchfiles.watch(
    folder,
    # watchfiles' own filter is for folders of source code.
    watch_filter=None,
    stop_event=stop,
    rust_timeout=_TICK,
    yield_on_timeout=True,
    raise_interrupt=False,  # SIGINT sets `stop`.
  ):
    # List after watching began, so that no file is missed.
    if changes or arrivals.is_waiting or time.monotonic() >= next_listing:
      began = time.monotonic()
      jobs = list_jobs()
      ended = time.monotonic()
      pause = max(_LISTED_AGAIN, _LISTING_SHARE * (ended - began))
      next_listing = ended + pause
      if ready := arrivals.update(jobs):
        do(ready, arrivals.put_back)
    if stop.is_set():
      return


@dataclasses.dataclass(kw_only=True)
class _File:
  stamp: tuple[int, int]  # Size and time.
  since: float  # When it was first seen with this stamp.
  tried_again: float = 0.0  # When its second try may be, once it has failed.
  is_broken: bool = False  # Not tried again unchanged.


class _Arrivals:
  """Files that are not done yet, and since when each has not changed."""

  def __init__(self):
    self._files: dict[Path, _File] = {}

  @property
  def is_waiting(self) -> bool:
    """Whether something has to be looked at again without a change."""
    return not all(file.is_broken for file in self._files.values())

  def update(self, jobs: Sequence[listing.Job]) -> list[listing.Job]:
    """Returns which jobs are ready.

    A file that has failed is not tried again before it changes. What is not
    among the jobs is done, or gone, and is forgotten.
    """
    now, before = time.monotonic(), self._files
    self._files, ready = {}, []
    for job in jobs:
      path = job.photo
      try:
        # A link that leads nowhere, or elsewhere, is a fault itself.
        stat = path.lstat() if job.error else path.stat()
      except OSError:
        continue  # Gone again.
      stamp = stat.st_size, stat.st_mtime_ns
      file = before.get(path)
      if file is None or file.stamp != stamp:
        file = _File(stamp=stamp, since=now)
      self._files[path] = file
      is_due = now - file.since >= _SETTLED and now >= file.tried_again
      if is_due and not file.is_broken:
        ready.append(job)
    return ready

  def put_back(self, photo: str) -> bool:
    """Returns whether a failed file may be half written: it is tried again."""
    file = self._files[Path(photo)]
    # The last try is at the end; whatever it says is true then.
    file.is_broken = (
      file.tried_again > 0 or time.monotonic() - file.since >= _GIVEN_UP
    )
    file.tried_again = file.since + _GIVEN_UP
    return not file.is_broken
