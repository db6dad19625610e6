"""Chooses how a prediction is done: one photo, many, by URL, on a cluster.

NumPy and Pillow are imported once the settings are known to fit each other.
"""

import dataclasses
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipelines.io import errors, files, storage
from rmbg_jax import choices
from rmbg_jax.batch import places

if TYPE_CHECKING:
  from data_pipelines.io import images
  from rmbg_jax.batch import session


# What to save of folders.
_KINDS = ('mask', 'cutout')
_FORMAT = 'png'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """The flags that decide how a prediction is done.

  Attributes:
    kinds: Kinds to save, of `choices.KINDS`; None for what suits the input.
    format: Format of the files; None for PNG, or what the output's name says.
    cluster: Attributes of `cluster.Cluster`; None for this process.
    make_request: Makes the `session.Request` of an output, kinds and a format.
  """

  kinds: tuple[str, ...] | None
  format: str | None
  has_background: bool
  overwrite: bool
  shard: str
  watch: bool
  frames: bool
  cluster: Mapping[str, Any] | None  # Any: each of its own type.
  make_request: Callable[
    [storage.Place, tuple[str, ...], str], 'session.Request'
  ]


def predict(where: places.Places, settings: Settings) -> bool:
  """Predicts; returns whether any photo failed.

  Raises:
    SystemExit: if it was interrupted.
    UserError: if the settings do not fit each other or the places, or there is
      nothing to do.
  """
  try:
    if places.STANDARD in (*where.sources, where.output):
      return _predict_standard(where, settings)
    if where.is_file:
      return _predict_file(where, settings)
    return _predict_files(where, settings)
  except KeyboardInterrupt as error:  # While the network is loaded.
    from rmbg_jax.batch import summary

    said = summary.describe_stop(overwrite=settings.overwrite)
    print(said, file=sys.stderr)  # Standard output may be for a photo.
    raise SystemExit(summary.INTERRUPTED) from error


def parse_actors(text: str) -> tuple[int, int] | None:
  """Returns (fewest, most) actors, None where the flag leaves it open.

  Raises:
    UserError: if it is neither a number nor a range.
  """
  if not text:
    return None
  found = re.fullmatch(r'(\d+):?(\d*)', text)
  fewest, most = map(int, (found[1], found[2] or found[1])) if found else (0, 0)
  if not 0 < fewest <= most:
    raise errors.UserError(
      f'--actors={text}: pass a number from 1 on, or FEWEST:MOST, such as 2:8.'
    )
  return fewest, most


def parse_scales(texts: Sequence[str] | None) -> tuple[float, ...] | None:
  """Returns multiples of the network's input size, None for its own.

  Raises:
    UserError: if one of them is no number, or out of range.
  """
  if texts is None:
    return None
  most = choices.MAX_SCALE
  try:
    scales = tuple(map(float, texts))
  except ValueError:
    scales = ()  # Refused below.
  if not scales or not all(0 < scale <= most for scale in scales):
    raise errors.UserError(
      f'--scales={",".join(texts)}: pass numbers above 0 and at most {most}, '
      'such as 0.75,1,1.25.'
    )
  return scales


def _choose_one(settings: Settings) -> tuple[str, ...]:
  if settings.kinds is not None:
    return settings.kinds
  return ('composite',) if settings.has_background else ('cutout',)


def _find_suffix(settings: Settings) -> str:
  """Returns the ending of the one result of a photo without --output."""
  from rmbg_jax.inference import rendering

  kind = next(iter(_choose_one(settings)), 'cutout')
  style = rendering.Style(format=settings.format or _FORMAT)
  return f'-{kind}{style.suffix(kind)}'


def _check_alone(settings: Settings) -> None:
  """Refuses flags that mean nothing for one photo and one file."""
  for name in ('watch', 'frames', 'shard'):
    if getattr(settings, name):
      raise errors.UserError(
        f'--{name} is for folders. Pass them as --input and --output.'
      )
  if settings.cluster is not None:
    raise errors.UserError(
      '--engine=ray is for many photos. Leave it out, or pass folders.'
    )


def _predict_standard(where: places.Places, settings: Settings) -> bool:
  """Cuts out one photo, from standard input to standard output."""
  from data_pipelines.io import images

  if {*where.sources, where.output} != {places.STANDARD}:
    raise errors.UserError(
      '- stands for both: pass --input=- and --output=- together.'
    )
  kinds = settings.kinds or ()
  if len(kinds) != 1:
    raise errors.UserError(
      'Standard output takes exactly one kind, such as --save=cutout.'
    )
  _check_alone(settings)
  # Nothing goes to a folder.
  request = settings.make_request(Path(), kinds, settings.format or _FORMAT)
  given = sys.stdin.buffer.read()
  source = images.Encoded('--input=-', stamp='', read_bytes=lambda: given)
  content, notes = _cut_out_one(source, request)
  sys.stdout.buffer.write(content)
  for note in notes:
    print(f'--input=-: {note}.', file=sys.stderr)
  return False


def _predict_file(where: places.Places, settings: Settings) -> bool:
  """Cuts out one photo into one file."""
  (source,), output = where.sources, storage.parse(where.output)
  if not where.output:
    output = Path(source).with_name(Path(source).stem + _find_suffix(settings))
  _check_alone(settings)
  places.check_file(source, output, overwrite=settings.overwrite)
  kinds = _choose_one(settings)
  if len(kinds) != 1:
    raise errors.UserError(
      f'--save={",".join(kinds)}: one file is of one kind. Pass one, such as '
      '--save=cutout, or --output=FOLDER.'
    )
  form = places.FORMATS[output.suffix.lower()]
  if settings.format not in (None, form):
    wanted = Path(_find_suffix(settings)).suffix
    if form != places.FORMATS[wanted]:  # Labels are PNG, whatever --format is.
      raise errors.UserError(
        f'--output={output}: --format={settings.format} is another format than '
        f'its name says. Let it end in {wanted}, or leave out --format.'
      )
  request = settings.make_request(output.parent, kinds, form)
  # Lossless kinds become PNG, which the name has to say.
  if form != places.FORMATS[request.task.style.suffix(kinds[0])]:
    raise errors.UserError(
      f'--output={output}: a {kinds[0]} is lossless. Let its name end in .png.'
    )
  if isinstance(output, Path):
    files.check_folder(output.parent, 'output')
  content, notes = _cut_out_one(source, request)
  storage.write(output, content)
  print(output)
  for note in notes:
    print(f'{source}: {note}.')
  return False


def _cut_out_one(
  source: 'images.Source', request: 'session.Request'
) -> tuple[bytes, tuple[str, ...]]:
  """Returns the file of a photo's one result, and notes on the photo."""
  from rmbg_jax.inference import photos

  # Before the network, which takes longer to load than a photo to be refused.
  photo = photos.read_photo(source, max_pixels=request.task.max_pixels)
  remover = request.load(batch_size=1)
  probs = remover.predict(remover.resize([photo.seen]))[0]
  alpha = remover.refine(probs, photo)
  (kind,) = request.task.kinds
  content = request.task.style.render(photo, alpha, (kind,))[kind]
  return content, photo.notes


def _predict_files(where: places.Places, settings: Settings) -> bool:
  """Does all photos; returns whether any failed."""
  source, output = where.sources[0], storage.parse(where.output)
  on_cluster = settings.cluster is not None
  if len(where.sources) > 1 and (
    any(map(storage.is_url, (*where.sources, where.output)))
    or on_cluster
    or settings.watch
    or settings.frames
  ):
    raise errors.UserError(
      f'Several inputs ({source}, {where.sources[1]} ...) have to be files of '
      'this machine. Pass a folder, a list, or a pattern in quotes.'
    )
  by_url = storage.is_url(source) or isinstance(output, storage.Url)
  if on_cluster and not storage.is_url(source):  # Others have other folders.
    source = str(Path(source).absolute())
  if on_cluster and isinstance(output, Path):
    output = output.absolute()
  if by_url or on_cluster:
    for name, what in (('watch', 'watched'), ('frames', 'read as frames')):
      if getattr(settings, name):
        raise errors.UserError(
          f'--{name}: what is on an object store, or done on a cluster, cannot '
          f'be {what}. Pass paths, without --engine.'
        )
  if settings.watch and settings.frames:
    raise errors.UserError(
      f'--input={source}: --watch takes a folder of photos and clips.'
    )
  places.check_apart(source, output)
  kinds = _KINDS if settings.kinds is None else settings.kinds
  request = settings.make_request(output, kinds, settings.format or _FORMAT)
  if by_url or on_cluster:
    from rmbg_jax.batch import remote

    return remote.run(source, request, cluster=settings.cluster)
  from rmbg_jax.batch import local

  if settings.watch:
    return local.watch(Path(source), request)
  return local.run(where.sources, request, are_frames=settings.frames)
