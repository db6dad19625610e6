"""Takes the sound of a clip over: as it is, encoded anew, or not at all."""

import dataclasses
import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rmbg_jax.video import clips

if TYPE_CHECKING:
  import av

# Packets that are tried before anything is done with the pictures.
_TRIED = 8
# Layouts that players assume by the number of channels.
_LAYOUTS = {1: 'mono', 2: 'stereo', 3: '2.1', 4: 'quad', 5: '5.0', 6: '5.1'}
_LAST_RESORT = 'stereo'
_RATE = 48_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Track:
  """A track that is taken over.

  Attributes:
    index: Number among the file's tracks of sound.
    own_channels: Number of its channels.
    encoder: FFmpeg's name of the encoder; '' to copy packets.
    rate: Samples per second of the encoded sound.
    layout: Names of the channels of the encoded sound.
  """

  index: int
  own_channels: int
  encoder: str = ''
  rate: int = _RATE
  layout: str = _LAST_RESORT


def plan(
  path: Path, *, container: str, sounds: Sequence[str], encoder: str
) -> tuple[list[Track], list[str]]:
  """Returns the tracks that can be taken over, and notes on all others.

  The first packets are tried on each, so that nothing fails at the end.

  Args:
    path: The clip.
    container: Format of the result.
    sounds: Codecs that it takes as they are.
    encoder: What encodes others.
  """
  import av

  tracks, notes = [], []
  with clips.open_file(path) as source:
    count = len(source.streams.audio)
  for index in range(count):
    ways = _list_ways(path, index, sounds, encoder)
    found = next((way for way in ways if _works(path, way, container)), None)
    which = f'track {index + 1} of its sound' if count > 1 else 'its sound'
    if found is None:
      notes.append(f'{which} is left out: it cannot be read')
      continue
    tracks.append(found)
    kept = av.AudioLayout(found.layout).nb_channels
    if found.encoder and found.own_channels > kept:
      notes.append(
        f'{which} is in {found.layout}, not in {found.own_channels} channels'
      )
  return tracks, notes


def read(
  source: 'av.container.InputContainer',
  track: Track,
  output: 'av.container.OutputContainer',
) -> Iterator[tuple[float, 'av.Packet']]:
  """Returns an iterator of (seconds, packet), and adds the track's stream.

  The source is opened for this track alone, the output has no packet yet. At
  a damaged part that cannot be read, the sound is over, or goes on behind it.
  """
  stream = source.streams.audio[track.index]
  if not track.encoder:
    return _copy(source, stream, output.add_stream_from_template(stream))
  target = cast(
    'av.AudioStream', output.add_stream(track.encoder, rate=track.rate)
  )
  target.layout = track.layout
  return _encode(source, stream, target)


def _list_ways(
  path: Path, index: int, sounds: Sequence[str], encoder: str
) -> Iterator[Track]:
  """Yields the ways to take a track over, the best first."""
  import av

  with clips.open_file(path) as source:
    context = source.streams.audio[index].codec_context
    if context is None:  # FFmpeg does not know the codec.
      return
    name, rate = context.codec.canonical_name, context.rate
    own, count = context.layout.name, context.layout.nb_channels
  if name in sounds:
    yield Track(index=index, own_channels=count)
  if rate not in (av.codec.Codec(encoder, 'w').audio_rates or [rate]):
    rate = _RATE
  for layout in dict.fromkeys((own, _LAYOUTS.get(count, own), _LAST_RESORT)):
    yield Track(
      index=index,
      own_channels=count,
      encoder=encoder,
      rate=rate,
      layout=layout,
    )


def _works(path: Path, track: Track, container: str) -> bool:
  """Returns whether the first packets of a track can be taken over."""
  import av

  try:
    with (
      clips.open_file(path) as source,
      av.open(io.BytesIO(), 'w', format=container) as output,
    ):
      packets = read(source, track, output)
      for _, packet in itertools.islice(packets, _TRIED):
        output.mux(packet)
  except (av.error.FFmpegError, ValueError):
    return False
  return True


def _read_packets(source, stream) -> Iterator['av.Packet']:
  import av

  try:
    yield from source.demux(stream)
  except av.error.FFmpegError:
    return


def _copy(source, stream, target) -> Iterator[tuple[float, 'av.Packet']]:
  for packet in _read_packets(source, stream):
    # An empty packet ends the stream; one without a time has no place.
    if packet.size and packet.dts is not None:
      seconds = float(packet.dts * packet.time_base)
      packet.stream = target
      yield seconds, packet


def _encode(source, stream, target) -> Iterator[tuple[float, 'av.Packet']]:
  import av

  context = target.codec_context
  resampler = av.AudioResampler(
    format=context.format, layout=context.layout, rate=context.rate
  )

  def decode():
    decoded = 0
    for packet in _read_packets(source, stream):
      try:
        frames = packet.decode()
      except av.error.FFmpegError:  # Damaged; what is behind may be whole.
        continue
      for frame in frames:
        decoded += 1
        yield from resampler.resample(frame)
    if not decoded:
      # `_works` asks for another way, then.
      raise ValueError('nothing of it can be decoded')
    yield from resampler.resample(None)
    yield None  # Ends the encoder.

  for frame in decode():
    for packet in target.encode(frame):
      yield float((packet.dts or 0) * packet.time_base), packet
