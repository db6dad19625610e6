"""Times a clip through `predict` beside rembg and backgroundremover.

```bash
python -m scripts.benchmarks.video --rembg=/path/to/bin/rembg
```

The same drawn clip of 1280x720 pixels goes through each, from its file to the
finished result, in processes that take turns. The others use U2-Net-p, their
lightest network (`--checkpoint=u2netp` here too). Start-up is taken
off: the time of a clip of a few frames. rembg has no video files: it gets raw
frames on its standard input, and writes a PNG for each. backgroundremover
writes a ProRes file. Needs `pip install -e '.[video]'`, and what is named.
"""

import functools
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import flags

from data_pipelines import cli
from data_pipelines.datasets import demo
from scripts.benchmarks import common

_CHECKPOINT = cli.define_path('checkpoint', 'released', 'Of `predict`.')
_FRAMES = flags.DEFINE_integer('frames', 60, 'Of the clip.', lower_bound=20)
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Timed runs of each.')
_REMBG = flags.DEFINE_string('rembg', '', 'Such as /path/to/bin/rembg.')
_OTHER = flags.DEFINE_string(
  'backgroundremover', '', 'Such as /path/to/bin/backgroundremover.'
)
_SIZE = (1280, 720)
_START_FRAMES = 4


def make_clip(path: Path, count: int) -> bytes:
  """Writes H.264 of a camera that moves over figures; returns raw frames."""
  import av

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


def make_programs(folder: Path) -> dict[str, Callable[[int], object]]:
  """Returns what does a clip of so many frames, by name."""
  clips, raw = {}, {}
  for count in (_START_FRAMES, _FRAMES.value):
    clips[count] = folder / f'clip{count}.mp4'
    raw[count] = make_clip(clips[count], count)

  def run_own(*options):
    return lambda count: common.run_process(
      *(sys.executable, '-m', 'rmbg_jax.predict', '--overwrite'),
      *(f'--input={clips[count]}', f'--output={folder / "own"}'),
      *('--save=cutout', f'--checkpoint={_CHECKPOINT.value}', *options),
    )

  def run_rembg(count):
    width, height = map(str, _SIZE)
    command = [*shlex.split(_REMBG.value), 'b', '-m', 'u2netp', width, height]
    # Not as text: its input are raw frames.
    subprocess.run(
      [*command, '-o', str(folder / 'rembg-%03u.png')],
      input=raw[count],
      check=True,
      capture_output=True,
    )

  def run_other(count):
    common.run_process(
      *(*shlex.split(_OTHER.value), '-m', 'u2netp', '-tv'),
      *('-i', clips[count], '-o', folder / 'o.mov'),
    )

  plain = '--noestimate_foreground'
  programs = {
    'predict, ProRes': run_own(),
    'predict, ProRes, colours as they are': run_own(plain),
    'predict, VP9': run_own('--clip_format=vp9'),
    'predict, PNG': run_own('--clip_format=png'),
    'predict, PNG, colours as they are': run_own(plain, '--clip_format=png'),
  }
  if _REMBG.value:
    programs['rembg b, PNG'] = run_rembg
  if _OTHER.value:
    programs['backgroundremover'] = run_other
  return programs


def measure(folder: Path) -> None:
  """Prints frames per second."""

  def make_timed(program):
    program(_START_FRAMES)  # Compiles, and fills caches.

    def time_frames():
      start, whole = (
        common.time_call(functools.partial(program, count)).clock
        for count in (_START_FRAMES, _FRAMES.value)
      )
      return whole - start

    return time_frames

  programs = make_programs(folder)
  timed = {name: make_timed(program) for name, program in programs.items()}
  for name, seconds in common.repeat_in_turn(timed, _ROUNDS.value).items():
    rate = (_FRAMES.value - _START_FRAMES) / statistics.median(seconds)
    print(f'{name}: {rate:.2f} frames/s')


if __name__ == '__main__':
  common.run(measure)
