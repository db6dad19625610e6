"""Times a clip through `predict` beside rembg.

```bash
python -m scripts.benchmarks.video --rembg=/path/to/bin/rembg
```

The same drawn clip of 1280x720 pixels goes through each, from its file to the
finished result, in processes that take turns. rembg uses U2-Net-p, its lightest
network (`--checkpoint=u2netp` here too). It has no video files: it gets raw
frames on its standard input, and writes a PNG for each. Start-up is taken off:
the time of a clip of a few frames. Needs `pip install -e '.[video]'`.
"""

import functools
import statistics
import subprocess
from pathlib import Path

import av
import numpy as np
from absl import flags

from data_pipelines import cli
from data_pipelines.datasets import demo
from scripts.benchmarks import common

_CHECKPOINT = cli.define_path('checkpoint', 'released', 'Of `predict`.')
_FRAMES = flags.DEFINE_integer('frames', 60, 'Of the clip.', lower_bound=20)
_REMBG = cli.define_path('rembg', '', 'Such as /path/to/bin/rembg.')
# Options of `predict`.
FORMATS = (
  ('--clip_format=prores',),
  ('--clip_format=prores', '--noestimate_foreground'),
  ('--clip_format=vp9',),
  ('--clip_format=png',),
  ('--clip_format=png', '--noestimate_foreground'),
)
_SIZE = (1280, 720)
_START_FRAMES = 4


def make_clip(path: Path, count: int) -> bytes:
  """Writes H.264 of a camera that moves over figures; returns raw frames."""
  width, height = _SIZE
  pixels, _, _ = demo.draw_pair(
    np.random.default_rng(3), (height, width + 2 * count)
  )
  raw = b''
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('libx264', rate=25)
    stream.width, stream.height = _SIZE
    stream.pix_fmt = 'yuv420p'
    for k in range(count):
      pictured = np.ascontiguousarray(pixels[:, 2 * k : 2 * k + width])
      frame = av.VideoFrame.from_ndarray(pictured, format='rgb24')
      container.mux(stream.encode(frame))
      raw += pictured.tobytes()
    container.mux(stream.encode(None))
  return raw


def measure(folder: Path) -> None:
  """Prints frames per second."""
  clips, raw = {}, {}
  for count in (_START_FRAMES, _FRAMES.value):
    clips[count] = folder / f'clip{count}.mp4'
    raw[count] = make_clip(clips[count], count)

  def run_own(options, count):
    common.run_python(
      *('-m', 'rmbg_jax.predict', '--overwrite', '--save=cutout'),
      *(f'--input={clips[count]}', f'--output={folder / "own"}'),
      *(f'--checkpoint={_CHECKPOINT.value}', *options),
    )

  def run_rembg(count):
    # Not as text: its input are raw frames.
    subprocess.run(
      [_REMBG.value, 'b', '-m', 'u2netp', *map(str, _SIZE)]
      + ['-o', folder / 'rembg-%03u.png'],
      input=raw[count],
      check=True,
      capture_output=True,
    )

  programs = {
    ' '.join(options): functools.partial(run_own, options)
    for options in FORMATS
  }
  if _REMBG.value:
    programs['rembg b'] = run_rembg

  def time_frames(program):
    start, whole = (
      common.time_call(functools.partial(program, count))[0] for count in clips
    )
    return whole - start

  for program in programs.values():
    program(_START_FRAMES)  # Compiles, and fills caches.
  found = common.repeat_in_turn(
    {x: functools.partial(time_frames, programs[x]) for x in programs},
    flags.FLAGS.repeats,
  )
  common.print_head('', 'frames/s')
  for name, seconds in found.items():
    rate = (_FRAMES.value - _START_FRAMES) / statistics.median(seconds)
    common.print_row(name, rate)


if __name__ == '__main__':
  common.run({'clips': measure})
