"""Clips whose alpha is known: a red box moves over blue."""

from fractions import Fraction

import numpy as np
from PIL import Image

from data_pipelines.io import images
from rmbg_jax.inference import refinement
from tests.support import colour_network

SIZE = (96, 64)
# Units of a time base of 1/600 s; not evenly apart.
STARTS = (0, 20, 40, 65, 80, 100, 130, 140, 160, 185, 200, 220)


class Remover:
  """Takes red for foreground; counts the frames that it has seen."""

  batch_size = 4
  runtime = 'numpy'

  def __init__(self):
    self.count = 0

  def resize(self, photos):
    return np.stack(
      [np.asarray(images.resize_image(p, size=(64, 96))) for p in photos]
    )

  def predict(self, batch):
    self.count += len(batch)
    return (batch[..., 0].astype(int) > batch[..., 2]).astype(np.float32)

  def refine(self, probs, photo):
    return photo.hide_transparent(
      refinement.Refinement().apply(probs, photo.seen)
    )


def draw(index, size=SIZE):
  left = 8 + 3 * index
  return colour_network.draw(size, box=(left, 16, left + 24, 48))


def save_clip(
  path,
  *,
  count=12,
  size=SIZE,
  sound='',
  codec='libx264',
  form=None,
  pixels='yuv420p',
  full_range=False,
  matrix=1,
  offset=0,
):
  """Writes a clip of irregular time stamps, 2:1 pixels and maybe sound."""
  import av

  with av.open(str(path), 'w', format=form) as container:
    stream = container.add_stream(codec, rate=30)
    stream.width, stream.height = size
    stream.pix_fmt = pixels
    context = stream.codec_context
    context.time_base = stream.time_base = Fraction(1, 600)
    context.sample_aspect_ratio = Fraction(2)
    context.color_range = 2 if full_range else 1
    context.colorspace = context.color_primaries = context.color_trc = matrix
    if codec == 'libx264':
      context.options = {'crf': '4'}
    noise = None
    if sound:
      noise = container.add_stream(sound, rate=48_000)
      noise.layout = 'mono'
    for index in range(count):
      frame = av.VideoFrame.from_image(draw(index, size)).reformat(
        format=pixels,
        dst_colorspace={1: 1, 6: 5}[matrix],
        dst_color_range=2 if full_range else 1,
      )
      beats, rest = divmod(index, len(STARTS))
      frame.pts = offset + 240 * beats + STARTS[rest]
      frame.time_base = Fraction(1, 600)
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
    if noise:
      for index in range(20):
        frame = av.AudioFrame.from_ndarray(
          np.zeros((1, 960), np.int16), format='s16', layout='mono'
        )
        frame.sample_rate, frame.pts = 48_000, 960 * index
        frame.time_base = Fraction(1, 48_000)
        container.mux(noise.encode(frame))
      container.mux(noise.encode(None))


def read_clip(path, *, decoder=None):
  """Returns (seconds, RGBA) of the frames, and what the stream says."""
  import av

  context = av.CodecContext.create(decoder, 'r') if decoder else None
  with av.open(str(path)) as container:
    stream = container.streams.video[0]
    said = {
      'aspect': stream.sample_aspect_ratio,
      'range': stream.codec_context.color_range,
      'matrix': stream.codec_context.colorspace,
      'pixels': stream.codec_context.pix_fmt,
      'sounds': [one.codec_context.name for one in container.streams.audio],
    }
    times, pictures = [], []
    for packet in container.demux(stream):
      if context and not packet.size:
        continue
      for frame in context.decode(packet) if context else packet.decode():
        times.append(float(frame.pts * stream.time_base))
        pictures.append(frame.reformat(format='rgba').to_ndarray())
  return times, np.stack(pictures), said


def find_box(mask):
  """Returns (left, top, right, bottom) of what is bright."""
  return Image.fromarray((np.asarray(mask) > 127).astype(np.uint8)).getbbox()
