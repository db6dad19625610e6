"""Reads moving pictures: video files, GIF, APNG, folders of frames."""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipelines.io import errors
from rmbg_jax.batch import clip_names
from rmbg_jax.inference import photos
from rmbg_jax.video import appearance, containers

if TYPE_CHECKING:
  import av

# Seconds, and frames, that a whole clip may be shorter than it says.
_MISSING_SECONDS, _MISSING_FRAMES = 0.5, 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
  """A picture of a clip.

  Attributes:
    photo: The picture, upright.
    start: Time it is shown at, in units of the clip's time base.
    duration: Duration in these units, 0 if not known.
  """

  photo: photos.Photo
  start: int
  duration: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
  """A clip that is open.

  Attributes:
    size: (width, height) in pixels, upright.
    time_base: Seconds of a unit of time.
    rate: Frames per second, on average.
    aspect: Width of a pixel by its height.
    colour: Storage of its colours.
    count: About how many frames there are; None if that is not known.
    notes: Sentences about what is not kept.
    read: Yields the frames, once.
  """

  size: tuple[int, int]
  time_base: Fraction
  rate: Fraction
  aspect: Fraction
  colour: appearance.Colour
  count: int | None
  notes: tuple[str, ...]
  read: Callable[[], Generator[Frame]]


@contextlib.contextmanager
def opened(
  path: Path, *, max_pixels: int, frame_rate: Fraction
) -> Iterator[Clip]:
  """Opens a clip; what goes wrong with its content is named.

  Args:
    path: Path of a file, or of a folder of numbered frames.
    max_pixels: Clips with larger frames are refused.
    frame_rate: Frames per second, for folders.

  Raises:
    MissingFileError: if there is no such file.
    UserError: if it is no whole clip.
  """
  clip_names.check_support()
  if path.is_dir():
    yield _open_folder(path, max_pixels, frame_rate)
    return
  with contextlib.ExitStack() as stack:
    with named(path):
      with open_file(path) as container:
        turn = _find_turn(path, container)
      # Opened again, to begin at its first frame.
      container = stack.enter_context(open_file(path))
      clip = _open_video(path, container, turn, max_pixels)
    if containers.is_cut_off(path):
      raise errors.UserError(
        f'{path}: its file ends too early, so it is truncated. Replace or '
        'remove it.'
      )
    yield clip


def find_address(path: Path) -> str:
  """Returns what FFmpeg takes for this file, whatever its name has."""
  return str(path.absolute())  # In `12:30.mp4`, `12` would be a protocol.


def open_file(path: Path) -> 'av.container.InputContainer':
  """Opens a clip for reading, and nothing else: no network, no other files.

  Raises:
    av.error.FFmpegError: if FFmpeg does not know it.
    UserError: if it is a list of files.
  """
  import av

  container = av.open(
    find_address(path),
    options={'protocol_whitelist': 'file'},
    metadata_errors='ignore',  # They need not be UTF-8.
  )
  if container.format.name in ('hls', 'concat', 'dash', 'image2'):
    container.close()
    raise errors.UserError(f'{path}: a list of files, not a clip.')
  return container


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
  """Names the clip in errors of its content in the block.

  Raises:
    MissingFileError: if there is no such file.
    UserError: if its content cannot be used.
  """
  import av

  try:
    yield
  except errors.UserError:
    raise
  except FileNotFoundError as error:
    raise errors.MissingFileError(f'{path}: no such file.') from error
  except av.error.FFmpegError as error:
    reason = error.strerror or type(error).__name__
    raise errors.UserError(
      f'{path}: cannot be read as a clip ({reason}). Replace or remove it.'
    ) from error


def _open_folder(folder: Path, max_pixels: int, rate: Fraction) -> Clip:
  paths = clip_names.find_frames(folder)
  first = photos.read_photo(paths[0], max_pixels=max_pixels)

  def read():
    for index, path in enumerate(paths):
      photo = photos.read_photo(path, max_pixels=max_pixels)
      if photo.rgb.size != first.rgb.size:
        raise errors.UserError(
          f'{path}: {photo.rgb.width}x{photo.rgb.height} pixels, unlike the '
          f'{first.rgb.width}x{first.rgb.height} of the first frame.'
        )
      # Clips have 8 bits; here the unit of time is a frame.
      yield Frame(
        photo=dataclasses.replace(photo, deep=None), start=index, duration=1
      )

  return Clip(
    size=first.rgb.size,
    time_base=1 / rate,
    rate=rate,
    aspect=Fraction(1),
    colour=appearance.Colour(),
    count=len(paths),
    notes=first.notes,
    read=read,
  )


def _choose_stream(path: Path, container):
  """Returns the moving pictures; covers of albums are not."""
  from av.stream import Disposition

  for stream in container.streams.video:
    if not int(stream.disposition) & int(Disposition.attached_pic):
      return stream
  raise errors.UserError(f'{path}: there are no moving pictures in it.')


def _open_video(
  path, container, turn: appearance.Turn, max_pixels: int
) -> Clip:
  stream = _choose_stream(path, container)
  stream.thread_type = 'AUTO'
  context = stream.codec_context
  if context.width * context.height > max_pixels:
    raise errors.UserError(
      f'{path}: {context.width}x{context.height} are more pixels than the '
      f'limit of {max_pixels}. Raise --max_pixels if there is memory for it.'
    )
  if not context.width or not context.pix_fmt:
    raise errors.UserError(
      f'{path}: cannot be read as a clip (its first frames are missing). '
      'Replace or remove it.'
    )
  rate = stream.average_rate or stream.base_rate or Fraction(25)
  aspect = stream.sample_aspect_ratio or Fraction(1)
  size = context.width, context.height
  seconds = _find_seconds(container, stream)
  count = stream.frames or (round(seconds * rate) if seconds else None)
  notes = []
  if max(part.bits for part in context.format.components) > 8:
    notes.append('reduced to 8 bits per channel')
  decoder = _find_alpha_decoder(stream)
  has_alpha = decoder is not None or any(
    part.is_alpha for part in context.format.components
  )
  colour = appearance.find_colour(context)
  if not appearance.names_matrix(context):
    notes.append(
      'the matrix of its colours is not named; guessed by its height'
    )

  def read():
    with named(path):
      yield from read_frames()

  def read_frames():
    end = last = None
    for frame in _decode(container, stream, decoder):
      if frame.is_corrupt:
        raise errors.UserError(
          f'{path}: a frame is damaged at {float(frame.time or 0):.2f} s. '
          'Replace or remove it.'
        )
      if (frame.width, frame.height) != size:
        raise errors.UserError(
          f'{path}: its pictures change from {size[0]}x{size[1]} to '
          f'{frame.width}x{frame.height} pixels.'
        )
      step = max(1, round(1 / rate / stream.time_base))
      start = frame.pts
      if start is None:
        start = 0 if last is None else last + step
      elif last is not None and start <= last:
        start = last + 1  # No encoder takes what goes back in time.
      duration = int(frame.duration or 0)
      last, end = start, start + (duration or step)
      yield Frame(
        photo=appearance.to_photo(frame, colour, has_alpha, turn),
        start=start,
        duration=duration,
      )
    if end is None:
      raise errors.UserError(f'{path}: there is no frame in it.')
    begin = stream.start_time or 0
    found = float((end - begin) * stream.time_base)
    missing = max(_MISSING_SECONDS, _MISSING_FRAMES / rate)
    if seconds and seconds - found > missing:
      raise errors.UserError(
        f'{path}: it ends after {found:.2f} of {seconds:.2f} seconds, so it is '
        'truncated. Replace or remove it.'
      )

  turned = turn.transposed
  return Clip(
    size=size[::-1] if turned else size,
    time_base=stream.time_base,
    rate=rate,
    aspect=Fraction(1 / aspect if turned else aspect),
    colour=colour,
    count=count,
    notes=tuple(notes),
    read=read,
  )


def _find_alpha_decoder(stream):
  """Returns the one that sees a WebM's alpha; None where there is none."""
  import av

  # FFmpeg's own decoders of these leave alpha out.
  names = {'vp8': 'libvpx', 'vp9': 'libvpx-vp9'}
  name = names.get(stream.codec_context.codec.canonical_name)
  if name is None or stream.metadata.get('alpha_mode') != '1':
    return None
  return av.CodecContext.create(name, 'r')


def _decode(container, stream, decoder) -> Iterator[Any]:
  if decoder is None:
    yield from container.decode(stream)
    return
  for packet in container.demux(stream):
    # An empty packet is the last, and asks for frames that are left: None.
    yield from decoder.decode(packet if packet.size else None)


def _find_turn(path: Path, container) -> appearance.Turn:
  # The first frame has the matrix, if any has.
  for frame in container.decode(_choose_stream(path, container)):
    matrix = frame.side_data.get('DISPLAYMATRIX')
    return appearance.find_turn(bytes(matrix) if matrix else b'')
  return appearance.Turn()


def _find_seconds(container, stream) -> float | None:
  """Returns how long the pictures say they are; None if they do not."""
  if stream.duration:
    return float(stream.duration * stream.time_base)
  text = stream.metadata.get('DURATION', '')  # Written by Matroska and WebM.
  if found := re.fullmatch(r'(\d+):(\d+):(\d+(?:\.\d+)?)', text):
    hours, minutes, seconds = map(float, found.groups())
    # Counted from the beginning of the file, not of the stream.
    begin = float((stream.start_time or 0) * stream.time_base)
    return hours * 3600 + minutes * 60 + seconds - begin
  # The container's is that of its longest stream.
  if container.duration and len(container.streams) == 1:
    return container.duration / 1_000_000
  return None
