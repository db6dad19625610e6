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
import tempfile
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


def draw_frames(count: int) -> list[np.ndarray]:
  """Returns RGB frames of a camera that moves over figures."""
  width, height = _SIZE
  pixels, _, _ = demo.draw_pair(
    np.random.default_rng(3), (height, width + 2 * count)
  )
  return [
    np.ascontiguousarray(pixels[:, 2 * k : 2 * k + width]) for k in range(count)
  ]


def save_clip(path: Path, frames: list[np.ndarray]) -> None:
  """Writes frames as H.264."""
  import av

  with av.open(str(path), 'w') as container:
    stream = container.add_stream('libx264', rate=25)
    stream.width, stream.height = _SIZE
    stream.pix_fmt = 'yuv420p'
    for frame in frames:
      picture = av.VideoFrame.from_ndarray(frame, format='rgb24')
      container.mux(stream.encode(picture))
    container.mux(stream.encode(None))


def run(command: list[str], content: bytes | None = None) -> None:
  """Runs a command to its end, quietly."""
  done = subprocess.run(
    command, cwd=common.ROOT, input=content, capture_output=True
  )
  if done.returncode:
    raise SystemExit(done.stderr.decode(errors='replace')[-2000:])


def make_programs(folder: Path) -> dict[str, Callable[[int], None]]:
  """Returns what does a clip of so many frames, by name."""
  clips = {}
  for count in (_START_FRAMES, _FRAMES.value):
    frames = draw_frames(count)
    clips[count] = folder / f'clip{count}.mp4', b''.join(map(bytes, frames))
    save_clip(clips[count][0], frames)

  def run_own(count, *arguments):
    command = [sys.executable, '-m', 'rmbg_jax.predict', '--overwrite']
    command += [f'--input={clips[count][0]}', f'--output={folder / "own"}']
    command += [f'--checkpoint={_CHECKPOINT.value}', '--save=cutout']
    run([*command, *arguments])

  def run_rembg(count):
    width, height = map(str, _SIZE)
    command = [*shlex.split(_REMBG.value), 'b', '-m', 'u2netp', width, height]
    run([*command, '-o', str(folder / 'rembg-%03u.png')], clips[count][1])

  def run_other(count):
    command = [*shlex.split(_OTHER.value), '-m', 'u2netp', '-tv']
    run([*command, '-i', str(clips[count][0]), '-o', str(folder / 'o.mov')])

  programs = {
    'predict': run_own,
    'predict, colours as they are': lambda count: run_own(
      count, '--noestimate_foreground'
    ),
    'predict, PNG, colours as they are': lambda count: run_own(
      count, '--noestimate_foreground', '--clip_format=png'
    ),
  }
  if _REMBG.value:
    programs['rembg b, PNG'] = run_rembg
  if _OTHER.value:
    programs['backgroundremover'] = run_other
  return programs


def main(argv: list[str]) -> None:
  """Prints frames per second."""
  common.begin(argv)
  with tempfile.TemporaryDirectory() as name:
    programs = make_programs(Path(name))
    for program in programs.values():
      program(_START_FRAMES)  # Compiles, and fills caches.
    seconds = {name: [] for name in programs}
    for _ in range(_ROUNDS.value):
      for label, program in programs.items():
        spans = [
          common.time_call(functools.partial(program, count))
          for count in (_START_FRAMES, _FRAMES.value)
        ]
        seconds[label].append(spans[1] - spans[0])
  for label, values in seconds.items():
    rate = (_FRAMES.value - _START_FRAMES) / statistics.median(values)
    print(f'{label}: {rate:.2f} frames/s')


if __name__ == '__main__':
  cli.run(main, __name__)
