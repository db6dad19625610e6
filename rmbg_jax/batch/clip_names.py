"""Tells clips from photos by their files, and names their results."""

import importlib.util
import re
from pathlib import Path

from data_pipelines.io import errors, suffixes

# Endings of both photos and moving pictures.
_EITHER = frozenset({'.gif', '.png', '.apng'})
_PNG_START = 4096  # Bytes that have what says that a PNG moves.

# Looked for, not imported: an import loads FFmpeg.
HAS_AV = importlib.util.find_spec('av') is not None

# Once: a listing asks for it at every file.
_PHOTOS_AND_CLIPS = suffixes.PHOTO | suffixes.CLIP
# Endings of cut-out clips by format: files, or folders of frames.
_CUTOUTS = {'prores': '.mov', 'vp9': '.webm', 'png': '.frames'}


def list_endings() -> frozenset[str]:
  """Returns the endings of what is done in a folder; clips need PyAV."""
  return _PHOTOS_AND_CLIPS if HAS_AV else suffixes.PHOTO


def is_clip(path: Path) -> bool:
  """Returns whether a file is a moving picture, by name or first bytes."""
  suffix = path.suffix.lower()
  if suffix in suffixes.CLIP:
    return True
  # Reading a pipe would wait for ever.
  if suffix not in _EITHER or not HAS_AV or not path.is_file():
    return False
  try:
    # A GIF does not say at its beginning whether a second frame follows.
    if suffix == '.gif':
      from data_pipelines.io import images  # And with it NumPy and Pillow.

      with images.opened(path) as image:
        return getattr(image, 'is_animated', False)
    with path.open('rb') as file:
      # A PNG that moves has the chunk acTL before its first IDAT.
      return b'acTL' in file.read(_PNG_START).partition(b'IDAT')[0]
  except (OSError, ValueError):
    return False  # Reading it as a photo will say what is wrong.


def check_support() -> None:
  """Raises a `UserError` if PyAV, which reads clips, is not installed."""
  if not HAS_AV:
    raise errors.UserError(
      f'clips need PyAV: {errors.install_command("video")}.'
    )


def find_frames(folder: Path) -> list[Path]:
  """Returns the numbered frames of a folder, in the order of their numbers.

  Raises:
    UserError: if there is none, or two have the same number.
  """
  found = {}
  for path in sorted(folder.iterdir()):
    if path.suffix.lower() not in suffixes.PHOTO or path.name.startswith('.'):
      continue
    numbers = re.findall(r'\d+', path.stem)
    if not numbers:
      continue
    # The last number counts frames: `take2_0001.png` has another before it.
    other = found.setdefault(int(numbers[-1]), path)
    if other != path:
      raise errors.UserError(
        f'--frames: {other} and {path.name} have the same number. Leave one of '
        'them out.'
      )
  if not found:
    raise errors.MissingFileError(
      f'--frames: no numbered frames in {folder} (such as 0001.png).'
    )
  return [found[number] for number in sorted(found)]


def suffix(kind: str, form: str) -> str:
  """Returns how names of a kind end, in one of `choices.CLIP_FORMATS`."""
  return _CUTOUTS[form] if kind == 'cutout' or form == 'png' else '.mp4'
