"""Scores checkpoints and folders of masks on ground truth.

```bash
python -m rmbg_jax.evaluate --checkpoint=runs/lite --data=DIR --output=OUT
python -m rmbg_jax.evaluate --predictions=MASKS,OTHERS --data=DIR --output=OUT
python -m rmbg_jax.evaluate --compare=OUT/lite,OUT/MASKS --output=CHANGES
python -m rmbg_jax.evaluate --compare=small,u2netp --input=PHOTOS --output=OUT
```

docs/evaluation.md says what the columns mean. Needs the extra `eval`.
"""

import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tqdm
from absl import app, flags

from data_pipelines import cli
from data_pipelines.io import errors, files, parallel
from rmbg_jax import runtime_flags
from rmbg_jax.evaluation import benchmarks, metrics, predictions

if TYPE_CHECKING:
  from rmbg_jax.evaluation import scoring

# Returns a data set's predictions in the order of its pairs: files, arrays, or
# error messages.
Predict = Callable[[benchmarks.DataSet], Iterator[Any]]

_FEW = 20  # Images that one process scores sooner than several start.


def main() -> None:
  """Scores or compares; exits with 1 if any image could not be scored."""
  _check_flags()
  errors.check_extra(
    'eval', 'Evaluation needs more', 'py_sod_metrics', 'matplotlib'
  )
  files.check_folder(Path(flags.FLAGS.output), 'output')
  if flags.FLAGS.input:
    failed = _compare_checkpoints()
  elif flags.FLAGS.compare:
    # Late, like all that needs the extra or SciPy.
    from rmbg_jax.evaluation import compare

    first, second = map(Path, flags.FLAGS.compare)
    print(compare.compare(first, second, Path(flags.FLAGS.output)))
    failed = []
  else:
    failed = _evaluate()
  for line in failed[:20]:
    print(f'Failed: {line}')
  if len(failed) > 20:
    print(f'... and {len(failed) - 20} more; images.csv names them all.')
  if failed:
    raise SystemExit(1)


def _check_flags() -> None:
  if flags.FLAGS.input and len(flags.FLAGS.compare) < 2:
    raise app.UsageError('--input is for --compare of two or more checkpoints.')
  if flags.FLAGS.compare:
    for name in ('checkpoint', 'data', 'predictions'):
      if flags.FLAGS[name].value:
        raise app.UsageError(
          f'--{name} is not for --compare, which names all that is compared.'
        )
    if len(flags.FLAGS.compare) != 2 and not flags.FLAGS.input:
      raise app.UsageError(
        '--compare takes two folders, A,B; for checkpoints, pass --input too.'
      )
    return
  if not flags.FLAGS.data:
    raise app.UsageError('--data is missing. Pass the data sets to score on.')
  if not flags.FLAGS.checkpoint and not flags.FLAGS.predictions:
    raise app.UsageError('Pass --checkpoint or --predictions to score.')
  if not set(flags.FLAGS.metrics) <= set(metrics.GROUPS):
    raise app.UsageError(
      f'--metrics={",".join(flags.FLAGS.metrics)}: choose from '
      f'{", ".join(metrics.GROUPS)}.'
    )


def _compare_checkpoints() -> list[str]:
  """Draws the photos on which checkpoints differ most; returns what failed."""
  from rmbg_jax.batch import listing
  from rmbg_jax.evaluation import differences
  from rmbg_jax.inference import runtimes

  options = runtime_flags.make_options()
  runtimes.start_process(options['runtime'])
  checkpoints: dict[str, str] = {}
  for path in flags.FLAGS.compare:
    checkpoints[_name_system(path, checkpoints)] = path
  jobs = listing.list_jobs(flags.FLAGS.input)
  output = Path(flags.FLAGS.output) / 'most_different.jpg'
  failed = differences.compare_checkpoints(
    checkpoints,
    [job.photo for job in jobs if not job.is_clip],
    output,
    count=flags.FLAGS.gallery or 10,
    options=options,
  )
  print(f'Written: {output}')
  return failed


def _evaluate() -> list[str]:
  """Scores everything; returns what failed."""
  from rmbg_jax.evaluation import publishing, results, scoring

  data_sets: list[benchmarks.DataSet] = []
  for directory in flags.FLAGS.data:
    for found in benchmarks.load_data_sets(directory, splits=flags.FLAGS.split):
      taken = [other.name for other in data_sets]
      name = _make_unique(found.name, found.directory, taken)
      data_sets.append(dataclasses.replace(found, name=name))
  # Open all before scoring any, so that none is refused at the end.
  systems: dict[str, dict[str, Any]] = {}
  predicts: dict[str, Predict] = {}
  for opener, paths in (
    (_open_checkpoint, flags.FLAGS.checkpoint),
    (_open_folder, flags.FLAGS.predictions),
  ):
    for path in paths:  # A Path would break hf://OWNER/NAME.
      name = _name_system(path, systems)
      systems[name], predicts[name] = opener(path, data_sets)
  output = Path(flags.FLAGS.output)
  parts = []
  failed = [p for data_set in data_sets for p in data_set.problems]
  count = len(predicts) * sum(len(data_set.pairs) for data_set in data_sets)
  processes = 1 if count <= _FEW else parallel.count_cores()
  with scoring.open_map(flags.FLAGS.processes or processes) as score_all:
    for name, predict in predicts.items():
      for data_set in data_sets:
        folder = output / name / data_set.name
        jobs = _make_jobs(
          predict(data_set),
          data_set,
          scales=systems[name].get('scales', {}),
          masks_dir=folder / 'masks',
        )
        scores = tqdm.tqdm(
          score_all(jobs),
          total=len(data_set.pairs),
          desc=f'{name} on {data_set.name}',
          unit='image',
        )
        part = results.collect(scores, system=name, data_set=data_set.name)
        try:
          results.save_results(part, folder)
        except OSError as error:
          raise errors.UserError(
            f'{error.filename}: {error.strerror or error}; '
            f'{len(parts)} of {len(predicts) * len(data_sets)} results are '
            f'written below {output}. Make room and evaluate again.'
          ) from error
        parts.append(part)
        failed += [
          f'{name} on {data_set.name}: {image}: {error}'
          for image, error in part.failed.items()
        ]
  print(
    publishing.save_report(
      parts,
      data_sets,
      systems=systems,
      output=output,
      gallery_count=flags.FLAGS.gallery,
    )
  )
  print(
    f'Written: {output}/table.md, table.csv, results.json, curves, galleries'
  )
  return list(dict.fromkeys(failed))


def _make_jobs(
  predicted: Iterator[Any],
  data_set: benchmarks.DataSet,
  *,
  scales: dict[str, int],
  masks_dir: Path,
) -> 'Iterator[scoring.Job]':
  """Yields a job for each pair, as masks are predicted."""
  from rmbg_jax.evaluation import scoring

  kinds = tuple(flags.FLAGS.metrics)
  if not kinds:
    soft = all(pair.label == 'alpha' for pair in data_set.pairs)
    kinds = ('matting',) if soft else ('saliency',)
  names = predictions.name_masks(data_set.pairs)
  for pair, prediction in zip(data_set.pairs, predicted, strict=True):
    yield scoring.Job(
      pair=pair,
      prediction=prediction,
      kinds=kinds,
      binarize=data_set.binarize,
      band=flags.FLAGS.band,
      save_as=masks_dir / names[pair.name],
      scales=scales,
    )


def _open_checkpoint(
  path: str, data_sets: Sequence[benchmarks.DataSet]
) -> tuple[dict[str, Any], Predict]:
  """Describes a checkpoint, and returns a function that predicts a data set."""
  # Here, since every process that scores imports this module.
  from rmbg_jax.inference import remover as remover_lib
  from rmbg_jax.inference import runtimes
  from rmbg_jax.weights import load

  options = runtime_flags.make_options()
  runtimes.start_process(options['runtime'])
  loaded = load.load_model(path)
  details = predictions.describe_checkpoint(path, loaded)
  details['notes'] = []
  for data_set in data_sets:
    # Before the network is compiled, which takes longest.
    seen = benchmarks.find_trained_on(data_set, details['training_data'] or ())
    if seen and not flags.FLAGS.allow_training_data:
      raise errors.UserError(
        f'{path} was trained on {", ".join(seen)}, which {data_set.name} '
        f'({data_set.directory}) is or contains, by the Source column of its '
        'list. Leave it out of --data. To score on it all the same, as on '
        'other pictures of the same source, pass --allow_training_data; the '
        'table will say so.'
      )
    if seen:
      details['notes'].append(
        f'Trained on {", ".join(seen)} of {data_set.name}: its figures there '
        'say nothing about new images.'
      )
  remover = remover_lib.BackgroundRemover(
    loaded, batch_size=flags.FLAGS.batch_size, **options
  )
  details['runtime'] = remover.runtime

  def predict(data_set) -> Iterator[Any]:
    return predictions.predict_alphas(
      remover.alphas, data_set.pairs, batch_size=remover.batch_size
    )

  return details, predict


def _open_folder(
  path: str, data_sets: Sequence[benchmarks.DataSet]
) -> tuple[dict[str, Any], Predict]:
  """Describes a folder of masks, and returns a function that finds them."""
  index = predictions.index_masks(Path(path))

  def predict(data_set) -> Iterator[Any]:
    for pair in data_set.pairs:
      yield predictions.find_mask(index, pair, data_set.name)

  # A folder stores all masks alike; a single one may be nearly black.
  found = itertools.chain.from_iterable(map(predict, data_sets))
  scales = predictions.find_scales(p for p in found if isinstance(p, Path))
  notes = [
    f'Its {kind} reach {scale}, which counts as all foreground.'
    for kind, scale in scales.items()
    if (kind, scale) != ('integers', 255)
  ]
  return {'masks': str(path), 'scales': scales, 'notes': notes}, predict


def _name_system(path: str, taken: Collection[str]) -> str:
  place = Path(path)
  name = place.stem if place.is_file() else place.absolute().name
  return _make_unique(name, place, taken)


def _make_unique(name: str, path: Path, taken: Collection[str]) -> str:
  """Returns a name that is not taken, by the folder that its path is in."""
  if name in taken:
    name = f'{path.absolute().parent.name}_{name}'
  return f'{name}_{len(taken) + 1}' if name in taken else name


def run() -> None:
  """Runs the command line."""
  flags.adopt_module_key_flags(runtime_flags)  # For --help.
  # Here, since `predict` has some of these names as well.
  cli.define_paths(
    'checkpoint',
    [],
    "What `predict` takes: a training's working directory, a .safetensors "
    'release, a Keras .h5, an .onnx. Several are put side by side.',
    urls=('hf',),
  )
  cli.define_paths(
    'predictions', [], "Folders of masks with the photos' stems, by anything."
  )
  cli.define_paths(
    'data', [], 'Benchmarks as published, or folders of photos and masks.'
  )
  cli.define_path('output', 'evaluation', 'Folder for the results.')
  flags.DEFINE_list(
    'split', [], 'Rows to score on, such as val; default: all but train.'
  )
  flags.DEFINE_list(
    'metrics',
    [],
    f'Of {", ".join(metrics.GROUPS)}. Default: matting where all masks are '
    'soft mattes (label `alpha`), otherwise saliency.',
  )
  flags.DEFINE_integer(
    'band',
    10,
    'Radius in pixels of the unknown band around the true outline, where there '
    'is no folder `trimap` beside the masks.',
    lower_bound=1,
  )
  flags.DEFINE_integer(
    'batch_size', 4, 'Photos in the network together.', lower_bound=1
  )
  flags.DEFINE_integer(
    'processes',
    None,
    'Processes that score; default: one per core, one for few images.',
    lower_bound=1,
  )
  flags.DEFINE_integer(
    'gallery',
    10,
    'Worst, median, best and most different images to show; 0: no gallery.',
    lower_bound=0,
  )
  cli.define_paths(
    'compare',
    [],
    'Two results: what differs, instead of an evaluation. With --input, '
    'checkpoints: a picture of the photos on which they differ most.',
    urls=('hf',),
  )
  cli.define_path(
    'input',
    '',
    'Photos (a folder, a pattern, a list) for --compare of checkpoints.',
  )
  flags.DEFINE_bool(
    'allow_training_data',
    False,
    'Score a checkpoint on data that it was trained on; the table says so.',
  )
  cli.run(main, __name__)


if __name__ == '__main__':
  run()
