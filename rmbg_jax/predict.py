"""Cuts out photos and clips: a file, a folder, a pattern, a list, a URL, stdin.

```bash
python -m rmbg_jax.predict photo.jpg cutout.png
python -m rmbg_jax.predict --checkpoint=runs/demo --input=PHOTOS --output=OUT
```

`OUT` gets a sub-folder for each kind of result, and `report.jsonl`. Both may be
URLs of object stores, and `--engine=ray` does it on a cluster.
"""

import functools
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

# NumPy, Pillow and all that needs them are imported when a photo is to be done:
# --help, --list_checkpoints and what is wrong with a flag need none of it.
from data_pipelines import cli
from data_pipelines.io import errors, storage
from rmbg_jax import choices, runtime_flags
from rmbg_jax.batch import places, ways

if TYPE_CHECKING:
  from rmbg_jax.batch import session

_INPUT = cli.define_path(
  'input',
  None,
  'A photo, several, a folder, a pattern such as "photos/**/*.jpg", a .txt '
  'file with a path on each line, or - for standard input. Or the URL of a '
  'photo or a folder: s3://, gs://, az://, file://.',
  urls=storage.SCHEMES,
)
_OUTPUT = cli.define_path(
  'output',
  None,
  'Folder for the results, or its URL, one sub-folder for each kind; of one '
  'photo, also the name of one file; or - for standard output, with exactly '
  'one kind.',
  urls=storage.SCHEMES,
)
_CHECKPOINT = cli.define_path(
  'checkpoint',
  'released',
  "A training's working directory (its best checkpoint; WORKDIR@latest or "
  'WORKDIR@STEP for another), a .safetensors release, a Keras .h5, an '
  '.onnx, hf://OWNER/NAME[@REVISION][/FILE], or a name that '
  '--list_checkpoints prints.',
  urls=('hf',),
)
_LIST = flags.DEFINE_boolean(
  'list_checkpoints',
  False,
  'Print what there is by name, with sizes, scores and terms, and end.',
)
_SAVE = flags.DEFINE_list(
  'save', ['mask', 'cutout'], f'What to save, of {", ".join(choices.KINDS)}.'
)
_FORMAT = flags.DEFINE_enum(
  'format', 'png', choices.FORMATS, 'Format of the files; JPEG masks stay PNG.'
)
_QUALITY = flags.DEFINE_integer(
  'quality', 95, 'Quality of WebP and JPEG files, 1 to 100.'
)
_BACKGROUND = cli.define_path(
  'background',
  '',
  'Background of composites: #rrggbb, a picture, or blur.',
)
_FOREGROUND = flags.DEFINE_boolean(
  'estimate_foreground',
  True,
  'Remove the old background from the colours of half-transparent pixels.',
)
_TRIM = flags.DEFINE_boolean(
  'trim', False, 'Cut cut-outs and composites to the foreground.'
)
_TRIMAP_WIDTH = flags.DEFINE_integer(
  'trimap_width',
  10,
  "Pixels by which a trimap's unknown band grows to either side.",
)
_REFINE = flags.DEFINE_enum(
  'refine', 'none', choices.REFINEMENTS, "Way to edges of the photo's size."
)
_REFINER = cli.define_path(
  'refiner',
  'refiner',
  'Network of --refine=learned: the released one, or a working directory or '
  '.safetensors of another.',
)
_THRESHOLD = flags.DEFINE_float(
  'threshold', None, 'Make alpha 1 from here on and 0 below.'
)
_KEEP_LARGEST = flags.DEFINE_boolean(
  'keep_largest', False, 'Keep only the largest connected part.'
)
_FILL_HOLES = flags.DEFINE_boolean(
  'fill_holes', False, 'Fill background that the foreground encloses.'
)
_FLIP = flags.DEFINE_boolean(
  'flip',
  None,
  'Mirror every second of the scales, or do a single one both ways. Default, '
  'as of --scales: what the checkpoint asks for.',
)
_SCALES = flags.DEFINE_list(
  'scales',
  None,
  "Average over these multiples of the network's input size, each above 0 and "
  f'at most {choices.MAX_SCALE}. 1 alone is fastest.',
)
_STRETCH = flags.DEFINE_boolean(
  'stretch',
  False,
  "Stretch every mask from its minimum and maximum to [0, 1], as U2-Net's "
  'authors do. Invents a foreground where there is none.',
)
_BATCH_SIZE = flags.DEFINE_integer(
  'batch_size', 4, 'Photos or frames in the network together.', lower_bound=1
)
_SHARD = flags.DEFINE_string(
  'shard', '', 'Part of the photos, i/n: every n-th from the i-th (from 0) on.'
)
_OVERWRITE = flags.DEFINE_boolean(
  'overwrite', False, 'Do photos again whose results are there.'
)
_WATCH = flags.DEFINE_boolean(
  'watch', False, 'Go on with what appears in the folder --input, until Ctrl-C.'
)
_CLIP_FORMAT = flags.DEFINE_enum(
  'clip_format',
  'prores',
  choices.CLIP_FORMATS,
  'Format of cut-out clips: prores (.mov) and vp9 (.webm) have alpha, other '
  'kinds are H.264 (.mp4); png writes folders of frames for all kinds.',
)
_TEMPORAL = flags.DEFINE_float(
  'temporal',
  0.0,
  'Steady the masks of clips over time where the picture stands still: 0 for '
  'not at all to 1.',
)
_FRAMES = flags.DEFINE_boolean(
  'frames', False, 'Take the frames in the folder --input for one clip.'
)
_FRAME_RATE = flags.DEFINE_string(
  'frame_rate', '25', 'Frames per second of --frames, such as 25 or 30000/1001.'
)
_ENGINE = flags.DEFINE_enum(
  'engine',
  'local',
  ['local', 'ray'],
  'Place of the work: this process, or actors on a Ray cluster.',
)
_ADDRESS = flags.DEFINE_string(
  'address',
  '',
  'Address of the Ray cluster, such as auto; without it, one is started here '
  'for this run.',
)
_ACTORS = flags.DEFINE_string(
  'actors',
  '',
  'Number of processes with a network on the cluster, or FEWEST:MOST to follow '
  'the work; without it, as many as there is room for.',
)
_CPUS = flags.DEFINE_float(
  'cpus_per_actor',
  None,
  'CPUs reserved for each; without it, all of a machine, shared by its GPUs.',
  lower_bound=0,
)
_GPUS = flags.DEFINE_float(
  'gpus_per_actor',
  None,
  'GPUs reserved for each; without it, 1 where there are any.',
  lower_bound=0,
)
_PRINT_REPORT = flags.DEFINE_boolean(
  'print_report',
  False,
  'Print the report in --output that was written in parts (to a URL, or by '
  '--engine=ray) as one, a line for each photo, and end.',
)
_MAX_PIXELS = flags.DEFINE_integer(
  'max_pixels', choices.MAX_PIXELS, 'Refuse photos with more.', lower_bound=1
)
flags.adopt_module_key_flags(runtime_flags)  # For --help.


def main(argv: list[str]) -> None:
  """Predicts; exits with 1 if any photo failed."""
  if _LIST.value:
    from rmbg_jax.weights import catalogue

    print(catalogue.format_all(catalogue.list_checkpoints()), end='')
    return
  if _PRINT_REPORT.value:
    from rmbg_jax.batch import report

    if not _OUTPUT.value:
      raise errors.UserError('--print_report: pass --output, its folder.')
    # JSON is UTF-8, whatever the console is.
    for line in report.join_parts(storage.parse(_OUTPUT.value)):
      sys.stdout.buffer.write(line.encode())
    return
  settings = _make_settings()
  where = places.settle(
    _INPUT.value,
    _OUTPUT.value,
    [cli.parse_path(path, storage.SCHEMES) for path in argv[1:]],
  )
  if ways.predict(where, settings):
    raise SystemExit(1)


def _make_settings() -> ways.Settings:
  """Returns the settings in the flags."""
  cli.check_needed(
    '--engine=ray', _ENGINE.value == 'ray', _ADDRESS, _ACTORS, _CPUS, _GPUS
  )
  cli.check_needed('--refine=learned', _REFINE.value == 'learned', _REFINER)
  cli.check_needed('--frames', _FRAMES.value, _FRAME_RATE)
  cluster = None
  if _ENGINE.value == 'ray':
    cluster = {
      'address': _ADDRESS.value,
      'actors': ways.parse_actors(_ACTORS.value),
      'cpus': _CPUS.value,
      'gpus': _GPUS.value,
    }
  return ways.Settings(
    kinds=tuple(_SAVE.value) if cli.is_passed(_SAVE) else None,
    format=_FORMAT.value if cli.is_passed(_FORMAT) else None,
    has_background=bool(_BACKGROUND.value),
    overwrite=_OVERWRITE.value,
    shard=_SHARD.value,
    watch=_WATCH.value,
    frames=_FRAMES.value,
    cluster=cluster,
    make_request=_make_request,
  )


def _locate(flag: flags.FlagHolder) -> str:
  """Returns a flag's path, whole where others read it, in other folders."""
  path = flag.value
  is_elsewhere = _ENGINE.value == 'ray' and cli.is_passed(flag)
  if is_elsewhere and storage.exists(Path(path)):
    return str(Path(path).absolute())
  return path


def _make_request(
  output: storage.Place, kinds: tuple[str, ...], form: str
) -> 'session.Request':
  """Returns what the flags ask for, checked."""
  from PIL import Image

  from rmbg_jax.batch import pipeline, session
  from rmbg_jax.inference import rendering

  warnings.simplefilter('ignore', Image.DecompressionBombWarning)
  style = rendering.Style(
    format=form,
    quality=_QUALITY.value,
    background=_locate(_BACKGROUND),
    estimate_foreground=_FOREGROUND.value,
    trim=_TRIM.value,
    trimap_width=_TRIMAP_WIDTH.value,
  )
  style.check_kinds(kinds)
  shown = bool({'cutout', 'composite'} & {*kinds})
  cli.check_needed('--save=cutout or --save=composite', shown, _TRIM)
  cli.check_needed('--save=trimap', 'trimap' in kinds, _TRIMAP_WIDTH)
  cli.check_needed('--format=webp or --format=jpeg', form != 'png', _QUALITY)
  # Its picture was read under Pillow's own limit. Photos are held against
  # --max_pixels instead, which may be more, with a message that names it.
  Image.MAX_IMAGE_PIXELS = None
  options = _make_options()
  return session.Request(
    task=pipeline.Task(
      output=output,
      kinds=kinds,
      style=style,
      overwrite=_OVERWRITE.value,
      max_pixels=_MAX_PIXELS.value,
      clip_format=_CLIP_FORMAT.value,
    ),
    checkpoint=_CHECKPOINT.value,
    options=options,
    batch_size=_BATCH_SIZE.value,
    shard=_SHARD.value,
    do_clips=_make_do_clips(options),
  )


def _make_options() -> dict[str, Any]:
  """Returns the remover's options in the flags, checked, without JAX."""
  from rmbg_jax.inference import refinement

  return {
    'refinement': refinement.Refinement(
      method=_REFINE.value,
      refiner=_locate(_REFINER),
      threshold=_THRESHOLD.value,
      keep_largest=_KEEP_LARGEST.value,
      fill_holes=_FILL_HOLES.value,
    ),
    'flip': _FLIP.value,
    'scales': ways.parse_scales(_SCALES.value),
    'stretch': _STRETCH.value,
    **runtime_flags.make_options(),
  }


def _make_do_clips(options: dict[str, Any]) -> 'session.DoClips':
  """Returns a function that does clips; checks their flags."""
  from rmbg_jax.video import cut_out

  def find_key():
    from rmbg_jax.weights import load

    # A checkpoint's name says nothing of its weights.
    return repr((load.load_model(_CHECKPOINT.value).compute_digest(), options))

  return functools.partial(
    cut_out.run,
    options=cut_out.Options(
      steadiness=_TEMPORAL.value,
      frame_rate=cut_out.parse_frame_rate(_FRAME_RATE.value),
      find_key=find_key,
    ),
  )


def run() -> None:
  """Runs the command line."""
  cli.run(main, __name__, takes_arguments=True)


if __name__ == '__main__':
  run()
