"""The report of a prediction: one JSON line for each photo."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from rmbg_jax import files


@dataclasses.dataclass(kw_only=True)
class Entry:
  """What became of a photo.

  Attributes:
    photo: its path.
    status: 'done', 'skipped' (its results were there), or 'failed'.
    width: of the photo in pixels, upright.
    height: of the photo in pixels, upright.
    seconds: spent on reading, refining and writing it, without the network,
      which photos share.
    foreground: its mean alpha.
    notes: what of the photo could not be kept.
    error: why it failed.
  """

  photo: str
  status: str
  width: int | None = None
  height: int | None = None
  seconds: float | None = None
  foreground: float | None = None
  notes: tuple[str, ...] = ()
  error: str = ''


class Report:
  """Writes `report.jsonl`, a line as soon as a photo's fate is known.

  A killed run loses no line. The next run takes the lines over: at its end,
  there is one for each photo, its latest.
  """

  def __init__(self, path: Path):
    """Reads what earlier runs left at the path."""
    self._path = path
    self._lines = _read_lines(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    self._file = path.open('a', encoding='utf-8')

  def add(self, entry: Entry) -> None:
    """Adds what became of a photo."""
    line = dataclasses.asdict(entry)
    if entry.status == 'skipped':
      # What the run that did it found out stays true.
      line = {**line, **self._lines.get(entry.photo, {}), 'status': 'skipped'}
    self._lines[entry.photo] = line
    self._file.write(json.dumps(line, ensure_ascii=False) + '\n')
    self._file.flush()

  def close(self) -> None:
    """Leaves one line for each photo."""
    self._file.close()
    with files.write_atomically(self._path) as partial:
      partial.write_text(
        ''.join(
          json.dumps(line, ensure_ascii=False) + '\n'
          for line in self._lines.values()
        ),
        encoding='utf-8',
      )


def _read_lines(path: Path) -> dict[str, dict[str, Any]]:
  lines = {}
  if path.exists():
    for text in path.read_text(encoding='utf-8').splitlines():
      try:
        line = json.loads(text)
      except json.JSONDecodeError:  # Cut off by a kill.
        continue
      lines[line['photo']] = line
  return lines
