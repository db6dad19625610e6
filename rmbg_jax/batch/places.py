"""Finds out from the flags where photos are and where results go.

One photo and the name of an image are one file in and one file out; anything
else is a folder of results.
"""

import dataclasses
import glob
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from data_pipelines.io import errors, storage, suffixes
from rmbg_jax.batch import clip_names

STANDARD = '-'
# Formats of results by their files' endings.
FORMATS = {'.png': 'png', '.webp': 'webp', '.jpg': 'jpeg', '.jpeg': 'jpeg'}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Places:
  """Input and output of a run.

  Attributes:
    sources: Inputs as `listing.list_jobs` takes each; one, or several files.
    output: Folder or URL of the results; the file, if `is_file`, where '' is
      for one beside the photo.
    is_file: Whether there is one photo, and one file as the result.
  """

  sources: tuple[str, ...]
  output: str
  is_file: bool = False


def settle(
  source: str | None, output: str | None, rest: Sequence[str]
) -> Places:
  """Returns the places that flags and the arguments after them name.

  Args:
    source: Value of --input, None if it was not passed.
    output: Value of --output, None if it was not passed.
    rest: Arguments that are no flags: further inputs, as a shell makes of a
      pattern. Two of them without either flag are the input and the output.

  Raises:
    MissingFileError: if the only input is not there.
    UserError: if one of the two is missing, the input is a pipe, or the output
      cannot be a folder.
  """
  for name, value in (('input', source), ('output', output)):
    # As an unset variable of a shell makes it; Path('') is this folder.
    if value == '':
      raise errors.UserError(f'--{name}= is empty. Pass a path.')
  rest = list(rest)
  if source is None and output is None and len(rest) == 2:
    output = rest.pop()
  sources = (*([source] if source is not None else []), *rest)
  if not sources:
    raise errors.UserError(
      '--input is missing. Pass a photo, a folder, a pattern in quotes, a list '
      'or a URL; --help says more.'
    )
  if STANDARD in sources:
    return Places(sources=sources, output=output or '')
  if len(sources) == 1 and not _may_exist(sources[0]):
    raise errors.MissingFileError(
      f'--input={sources[0]}: no such file or folder.'
    )
  for one in sources:
    if _is_stream(one):
      raise errors.UserError(
        f'--input={one}: neither a file nor a folder. Pass - for standard '
        'input.'
      )
  is_one = len(sources) == 1 and _is_photo(sources[0])
  if output is None:
    if not is_one:
      raise errors.UserError(
        '--output is missing. Pass the folder for the results.'
      )
    return Places(sources=sources, output='', is_file=True)
  ending = Path(output).suffix.lower()
  is_image = ending in suffixes.PHOTO | suffixes.CLIP
  # A folder may have a name such as `results.png`.
  if not is_image or (not storage.is_url(output) and Path(output).is_dir()):
    return Places(sources=sources, output=output)
  if not is_one or ending not in FORMATS:
    raise errors.UserError(
      f'--output={output}: that is the name of one file. Pass the path of one '
      f'photo as input and a name in {", ".join(FORMATS)}; or a folder, as '
      'clips, several photos and URLs need it.'
    )
  return Places(sources=sources, output=output, is_file=True)


def check_file(photo: str, output: storage.Place, *, overwrite: bool) -> None:
  """Raises a `UserError` if the file is there, or is the photo itself."""
  if not storage.exists(output):
    return
  if isinstance(output, Path) and output.samefile(photo):
    raise errors.UserError(
      f'--output={output} is the photo itself. Pass another name.'
    )
  if not overwrite:
    raise errors.UserError(
      f'{output} is there already. Pass --overwrite to replace it, or another '
      'name; for several photos, --output=FOLDER.'
    )


def check_apart(source: str, output: storage.Place) -> None:
  """Raises a `UserError` if the results would be among the photos."""
  root = storage.parse(source)
  is_folder = isinstance(root, storage.Url) or root.is_dir()
  if is_folder and is_below(output, root):
    raise errors.UserError(
      f'--output={output} is inside --input={source}: the next run would take '
      'the results for photos. Pass a folder beside it.'
    )


def is_below(place: storage.Place, parent: storage.Place) -> bool:
  """Returns whether a place is within another, or the same."""
  if isinstance(place, Path) and isinstance(parent, Path):
    # Links and `..` may hide it.
    return place.resolve().is_relative_to(parent.resolve())
  # With slashes, or `photos2` would be below `photos`.
  return f'{place}/'.startswith(f'{parent}/')


def _may_exist(source: str) -> bool:
  return (
    storage.is_url(source)
    or glob.has_magic(source)
    or storage.exists(Path(source))
  )


def _is_stream(source: str) -> bool:
  """Returns whether an input is a pipe or the like, which is read but once."""
  try:
    mode = os.stat(source).st_mode  # noqa: PTH116 (Path's questions may raise)
  except (OSError, ValueError):
    return False  # Its own turn says what is wrong, and costs no other.
  return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _is_photo(source: str) -> bool:
  """Returns whether an input is one file that is no list and no clip."""
  path = Path(source)
  return (
    not storage.is_url(source)
    and path.suffix.lower() != '.txt'
    and path.is_file()
    and not clip_names.is_clip(path)
  )
