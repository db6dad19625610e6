"""The report of a prediction: one JSON line for each photo."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from data_pipelines.io import files


@dataclasses.dataclass(kw_only=True)
class Entry:
  """The outcome for one photo.

  Attributes:
    photo: its path.
    status: 'done', 'skipped' (its results were there), or 'failed'.
    width: of the photo in pixels, upright.
    height: of the photo in pixels, upright.
    seconds: spent on reading, refining and writing it, without the network,
      which photos share.
    foreground: its mean alpha.
    notes: what of the photo could not be kept.
    frames: of a clip.
    error: why it failed.
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


class Report:
  """Writes `report.jsonl`, a line as soon as a photo's fate is known.

  A killed run loses no line. The next run takes the lines over: at its end,
  there is one for each photo, its latest. Lines of other makers are kept.
  """

  def __init__(self, path: Path):
    """Reads what earlier runs left at the path."""
    self._path = path
    self._others, self._lines, is_whole = _read_lines(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    self._file = path.open('a', encoding='utf-8')
    if not is_whole:  # Or the next line would go on where a kill cut one off.
      self._file.write('\n')

  def add(self, entry: Entry) -> None:
    """Adds what became of a photo."""
    line = dataclasses.asdict(entry)
    before = self._lines.get(entry.photo, {})
    if entry.status == 'skipped' and before.get('status') != 'failed':
      # What the run that did it found out stays true.
      line = {**line, **before, 'status': 'skipped'}
    self._lines[entry.photo] = line
    self._file.write(_to_text(line))
    self._file.flush()

  def close(self) -> None:
    """Leaves one line for each photo."""
    self._file.close()
    with files.write_atomically(self._path) as partial:
      partial.write_text(
        ''.join(map(_to_text, [*self._others, *self._lines.values()])),
        encoding='utf-8',
      )


def _to_text(line: Any) -> str:
  """Returns one line, whatever bytes or ends of lines a name has."""
  text = json.dumps(line, ensure_ascii=False)
  try:
    text.encode()
  except UnicodeEncodeError:  # A name that is not UTF-8.
    text = json.dumps(line)
  if len(text.splitlines()) > 1:  # For readers that take U+2028 for an end.
    text = json.dumps(line)
  return text + '\n'


def _read_lines(
  path: Path,
) -> tuple[list[Any], dict[str, dict[str, Any]], bool]:
  """Reads a report.

  Returns:
    (what is no line of a photo, the lines by photo, whether the last line has
    an end).
  """
  others, lines = [], {}
  content = path.read_bytes() if path.exists() else b''
  for text in content.split(b'\n'):
    try:
      line = json.loads(text)
    except ValueError:  # Cut off by a kill, perhaps within a character.
      continue
    if isinstance(line, dict) and isinstance(line.get('photo'), str):
      lines[line['photo']] = line
    else:
      others.append(line)
  return others, lines, not content or content.endswith(b'\n')
