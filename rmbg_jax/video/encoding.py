"""Writes moving pictures in parts, and joins the parts."""

import contextlib
import dataclasses
import heapq
import shutil
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.io import files
from rmbg_jax.inference import png
from rmbg_jax.video import appearance, clips, sound

if TYPE_CHECKING:
  import av


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Codec:
  """Encoder settings of one kind of clip.

  Attributes:
    names: FFmpeg's names of the encoder, and of that for odd widths.
    container: The file's format.
    pixels: Their format, and that for odd sizes: in some formats 2x2 pixels
      share their colours, which takes even sizes.
    options: Options of the encoder. Frames are in order (no B-frames, no hidden
      ones), so parts can be joined.
    sounds: Codecs that the container takes as they are.
    sound: Codec that other sound is converted to.
  """

  names: tuple[str, str]
  container: str
  pixels: tuple[str, str]
  options: dict[str, str]
  sounds: tuple[str, ...]
  sound: str


_H264 = _Codec(
  names=('libx264', 'libx264'),
  container='mp4',
  # Players know 4:2:0, which odd sizes cannot have.
  pixels=('yuv420p', 'yuv444p'),
  options={'crf': '16', 'preset': 'veryfast', 'bf': '0'},
  sounds=('aac', 'mp3', 'ac3', 'eac3', 'alac', 'opus', 'flac'),
  sound='aac',
)
_PRORES = _Codec(
  # The first takes a third of the second's time, and even widths alone.
  names=('prores_aw', 'prores_ks'),
  container='mov',
  pixels=('yuva444p10le', 'yuva444p10le'),
  options={'profile': '4'},  # ProRes 4444, which has alpha.
  sounds=('aac', 'mp3', 'ac3', 'alac', 'pcm_s16le', 'pcm_s24le', 'pcm_s16be'),
  sound='aac',
)
_VP9 = _Codec(
  names=('libvpx-vp9', 'libvpx-vp9'),
  container='webm',
  pixels=('yuva420p', 'yuva420p'),
  options={
    'crf': '20',
    # Without a bit rate, `crf` alone decides.
    'b:v': '0',
    'auto-alt-ref': '0',
    'lag-in-frames': '0',
    'deadline': 'realtime',
    'cpu-used': '6',
  },
  sounds=('opus', 'vorbis'),
  sound='libopus',
)


def _choose(kind: str, form: str) -> _Codec:
  if kind != 'cutout':
    return _H264
  return {'prores': _PRORES, 'vp9': _VP9}[form]


# A part that is written, a file or a folder of frames, and (start, duration) of
# each frame, in units of the clip's time base.
Part = tuple[Path, Sequence[Sequence[int]]]


def make_writer(
  kind: str, form: str, clip: clips.Clip, path: Path
) -> 'FramesWriter | VideoWriter':
  """Returns what writes one part of one kind, over what may be there.

  The format is one of `choices.CLIP_FORMATS`, the path a file's or a folder's.
  """
  if form == 'png':
    return FramesWriter(path)
  return VideoWriter(_choose(kind, form), clip, path)


class FramesWriter(contextlib.AbstractContextManager):
  """Writes a part as a folder of PNG files, as `VideoWriter` does a video."""

  def __init__(self, path: Path):
    self._path = path
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)

  def __exit__(self, *exc_info):
    pass

  def prepare(self, pixels: np.ndarray) -> bytes:
    """Returns a picture as `add` takes it."""
    return png.encode(pixels)

  def add(self, prepared: bytes, *, index: int, start: int) -> None:
    """Adds a picture; a frame's time is in no PNG."""
    del start
    (self._path / f'{index + 1:06}.png').write_bytes(prepared)


class VideoWriter(contextlib.AbstractContextManager):
  """Writes a part as a video, frame by frame; `prepare` is for any thread."""

  def __init__(self, codec: _Codec, clip: clips.Clip, path: Path):
    """Opens nothing yet: the first frame says the size."""
    self._codec = codec
    self._clip = clip
    self._path = path
    self._container: Any = None  # Until the first frame.

  def __exit__(self, *exc_info):
    if self._container:
      # Closing it writes the end of the file, after an error too.
      with self._container:
        if exc_info[0] is None:
          self._encode(None)

  def prepare(self, pixels: np.ndarray) -> 'av.VideoFrame':
    """Returns what `add` takes of a uint8 grey, RGB or RGBA picture."""
    import av

    if pixels.ndim == 2:  # As RGB, since black and white then stay so.
      pixels = np.repeat(pixels[..., None], 3, axis=2)
    form = 'rgba' if pixels.shape[2] == 4 else 'rgb24'
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), form)
    colour = self._clip.colour
    return frame.reformat(
      format=_find_pixels(self._codec, pixels.shape),
      dst_colorspace=appearance.find_scaler(colour.matrix),
      dst_color_range=_find_range(self._codec, colour),
    )

  def add(self, prepared: 'av.VideoFrame', *, index: int, start: int) -> None:
    """Adds a picture of `prepare`; one after the other.

    It is shown from `start` on, in units of the clip's time base.
    """
    del index
    if self._container is None:
      self._begin((prepared.height, prepared.width))
      self._first = start
    prepared.pts = start - self._first
    prepared.time_base = self._clip.time_base
    self._encode(prepared)

  def _begin(self, shape: tuple[int, int]) -> None:
    """Opens the file, and sets what all parts and the whole share."""
    import av

    codec, clip = self._codec, self._clip
    self._container = av.open(
      clips.find_address(self._path), 'w', format=codec.container
    )
    self._stream: Any = self._container.add_stream(
      codec.names[shape[1] % 2],
      rate=clip.rate.limit_denominator(100_000),
      options=codec.options,
    )
    stream, context = self._stream, self._stream.codec_context
    stream.height, stream.width = shape
    stream.pix_fmt = _find_pixels(codec, shape)
    context.time_base = stream.time_base = clip.time_base
    context.sample_aspect_ratio = clip.aspect
    context.color_range = _find_range(codec, clip.colour)
    context.colorspace = clip.colour.matrix
    context.color_primaries = clip.colour.primaries
    context.color_trc = clip.colour.transfer

  def _encode(self, frame: 'av.VideoFrame | None') -> None:
    for packet in self._stream.encode(frame):
      self._container.mux(packet)


def _find_pixels(codec: _Codec, shape: tuple[int, ...]) -> str:
  return codec.pixels[shape[0] % 2 or shape[1] % 2]


def _find_range(codec: _Codec, colour: appearance.Colour) -> int:
  # ProRes has no full range.
  return 2 if colour.full_range and codec is not _PRORES else 1


def plan_sound(
  kind: str, form: str, clip: Path
) -> tuple[list[sound.Track], list[str]]:
  """Returns the tracks that a kind of result takes over, and notes."""
  if form == 'png' or clip.is_dir():
    return [], []
  codec = _choose(kind, form)
  return sound.plan(
    clip,
    container=codec.container,
    sounds=codec.sounds,
    encoder=codec.sound,
  )


def join(
  kind: str,
  form: str,
  parts: Sequence[Part],
  time_base: Fraction,
  clip: Path,
  tracks: Sequence[sound.Track],
  path: Path,
) -> None:
  """Writes the result of a kind: all parts, and tracks of the clip's sound.

  The format is one of `choices.CLIP_FORMATS`, tracks are those of `plan_sound`.
  """
  if form == 'png':
    _join_folders([part for part, _ in parts], path)
    return
  import av

  codec = _choose(kind, form)
  with contextlib.ExitStack() as stack:
    partial = stack.enter_context(files.write_atomically(path))
    first = stack.enter_context(clips.open_file(parts[0][0]))
    options = {}
    if codec.container != 'webm':
      # When the pictures begin is said in these units.
      options['movie_timescale'] = str(min(time_base.denominator, 90_000))
    output = stack.enter_context(
      av.open(
        clips.find_address(partial),
        'w',
        format=codec.container,
        options=options,
      )
    )
    template = first.streams.video[0]
    pictures = output.add_stream_from_template(template)
    if template.sample_aspect_ratio:  # Kept by the container, not the codec.
      pictures.codec_context.sample_aspect_ratio = template.sample_aspect_ratio
    pictures.time_base = time_base
    flows = [_read_parts(parts, time_base, pictures)]
    for track in tracks:  # Each stream is read separately.
      source = stack.enter_context(clips.open_file(clip))
      flows.append(sound.read(source, track, output))
    # Ordered by time, so that no stream waits in memory.
    for _, packet in heapq.merge(*flows, key=lambda one: one[0]):
      output.mux(packet)


def _read_parts(
  parts: Sequence[Part], time_base: Fraction, pictures
) -> Iterator[tuple]:
  """Yields (seconds, packet) of the pictures, at the clip's own times."""
  for part, times in parts:
    with clips.open_file(part) as container:
      stream = container.streams.video[0]
      packets = (packet for packet in container.demux(stream) if packet.size)
      # A packet for each frame, in order (`_Codec.options`), so that both times
      # of a packet are the same.
      for packet, (start, duration) in zip(packets, times, strict=True):
        packet.stream = pictures
        packet.time_base = time_base
        packet.pts = packet.dts = start
        if duration:
          packet.duration = duration
        yield float(start * time_base), packet


def _join_folders(parts: Sequence[Path], path: Path) -> None:
  """Moves the frames of all parts into one folder, which then gets its name.

  A run that was interrupted goes on; one that was at its end has left nothing.
  """
  gathered = parts[0].with_name('all' + ''.join(parts[0].suffixes))
  left = [part for part in parts if part.exists()]
  if not left and not gathered.exists() and path.exists():
    return
  gathered.mkdir(exist_ok=True)
  for part in left:
    for frame in sorted(part.iterdir()):
      frame.replace(gathered / frame.name)
    part.rmdir()
  path.parent.mkdir(parents=True, exist_ok=True)
  # No system renames over a folder with files in it.
  if path.exists():
    shutil.rmtree(path)
  gathered.rename(path)
