"""Writes the report of a prediction: one JSON line for each photo."""

import collections
import dataclasses
import datetime
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.io import errors, files, storage
from rmbg_jax.batch import listing

# Below an output: a report in parts, which are written once and never changed.
FOLDER = 'report'
_PART = 1000  # Lines.
_FAILURES = 1000  # Remembered, to be printed.
_WAIT = 60.0  # Seconds that a line waits for others at most.


@dataclasses.dataclass(kw_only=True)
class Entry:
  """The outcome for one photo.

  Attributes:
    photo: Its path.
    status: 'done', 'skipped' (its results were there), or 'failed'.
    width: Width of the upright photo in pixels.
    height: Height of the upright photo in pixels.
    seconds: Spent on reading, refining and writing it, without the network,
      which photos share.
    foreground: Its mean alpha.
    notes: Sentences about what could not be kept of the photo.
    frames: Number of a clip's frames.
    error: Why it failed.
    made: Results that were made, by their names relative to the output: bytes
      of each, and the stamp of the photo's state (see `storage.State`).
    remark: What is to be said of results that were there.
    runtime: What computed it, such as 'openvino, bfloat16'.
  """

  photo: str
  status: str
  width: int | None = None
  height: int | None = None
  seconds: float | None = None
  foreground: float | None = None
  notes: tuple[str, ...] = ()
  frames: int | None = None
  error: str = ''
  made: dict[str, tuple[int, str]] = dataclasses.field(default_factory=dict)
  remark: str = ''
  runtime: str = ''


def pass_over(job: listing.Job, error: str) -> Entry:
  """Returns the outcome of a photo that has an error, or needs no work."""
  return Entry(
    photo=str(job.photo),
    status='failed' if error else 'skipped',
    error=error,
    remark='' if error else job.remark,
  )


class Tally:
  """The outcome of a run: numbers of photos, and how it ended.

  Attributes:
    counts: Numbers of photos by status.
    remarks: Numbers of photos by remark.
    runtimes: Numbers of photos by what computed them.
    failures: The first of those that failed.
    interrupted: Whether it was ended by SIGINT.
    trouble: Why it was ended, or its report is not whole; '' if neither.
  """

  def __init__(self):
    self.counts: collections.Counter[str] = collections.Counter()
    self.remarks: collections.Counter[str] = collections.Counter()
    self.runtimes: collections.Counter[str] = collections.Counter()
    self.failures: list[Entry] = []
    self.interrupted = False
    self.trouble = ''

  def add(self, entry: Entry) -> None:
    """Counts a photo's outcome."""
    self.counts[entry.status] += 1
    if entry.runtime:
      self.runtimes[entry.runtime] += 1
    if entry.remark and entry.status != 'failed':
      self.remarks[entry.remark] += 1
    if entry.status == 'failed' and len(self.failures) < _FAILURES:
      self.failures.append(entry)

  def merge(self, other: 'Tally') -> None:
    """Adds another tally."""
    self.counts += other.counts
    self.remarks += other.remarks
    self.runtimes += other.runtimes
    self.failures += other.failures[: _FAILURES - len(self.failures)]


class Report:
  """Writes `report.jsonl`, a line as soon as a photo's fate is known.

  A killed run loses no line. The next run takes the lines over, and at its end
  keeps the latest for each photo. Lines of other programs are kept as well.
  """

  def __init__(self, path: Path):
    """Reads what earlier runs left at the path."""
    self._path = path
    content = _read(path)
    _, self._lines = _parse(content)
    self._added: dict[str, dict[str, Any]] = {}
    path.parent.mkdir(parents=True, exist_ok=True)
    self._file = path.open('a', encoding='utf-8')
    if content and not content.endswith(b'\n'):
      self._file.write('\n')  # Or the next line would go on with the cut one.

  def add(self, entry: Entry) -> None:
    """Adds a photo's outcome; a skipped one gets the runtime that it had."""
    photo = entry.photo
    if entry.status == 'skipped':
      entry.runtime = self._lines.get(photo, {}).get('runtime', '')
    line = dataclasses.asdict(entry)
    for lines in (self._lines, self._added):
      lines[photo] = _merge(lines.get(photo, {}), line)
    self._file.write(_to_text(self._lines[photo]))
    # At once, so that a killed run loses no line.
    self._file.flush()

  def close(self) -> None:
    """Leaves one line for each photo."""
    self._file.close()
    # Read again: another run at this output may have added lines meanwhile.
    self._lines.clear()
    others, lines = _parse(_read(self._path))
    for photo, line in self._added.items():
      lines[photo] = _merge(lines.get(photo, {}), line)
    with files.write_atomically(self._path) as partial:
      partial.write_text(
        ''.join(map(_to_text, [*others, *lines.values()])), encoding='utf-8'
      )


def _merge(before: Mapping[str, Any], line: dict[str, Any]) -> dict[str, Any]:
  """Returns a photo's line, with what its line before says that stays true."""
  # Kinds that are left alone were made before.
  made = {**before.get('made', {}), **line['made']}
  if line['status'] == 'skipped' and before.get('status') != 'failed':
    # The findings of the run that made the result.
    line = {**line, **before, 'status': 'skipped', 'remark': line['remark']}
  return {**line, 'made': made}


def _read(path: Path) -> bytes:
  return path.read_bytes() if path.exists() else b''


def _parse(content: bytes) -> tuple[list[Any], dict[str, dict[str, Any]]]:
  """Returns the lines of other programs, and the latest for each photo."""
  others, lines = [], {}
  for text in content.split(b'\n'):
    try:
      line = json.loads(text)
    except ValueError:  # Cut off by a kill, perhaps within a character.
      continue
    if isinstance(line, dict) and isinstance(line.get('photo'), str):
      lines[line['photo']] = line
    else:
      others.append(line)
  return others, lines


class PartedReport:
  """Writes `report/RUN-NUMBER.jsonl`: stores can add nothing to a file.

  A killed run loses the lines of its last minute; the next run finds what was
  done, and says so.
  """

  def __init__(self, output: storage.Place, name: str = ''):
    """Begins a report at the output, of a run's name or a new one."""
    self._output = output
    self._name = name or name_run()
    self._lines: list[str] = []
    self._parts = 0
    self._written = time.monotonic()

  def add(self, entry: Entry) -> None:
    """Adds a photo's outcome."""
    self._lines.append(to_line(entry))
    is_late = time.monotonic() - self._written > _WAIT
    if len(self._lines) >= _PART or is_late:
      self.close()

  def close(self) -> None:
    """Writes the lines that wait."""
    if self._lines:
      name = f'{self._name}-{self._parts:06}.jsonl'
      storage.write(self._output / FOLDER / name, ''.join(self._lines).encode())
      self._parts += 1
    self._lines, self._written = [], time.monotonic()


def name_run() -> str:
  """Returns a name for a run that sorts behind those of earlier runs."""
  now = datetime.datetime.now(datetime.UTC)
  return now.strftime('%Y%m%dT%H%M%S.%f')  # Runs may begin within one second.


def digest(text: str) -> bytes:
  """Returns a digest of 16 bytes."""
  content = text.encode(errors='surrogatepass')
  return hashlib.blake2b(content, digest_size=16).digest()


def to_line(entry: Entry) -> str:
  """Returns an entry as one line of JSON, with its end."""
  return _to_text(dataclasses.asdict(entry))


def list_parts(output: storage.Place) -> list[str]:
  """Returns the names of an output's parts, sorted by run."""
  return [
    name
    for name in storage.list_names(output / FOLDER)
    # Manifest and tries are in folders.
    if name.endswith('.jsonl') and '/' not in name
  ]


def join_parts(output: storage.Place) -> Iterator[str]:
  """Yields one line for each photo of an output's `report/`, its latest.

  Of a photo that was skipped, that is what the run that did it wrote, with the
  status 'skipped', as in a report of one file.

  Raises:
    MissingFileError: if there is no such report.
    UserError: if it cannot be read.
  """
  parts = list_parts(output)
  if not parts:
    raise errors.MissingFileError(
      f'{output / FOLDER}: no parts of a report (*.jsonl). Pass the --output '
      'of a run to a URL, or of --engine=ray; others leave report.jsonl in it.'
    )
  # Ten million digests fit into memory; as many names do not.
  seen: set[bytes] = set()
  skipped: dict[bytes, Any] = {}
  # Backwards: the first line that is met of a photo is its latest.
  for part in reversed(parts):
    text = storage.read(output / FOLDER / part).decode(errors='replace')
    for line in map(json.loads, filter(None, text.split('\n'))):
      key = digest(line['photo'])
      if key in seen:
        continue
      if line['status'] == 'skipped':
        # It waits for the line of the run that did the photo.
        skipped.setdefault(key, line)
        continue
      seen.add(key)
      later = skipped.pop(key, None)
      if later and line['status'] == 'done':
        line['status'] = 'skipped'
      # A photo that failed and is now there: only the later line is true.
      yield _to_text(later if later and line['status'] == 'failed' else line)
  yield from map(_to_text, skipped.values())


def _to_text(line: Any) -> str:
  """Returns one line, even for names with odd bytes or ends of lines."""
  text = json.dumps(line, ensure_ascii=False)
  # Names may not be UTF-8, or have what readers take for an end (U+2028).
  return (text if text.isprintable() else json.dumps(line)) + '\n'
