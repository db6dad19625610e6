"""Cuts out photos and clips: a file, a folder, a pattern, a list, a URL, stdin.

```bash
python -m rmbg_jax.predict photo.jpg cutout.png
python -m rmbg_jax.predict --checkpoint=runs/demo --input=PHOTOS --output=OUT
```

`OUT` gets a sub-folder for each kind of result, and `report.jsonl`. Both may be
URLs of object stores, and `--engine=ray` does it on a cluster.
"""

import collections
import dataclasses
import itertools
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import tqdm
from absl import flags
from PIL import Image

from data_pipelines import cli
from data_pipelines.io import errors, files, images, storage, words
from rmbg_jax import runtime_flags
from rmbg_jax.batch import (
  clip_names,
  listing,
  pipeline,
  places,
  record,
  report,
  stored,
  watching,
)
from rmbg_jax.inference import photos, refinement, rendering
from rmbg_jax.video import cut_out

_RELEASED = 'released'
_INTERRUPTED = 130  # The shell's exit code for SIGINT.
_GOES_ON = 'Interrupted. The same command goes on where it stopped.'
_BEGINS_ANEW = 'Interrupted. With --overwrite, the same command begins anew.'
_ENDINGS = 8  # Of files that are no photos, printed.
# Memory grows with the square of it.
_MAX_SCALE = 4

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
  _RELEASED,
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
  'save', ['mask', 'cutout'], f'What to save, of {", ".join(rendering.KINDS)}.'
)
_FORMAT = flags.DEFINE_enum(
  'format', 'png', rendering.FORMATS, 'Of the results; JPEG masks stay PNG.'
)
_QUALITY = flags.DEFINE_integer('quality', 95, 'Of WebP and JPEG, 1 to 100.')
_BACKGROUND = cli.define_path(
  'background', '', 'For composites: #rrggbb, the path of a picture, or blur.'
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
  'refine', 'none', refinement.METHODS, "How edges get the photo's size."
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
  f'at most {_MAX_SCALE}. 1 alone is fastest.',
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
  'shard', '', 'i/n: do only every n-th photo from the i-th (from 0) on.'
)
_OVERWRITE = flags.DEFINE_boolean(
  'overwrite', False, 'Do photos again whose results are there.'
)
_WATCH = flags.DEFINE_boolean(
  'watch',
  False,
  'Go on with what appears in the folder --input, until Ctrl-C.',
)
_CLIP_FORMAT = flags.DEFINE_enum(
  'clip_format',
  'prores',
  clip_names.FORMATS,
  'Of cut-out clips: prores (.mov) and vp9 (.webm) have alpha, other kinds are '
  'H.264 (.mp4); png writes folders of frames for all kinds.',
)
_TEMPORAL = flags.DEFINE_float(
  'temporal',
  0.0,
  'Steady the masks of clips over time where the picture stands still: 0 for '
  'not at all to 1.',
)
_FRAMES = flags.DEFINE_boolean(
  'frames', False, '--input is a folder of numbered frames, which are one clip.'
)
_FRAME_RATE = flags.DEFINE_string(
  'frame_rate', '25', 'Of --frames, per second; 30000/1001 is one too.'
)
_ENGINE = flags.DEFINE_enum(
  'engine',
  'local',
  ['local', 'ray'],
  'Who does it: this process, or actors on a Ray cluster.',
)
_ADDRESS = flags.DEFINE_string(
  'address',
  '',
  'Of the Ray cluster, such as auto; without it, one is started here for this '
  'run.',
)
_ACTORS = flags.DEFINE_string(
  'actors',
  '',
  'With --engine=ray, how many processes have a network: a number, or '
  'FEWEST:MOST to follow the work; without it, as many as there is room for.',
)
_CPUS = flags.DEFINE_float(
  'cpus_per_actor',
  None,
  'Reserved for each; without it, all that a machine has, shared by its GPUs.',
  lower_bound=0,
)
_GPUS = flags.DEFINE_float(
  'gpus_per_actor',
  None,
  'Reserved for each; without it, 1 where there are any.',
  lower_bound=0,
)
_PRINT_REPORT = flags.DEFINE_boolean(
  'print_report',
  False,
  'Print the report in --output that was written in parts (by URL, or by '
  '--engine=ray) as one, a line for each photo, and end.',
)
_MAX_PIXELS = flags.DEFINE_integer(
  'max_pixels', photos.MAX_PIXELS, 'Refuse photos with more.', lower_bound=1
)


def main(argv: list[str]) -> None:
  """Predicts what the flags describe; exits with 1 if any photo failed."""
  if _LIST.value:
    _print_checkpoints()
    return
  if _PRINT_REPORT.value:
    if not _OUTPUT.value:
      raise errors.UserError('--print_report: pass --output, its folder.')
    sys.stdout.writelines(report.join_parts(storage.parse(_OUTPUT.value)))
    return
  warnings.simplefilter('ignore', Image.DecompressionBombWarning)
  style = rendering.Style(format=_FORMAT.value)
  kind = next(iter(_choose_kinds(alone=True)), 'cutout')
  where = places.settle(
    _INPUT.value, _OUTPUT.value, argv[1:], suffix=f'-{kind}{style.suffix(kind)}'
  )
  try:
    if places.STANDARD in (*where.sources, where.output):
      _predict_standard(where)
      return
    if where.is_file:
      _predict_file(where)
      return
    failed = _predict_files(where)
  except KeyboardInterrupt as error:  # While the network is loaded.
    print(
      _describe_stop(), file=sys.stderr
    )  # Standard output may be for a photo.
    raise SystemExit(_INTERRUPTED) from error
  if failed:
    raise SystemExit(1)


def _describe_stop() -> str:
  return _BEGINS_ANEW if _OVERWRITE.value else _GOES_ON


def _print_checkpoints() -> None:
  from rmbg_jax.weights import catalogue

  checkpoints = catalogue.list_checkpoints()
  print(catalogue.format_table(checkpoints), end='\n\n')
  for checkpoint in checkpoints:
    print(catalogue.format_checkpoint(checkpoint), end='\n\n')


def _predict_standard(where: places.Places) -> None:
  """Cuts out one photo, from standard input to standard output."""
  if {*where.sources, where.output} != {places.STANDARD}:
    raise errors.UserError(
      '- stands for both: pass --input=- and --output=- together.'
    )
  if len(_SAVE.value) != 1:
    raise errors.UserError(
      'Standard output takes exactly one kind, such as --save=cutout.'
    )
  style, kinds = _make_style(_FORMAT.value, tuple(_SAVE.value))
  content, _ = _make_one(sys.stdin.buffer.read, style, kinds[0])
  sys.stdout.buffer.write(content)


def _predict_file(where: places.Places) -> None:
  """Cuts out one photo into one file."""
  (source,), output = where.sources, Path(where.output)
  for flag in (_WATCH, _FRAMES, _SHARD, _ADDRESS):
    if flag.value:
      raise errors.UserError(
        f'--{flag.name} is for folders. Pass them as --input and --output.'
      )
  if _ENGINE.value == 'ray':
    raise errors.UserError(
      '--engine=ray is for many photos. Leave it out, or pass folders.'
    )
  places.check_file(source, output, overwrite=_OVERWRITE.value)
  kinds = _choose_kinds(alone=True)
  if len(kinds) != 1:
    raise errors.UserError(
      f'--save={",".join(kinds)}: one file is of one kind. Pass one, such as '
      '--save=cutout, or --output=FOLDER.'
    )
  form = places.FORMATS[output.suffix.lower()]
  style, kinds = _make_style(form, kinds)
  if form != places.FORMATS[style.suffix(kinds[0])]:
    raise errors.UserError(
      f'--output={output}: a {kinds[0]} is lossless. Let its name end in .png.'
    )
  cli.check_folder(output.parent, 'output')
  content, notes = _make_one(lambda: source, style, kinds[0])
  with files.write_atomically(output) as partial:
    partial.write_bytes(content)
  print(output)
  for note in notes:
    print(f'{source}: {note}.')


def _make_one(
  read: Callable[[], images.Source], style: rendering.Style, kind: str
) -> tuple[bytes, tuple[str, ...]]:
  """Returns the file of one photo's result, and notes on the photo."""
  options = _make_options()
  photo = photos.read_photo(read(), max_pixels=_MAX_PIXELS.value)
  remover = _make_remover(options, batch_size=1)
  probs = remover.predict(remover.resize([photo.seen]))[0]
  alpha = remover.refine(probs, photo)
  return style.render(photo, alpha, (kind,))[kind], photo.notes


def _predict_files(where: places.Places) -> bool:
  """Does all photos; returns whether any failed."""
  source, output = where.sources[0], storage.parse(where.output)
  is_several = len(where.sources) > 1
  if is_several and (
    any(map(storage.is_url, (*where.sources, where.output)))
    or _ENGINE.value == 'ray'
    or _WATCH.value
    or _FRAMES.value
  ):
    raise errors.UserError(
      f'Several inputs ({source}, {where.sources[1]} ...) have to be files of '
      'this machine. Pass a folder, a list, or a pattern in quotes.'
    )
  by_url = storage.is_url(source) or isinstance(output, storage.Url)
  on_cluster = _ENGINE.value == 'ray'
  if on_cluster and not storage.is_url(source):  # Others have other folders.
    source = str(Path(source).absolute())
  if on_cluster and isinstance(output, Path):
    output = output.absolute()
  if by_url or on_cluster:
    _check_stored()
  if (
    not by_url
    and isinstance(output, Path)
    and Path(source).is_dir()
    and output.resolve().is_relative_to(Path(source).resolve())
  ):
    raise errors.UserError(
      f'--output={output} is inside --input={source}: the next run would take '
      'the results for photos. Pass a folder beside it.'
    )
  style, kinds = _make_style(_FORMAT.value, _choose_kinds(alone=False))
  options = _make_options()
  task = pipeline.Task(
    output=output,
    kinds=kinds,
    style=style,
    overwrite=_OVERWRITE.value,
    max_pixels=_MAX_PIXELS.value,
    clip_format=_CLIP_FORMAT.value,
  )
  if by_url or on_cluster:
    return _predict_stored(source, task, options)
  session = _Session(task, options, _make_video_options())
  if _WATCH.value:
    return _watch(Path(source), session)
  if is_several:
    jobs = listing.list_files(where.sources)
  else:
    jobs = _list_frames(source) if _FRAMES.value else listing.list_jobs(source)
  task.check_output()
  task.check_photos([job.photo for job in jobs])
  jobs = listing.take_shard(jobs, _SHARD.value)
  jobs = list(record.find_missing(jobs, task, _read_record(task)))
  todo = [job for job in jobs if not job.error and job.kinds]
  if todo:
    # One photo does not go through the network with three empty ones.
    alone = len(todo) == 1 and not todo[0].is_clip
    session.load(batch_size=1 if alone else _BATCH_SIZE.value)
  else:  # That needs no network, but a wrong flag is still one.
    from rmbg_jax.weights import load

    load.check_exists(_CHECKPOINT.value)
  with (
    session,
    tqdm.tqdm(total=len(jobs), unit='file') as progress,
  ):
    session.do(jobs, show=lambda _: progress.update())
  outcome = session.outcome
  _print_counts(outcome, _count(len(jobs), jobs), task)
  if not _FRAMES.value and not is_several:
    _print_others(listing.count_others(source))
  left = len(jobs) - outcome.counts.total()
  if left and outcome.interrupted:
    print(_describe_stop())
    raise SystemExit(_INTERRUPTED)
  if left:
    print(
      f'Stopped with {_count(left, jobs)} left: {outcome.trouble}. Free space; '
      'the same command goes on.'
    )
  elif outcome.trouble:
    print(f'Stopped: {outcome.trouble}. Free space; the same command goes on.')
  return bool(outcome.counts['failed'] or outcome.trouble)


def _check_stored() -> None:
  """Checks that the flags ask for nothing that only paths have.

  Raises:
    UserError: naming the flag.
  """
  _parse_actors(_ACTORS.value)
  for flag, what in ((_WATCH, 'watched'), (_FRAMES, 'read as frames')):
    if flag.value:
      raise errors.UserError(
        f'--{flag.name}: what is on an object store, or done on a cluster, '
        f'cannot be {what}. Pass paths, without --engine.'
      )


def _list_stored(
  source: str, task: pipeline.Task, counts: stored.Counts
) -> Iterator[listing.Job]:
  """Yields photos, by URL or by path, with what is missing of each."""
  if storage.is_url(source):
    jobs = stored.list_jobs(source, counts)
  else:
    jobs = listing.list_jobs(source)
    if isinstance(task.output, Path):
      task.check_output()
      task.check_photos([job.photo for job in jobs])
    photos_alone = [job for job in jobs if not job.is_clip]
    counts.others['clips, which paths and --engine=local are for'] = len(
      jobs
    ) - len(photos_alone)
    counts.photos = len(photos_alone)
    jobs = iter(sorted(photos_alone, key=stored.listing_order))
  shard, number = listing.parse_shard(_SHARD.value)
  yield from stored.find_missing(
    itertools.islice(jobs, shard, None, number), task, _read_record(task)
  )


def _read_record(task: pipeline.Task) -> record.Record:
  """Returns what was made before; nothing of that counts with --overwrite."""
  return record.Record() if task.overwrite else record.Record.read(task.output)


def _predict_stored(
  source: str, task: pipeline.Task, options: dict[str, Any]
) -> bool:
  """Does photos by URL; returns whether any failed."""
  from rmbg_jax.weights import load

  listing.parse_shard(_SHARD.value)
  if storage.is_url(source):
    stored.check_places(source, task)
  loaded = load.load_model(_CHECKPOINT.value)
  stored.begin(
    task, stored.describe(loaded.compute_digest(), options, task.style)
  )
  counts = stored.Counts()
  jobs = _list_stored(source, task, counts)
  if _ENGINE.value == 'ray':
    return _predict_on_cluster(jobs, task, loaded, options, counts)
  session = _Session(task, options, _make_video_options())
  session.load(batch_size=_BATCH_SIZE.value)
  with session, tqdm.tqdm(unit='file') as progress:
    session.do(jobs, show=lambda _: progress.update())
  outcome = session.outcome
  _print_counts(outcome, words.count(counts.photos, 'photo'), task)
  _print_others(counts.others)
  if outcome.interrupted:
    print(_describe_stop())
    raise SystemExit(_INTERRUPTED)
  if outcome.trouble:
    print(f'Stopped: {outcome.trouble}. The same command goes on.')
  return bool(outcome.counts['failed'] or outcome.trouble)


def _predict_on_cluster(
  jobs: Iterator[listing.Job],
  task: pipeline.Task,
  loaded,
  options: dict[str, Any],
  counts: stored.Counts,
) -> bool:
  """Does photos on a Ray cluster; returns whether any failed."""
  try:
    from rmbg_jax.batch import cluster
  except ImportError as error:
    raise errors.UserError(
      f'--engine=ray needs Ray Data ({errors.install_command("cluster")}): '
      f'{error}'
    ) from error
  result = cluster.run(
    jobs,
    task,
    loaded,
    options,
    batch_size=_BATCH_SIZE.value,
    cluster=cluster.Cluster(
      address=_ADDRESS.value,
      actors=_parse_actors(_ACTORS.value),
      cpus=_CPUS.value,
      gpus=_GPUS.value,
    ),
  )
  _print_counts(result, words.count(counts.photos, 'photo'), task)
  _print_others(counts.others)
  return result.counts['failed'] > 0


def _parse_actors(text: str) -> tuple[int, int] | None:
  """Returns (fewest, most) actors, None where the flag leaves it open.

  Raises:
    UserError: if it is neither a number nor a range.
  """
  if not text:
    return None
  fewest, _, most = text.partition(':')
  most = most or fewest
  if not (fewest.isdecimal() and most.isdecimal()) or not (
    0 < int(fewest) <= int(most)
  ):
    raise errors.UserError(
      f'--actors={text}: pass a number from 1 on, or FEWEST:MOST, such as 2:8.'
    )
  return int(fewest), int(most)


def _print_counts(tally: report.Tally, what: str, task: pipeline.Task) -> None:
  """Prints what became of how many, and what failed."""
  counts = tally.counts
  print(
    f'{counts["done"] + counts["skipped"]} of {what} done'
    + (f' ({counts["skipped"]} of them before)' if counts['skipped'] else '')
    + ': '
    + ', '.join(str(task.output / kind) for kind in task.kinds)
  )
  if counts['skipped']:
    print(
      'What was done before was left as it is, whatever the flags are now; '
      '--overwrite does it anew.'
    )
  for remark, count in tally.remarks.items():
    print(f'{count} of them {remark}.')
  if len(tally.runtimes) > 1:
    ways = [f'{n} by {name}' for name, n in tally.runtimes.most_common()]
    print(
      f'Computed in several ways: {"; ".join(ways)}. --overwrite makes all '
      'alike.'
    )
  for entry in tally.failures:
    print(f'Failed: {entry.photo}: {entry.error}')
  if counts['failed'] > len(tally.failures):
    print(
      f'... and {counts["failed"] - len(tally.failures)} others: see the '
      'report.'
    )


def _count(number: int, jobs: Sequence[listing.Job]) -> str:
  """Returns a number of jobs with what they are called."""
  kinds = {job.is_clip for job in jobs}
  if len(kinds) > 1:
    return f'{number:,} photos and clips'
  return words.count(number, 'clip' if kinds == {True} else 'photo')


def _list_frames(source: str) -> list[listing.Job]:
  """Returns the one clip that a folder of frames is."""
  folder = Path(source)
  if not folder.is_dir():
    raise errors.UserError(
      f'--input={source}: --frames takes a folder of numbered frames.'
    )
  clip_names.check_support()
  clip_names.find_frames(folder)
  name = Path(folder.resolve().name or 'frames')
  return [listing.Job(photo=folder, result=name, is_clip=True)]


def _watch(folder: Path, session: '_Session') -> bool:
  """Does what appears in a folder until SIGINT; returns whether any failed."""
  watching.check_support()
  if not folder.is_dir() or _FRAMES.value:
    raise errors.UserError(
      f'--input={folder}: --watch takes a folder of photos and clips.'
    )
  task = session.task
  task.check_output()

  def list_jobs():
    try:
      jobs = listing.list_jobs(str(folder))
    except errors.MissingFileError:
      return []  # Nothing yet.
    jobs = listing.take_shard(jobs, _SHARD.value)
    jobs = [job for job in jobs if not job.error]
    found = record.find_missing(jobs, task, made)
    return [job for job in found if job.kinds]

  made = _read_record(task)
  statuses = {}

  def show(entry):
    made.add(entry.made)
    statuses[entry.photo] = entry.status
    said = ''.join(f': {text}' for text in (entry.remark, entry.error) if text)
    print(f'{entry.status.capitalize()}: {entry.photo}{said}', flush=True)

  session.load(batch_size=_BATCH_SIZE.value)
  with session:
    print(f'Watching {folder} (Ctrl-C ends it)', flush=True)
    watching.watch(
      folder,
      list_jobs=list_jobs,
      do=lambda jobs, put_back: session.do(jobs, show=show, put_back=put_back),
      stop=session.stop,
    )
  outcome = session.outcome
  failed = sum(status == 'failed' for status in statuses.values())
  print(f'{len(statuses) - failed} done, {failed} failed.')
  if outcome.trouble:
    print(f'Stopped: {outcome.trouble}.')
  return bool(failed or outcome.trouble)


def _print_others(others: collections.Counter[str]) -> None:
  """Prints what was not taken for photos: how many, by their endings."""
  others = +others
  if others:
    counts = [f'{ending}: {n}' for ending, n in others.most_common(_ENDINGS)]
    counts += ['...'] if len(others) > _ENDINGS else []
    print(
      f'Left out, not photos by their names: '
      f'{words.count(sum(others.values()), "file")} '
      f'({", ".join(counts)})'
    )
    if not clip_names.HAS_AV and set(others) & clip_names.SUFFIXES:
      command = errors.install_command('video')
      print(f'Clips are done too with PyAV: {command}.')


@dataclasses.dataclass(kw_only=True)
class _Outcome(report.Tally):
  """The outcome of a run.

  Attributes:
    interrupted: Whether it was ended by SIGINT.
    trouble: Why it was ended, or its report is not whole; '' if neither.
  """

  interrupted: bool = False
  trouble: str = ''


class _Session:
  """Does jobs, with a report, until SIGINT. A context.

  Attributes:
    task: Work done on them.
    outcome: Numbers of photos by outcome.
    stop: Set once no other job is to be begun.
  """

  def __init__(
    self,
    task: pipeline.Task,
    options: dict[str, Any],  # Of `BackgroundRemover.from_checkpoint`.
    video_options: cut_out.Options,
  ):
    self.task = task
    self.outcome = _Outcome()
    self.stop = threading.Event()
    self._options = options
    self._video_options = video_options
    self._remover: Any = None  # A `BackgroundRemover`, by `load`.

  def load(self, *, batch_size: int) -> None:
    """Loads the network, before there is anything in the output."""
    self._remover = _make_remover(self._options, batch_size=batch_size)

  def __enter__(self) -> '_Session':
    self._previous = signal.signal(signal.SIGINT, self._interrupt)
    if isinstance(self.task.output, storage.Url):
      self._report = report.PartedReport(self.task.output)
      return self
    suffix = _SHARD.value.replace('/', '-of-')
    name = f'report-{suffix}.jsonl' if suffix else 'report.jsonl'
    self._report = report.Report(self.task.output / name)
    return self

  def __exit__(self, *exc_info):
    outcome = self.outcome
    try:
      self._report.close()
    except (errors.UserError, OSError) as error:
      outcome.trouble = str(error)
    signal.signal(signal.SIGINT, self._previous)
    if self.stop.is_set() and not outcome.interrupted:
      outcome.trouble = (
        outcome.trouble or f'no space is left for {self.task.output}'
      )

  def _interrupt(self, *_):
    self.outcome.interrupted = True
    self.stop.set()

  def do(
    self,
    jobs: Iterable[listing.Job],
    *,
    show: Callable[[report.Entry], object],
    put_back: Callable[[str], bool] = lambda _: False,
  ) -> None:
    """Does jobs.

    Args:
      jobs: Photos and clips; if it is no sequence, photos are taken from it
        as their turn comes.
      show: Called with what became of each.
      put_back: Asked for what failed; what it takes is not reported.
    """

    def add_entry(entry):
      if entry.status == 'failed' and put_back(entry.photo):
        return
      if entry.status == 'skipped':
        entry.runtime = self._report.find_runtime(entry.photo)
      self.outcome.add(entry)
      show(entry)
      try:
        self._report.add(entry)
      except (errors.UserError, OSError) as error:
        self.outcome.trouble = str(error)
        self.stop.set()

    clips_to_do = []

    def choose_photos():
      for job in jobs:
        if job.error:
          add_entry(
            report.Entry(photo=str(job.photo), status='failed', error=job.error)
          )
        elif not self.task.missing(job):
          add_entry(
            report.Entry(
              photo=str(job.photo), status='skipped', remark=job.remark
            )
          )
        elif job.is_clip:
          clips_to_do.append(job)
        else:
          yield job

    photos_to_do = choose_photos()
    if isinstance(jobs, Sequence):  # Then it is known at once what is done.
      photos_to_do = list(photos_to_do)
    if photos_to_do:
      pipeline.run(
        self._remover,
        photos_to_do,
        self.task,
        add_entry=add_entry,
        stop=self.stop,
      )
    if clips_to_do:
      from rmbg_jax.weights import load

      # A checkpoint's name says nothing of its weights.
      network = load.load_model(_CHECKPOINT.value).compute_digest()
      cut_out.run(
        self._remover,
        clips_to_do,
        self.task,
        dataclasses.replace(
          self._video_options, key=repr((network, self._options))
        ),
        add_entry=add_entry,
        stop=self.stop,
      )


def _choose_kinds(*, alone: bool) -> tuple[str, ...]:
  """Returns the kinds to save; `alone`: one, unless --save says several."""
  if alone and flags.FLAGS[_SAVE.name].using_default_value:
    return ('composite',) if _BACKGROUND.value else ('cutout',)
  return tuple(_SAVE.value)


def _make_style(
  form: str, kinds: tuple[str, ...]
) -> tuple[rendering.Style, tuple[str, ...]]:
  style = rendering.Style(
    format=form,
    quality=_QUALITY.value,
    background=_BACKGROUND.value,
    estimate_foreground=_FOREGROUND.value,
    trim=_TRIM.value,
    trimap_width=_TRIMAP_WIDTH.value,
  )
  style.check_kinds(kinds)
  # Its picture was read under Pillow's own limit. Photos are held against
  # --max_pixels instead, which may be more, with a message that names it.
  Image.MAX_IMAGE_PIXELS = None
  return style, kinds


def _make_options() -> dict[str, Any]:
  """Returns what the flags say of the remover, checked, without JAX."""
  text = ','.join(_SCALES.value or ())
  wrong = errors.UserError(
    f'--scales={text}: pass numbers above 0 and at most {_MAX_SCALE}, such as '
    '0.75,1,1.25.'
  )
  scales = None
  if _SCALES.value is not None:
    try:
      scales = tuple(float(scale) for scale in _SCALES.value)
    except ValueError as error:
      raise wrong from error
    if not scales or not all(0 < scale <= _MAX_SCALE for scale in scales):
      raise wrong
  return {
    'refinement': refinement.Refinement(
      method=_REFINE.value,
      threshold=_THRESHOLD.value,
      keep_largest=_KEEP_LARGEST.value,
      fill_holes=_FILL_HOLES.value,
    ),
    'flip': _FLIP.value,
    'scales': scales,
    'stretch': _STRETCH.value,
    **runtime_flags.make_options(),
  }


def _make_video_options() -> cut_out.Options:
  """Returns what the flags say of clips, checked."""
  try:
    frame_rate = Fraction(_FRAME_RATE.value)
  except (ValueError, ZeroDivisionError) as error:
    raise errors.UserError(
      f'--frame_rate={_FRAME_RATE.value}: pass frames per second, such as 25 '
      'or 30000/1001.'
    ) from error
  return cut_out.Options(steadiness=_TEMPORAL.value, frame_rate=frame_rate)


def _make_remover(options: dict[str, Any], *, batch_size: int):
  # Runtimes take time to import: what is wrong with the flags is said before.
  from rmbg_jax.inference import remover as remover_lib
  from rmbg_jax.inference import runtimes

  runtimes.start_process(options['runtime'])
  return remover_lib.BackgroundRemover.from_checkpoint(
    _CHECKPOINT.value,
    batch_size=batch_size,
    **options,
  )


def run() -> None:
  """Runs the command line."""
  cli.run(main, __name__)


if __name__ == '__main__':
  run()
