"""Prints the outcome of a run."""

import collections
from collections.abc import Sequence

from data_pipelines.io import errors, suffixes, words
from rmbg_jax.batch import clip_names, listing, pipeline, report

INTERRUPTED = 130  # The shell's exit code for SIGINT.
_ENDINGS = 8  # Printed endings of files that are no photos.


def describe_stop(*, overwrite: bool) -> str:
  """Returns the answer to Ctrl-C."""
  if overwrite:
    return 'Interrupted. With --overwrite, the same command begins anew.'
  return 'Interrupted. The same command goes on where it stopped.'


def count_jobs(number: int, jobs: Sequence[listing.Job]) -> str:
  """Returns a number of jobs with their name, such as '3 photos'."""
  kinds = {job.is_clip for job in jobs}
  if len(kinds) > 1:
    return f'{number:,} photos and clips'
  return words.count(number, 'clip' if kinds == {True} else 'photo')


def print_counts(tally: report.Tally, what: str, task: pipeline.Task) -> None:
  """Prints how many of `what` are done, where they are, and what failed."""
  counts = tally.counts
  print(
    f'{counts["done"] + counts["skipped"]} of {what} done'
    + (f' ({counts["skipped"]} of them before)' if counts['skipped'] else '')
    + ': '
    + ', '.join(str(task.output / kind) for kind in task.kinds)
  )
  if counts['skipped']:
    print(
      'What was done before was left as it is, whatever the flags are now; '
      '--overwrite does it anew.'
    )
  for remark, count in tally.remarks.items():
    print(f'{count} of them {remark}.')
  if len(tally.runtimes) > 1:
    ways = [f'{n} by {name}' for name, n in tally.runtimes.most_common()]
    print(
      f'Computed in several ways: {"; ".join(ways)}. --overwrite makes all '
      'alike.'
    )
  for entry in tally.failures:
    print(f'Failed: {entry.photo}: {entry.error}')
  if counts['failed'] > len(tally.failures):
    print(
      f'... and {counts["failed"] - len(tally.failures)} others: see the '
      'report.'
    )


def print_others(others: collections.Counter[str]) -> None:
  """Prints how many files were not taken for photos, by their endings."""
  others = +others  # Without endings of which there are none.
  if not others:
    return
  counts = [f'{ending}: {n}' for ending, n in others.most_common(_ENDINGS)]
  counts += ['...'] if len(others) > _ENDINGS else []
  print(
    f'Left out, not photos by their names: '
    f'{words.count(sum(others.values()), "file")} ({", ".join(counts)})'
  )
  if not clip_names.HAS_AV and set(others) & suffixes.CLIP:
    command = errors.install_command('video')
    print(f'Clips are done too with PyAV: {command}.')
