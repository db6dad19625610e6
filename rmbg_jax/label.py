r"""Makes a data set of photos without masks, where several networks agree.

```bash
python -m rmbg_jax.label --input=PHOTOS --output=LABELLED
python -m rmbg_jax.main --config=small --config.init_from=small \
  --config.data.dir=LABELLED
```

Each photo gets the mean of the checkpoints' masks, if these are alike. `OUTPUT`
gets `Images/`, `Masks/`, `Dataset.csv`, with the label `pseudo`, and
`labels.csv`, with the figures of all photos. Run again, it goes on; photos of
another --input are added.
"""

import csv
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tqdm
from absl import app, flags
from PIL import Image

from data_pipelines import cli
from data_pipelines.datasets import dataset_csv, records
from data_pipelines.io import errors, files, parallel
from rmbg_jax import runtime_flags
from rmbg_jax.batch import listing, places
from rmbg_jax.evaluation import agreement
from rmbg_jax.inference import photos, runtimes
from rmbg_jax.inference import remover as remover_lib

_TABLE = 'labels.csv'
_COLUMNS = (
  *('photo', *agreement.FIGURES, 'kept', 'category', 'source'),
  *('checkpoint', 'side', 'error'),
)
# Areas of masks that something went wrong with, and of unsure pixels.
_AREAS = (0.02, 0.9)
_MOST_UNSURE = 0.2
_SAVE_EVERY = 500  # Photos.
_BATCH = 16  # Photos that go through a network together.


def main() -> None:
  """Labels the photos; exits with 1 if any could not be read."""
  values = flags.FLAGS
  if len(values.checkpoint) < 2:
    raise app.UsageError('--checkpoint: pass two or more, to be compared.')
  output = Path(values.output)
  files.check_folder(output, 'output')
  table = output / _TABLE
  if not table.exists() and any(output.glob('[!.]*')):  # Hidden ones may be.
    raise errors.UserError(
      f'--output={output} has files that this command has not made. Pass '
      'another folder.'
    )
  # The output may be below the input: what it holds is no new photo.
  jobs = [
    job
    for job in listing.list_jobs(values.input)
    if not (job.is_clip or places.is_below(job.photo, output))
  ]
  rows = _read_rows(table)
  # What decides how a mask is.
  made_with = {
    'checkpoint': ','.join(values.checkpoint),
    'side': str(values.side),
  }
  for row in rows.values():
    before = {name: row.get(name) for name in made_with}
    if before != made_with:
      raise errors.UserError(
        f'--output={output}: {row["photo"]} was labelled with {before}, not '
        f'{made_with}. Pass these as they were, or another --output.'
      )
  facts = {'category': values.category, 'source': values.source} | made_with
  options = runtime_flags.make_options()
  runtimes.start_process(options['runtime'])
  teachers = [
    remover_lib.BackgroundRemover.from_checkpoint(
      path, batch_size=_BATCH, **options
    )
    for path in values.checkpoint
  ]
  # Another --agreement may keep more, too.
  done = {p for p, row in rows.items() if row['kept'] or not _is_good(row)}
  missing = [job for job in jobs if _locate(job.photo) not in done]
  taken = {row['kept'].lower() for row in rows.values()}
  for photo in rows.keys() & {_locate(job.photo) for job in jobs}:
    rows[photo] |= facts
  _save(rows, output)  # So that a run that is killed is known.
  try:
    labelled = _label(missing, teachers, output, taken)
    progress = tqdm.tqdm(labelled, total=len(missing), unit='photo')
    for number, row in enumerate(progress, start=1):
      rows[row['photo']] = row | facts
      if number % _SAVE_EVERY == 0:
        _save(rows, output)
  finally:  # Ctrl-C too.
    kept = _save(rows, output)
  print(f'{kept} of {len(rows)} photos are labelled: {output}')
  failed = [row for row in rows.values() if row['error']]
  for row in failed[:20]:
    print(f'Failed: {row["error"]}')
  if failed:
    print(f'{table} names all {len(failed)} that failed.')
    raise SystemExit(1)


def _label(
  jobs: Sequence[listing.Job],
  teachers: Sequence[remover_lib.BackgroundRemover],
  output: Path,
  taken: set[str],
) -> Iterator[dict[str, str]]:
  """Writes photos and masks, of those that get one; yields each photo's row.

  Their names are added to those that are taken, perhaps by another --input.
  """
  # Threads read ahead, while the networks are at work.
  ahead = zip(jobs, parallel.map_in_order(_read, jobs), strict=True)
  while batch := list(itertools.islice(ahead, _BATCH)):
    photos_of_it = [p for _, p in batch if isinstance(p, Image.Image)]
    alphas = zip(*(t.alphas(photos_of_it) for t in teachers), strict=True)
    for job, photo in batch:
      row = dict.fromkeys(_COLUMNS, '') | {'photo': _locate(job.photo)}
      if isinstance(photo, Image.Image):
        alpha, figures = agreement.combine(next(alphas))
        row |= {name: f'{value:.4f}' for name, value in figures.items()}
        if _is_good(row):
          row['kept'] = _choose_name(str(job.result), taken)
          mask = Image.fromarray(np.rint(255 * alpha).astype(np.uint8))
          photo_path, mask_path = _name_files(output, row['kept'])
          with files.write_atomically(photo_path) as partial:
            photo.save(partial, format='jpeg', quality=95)
          with files.write_atomically(mask_path) as partial:
            mask.save(partial, format='png')
      else:
        row['error'] = str(photo)
      yield row


def _read(job: listing.Job) -> Image.Image | Exception:
  """Returns a photo as networks see it, or why it cannot be read."""
  try:
    if job.error:
      raise errors.UserError(job.error)
    photo = photos.read_photo(job.photo).seen
  except (OSError, ValueError) as error:
    return error
  photo.thumbnail((flags.FLAGS.side,) * 2, Image.Resampling.LANCZOS)
  return photo


def _choose_name(result: str, taken: set[str]) -> str:
  """Returns a name for a photo that is not taken, and takes it."""
  name, number = result, 1
  while name.lower() in taken:
    number += 1
    name = f'{result}_{number}'
  taken.add(name.lower())
  return name


def _locate(photo: Path) -> str:
  """Returns a photo's path, the same from whatever folder it is named."""
  return str(photo.parent.resolve() / photo.name)


def _is_good(row: dict[str, str]) -> bool:
  """Returns whether a row's figures are those of a mask to keep."""
  agreed, area, unsure = (float(row[key]) for key in agreement.FIGURES)
  return (
    agreed >= flags.FLAGS.agreement
    and _AREAS[0] <= area <= _AREAS[1]
    and unsure <= _MOST_UNSURE
  )


def _name_files(output: Path, name: str) -> tuple[Path, Path]:
  """Returns the photo and the mask of a row that is kept."""
  return output / 'Images' / f'{name}.jpg', output / 'Masks' / f'{name}.png'


def _read_rows(path: Path) -> dict[str, dict[str, str]]:
  """Returns the table's rows by photo, without those that failed."""
  if not path.exists():
    return {}
  with path.open(newline='', encoding='utf-8', errors='surrogateescape') as f:
    rows = [row for row in csv.DictReader(f) if not row['error']]
  # Perhaps by another --agreement.
  return {
    _locate(Path(row['photo'])): row if _is_good(row) else row | {'kept': ''}
    for row in rows
  }


def _save(rows: dict[str, dict[str, str]], output: Path) -> int:
  """Writes both lists; returns the number of labelled photos."""
  files.write_csv(output / _TABLE, _COLUMNS, rows.values())
  pairs = [
    records.Pair(
      name=f'{row["kept"]}.jpg',
      category=row.get('category', ''),
      image_path=photo_path,
      mask_path=mask_path,
      source=row.get('source', ''),
      label='pseudo',
    )
    for row in rows.values()
    if row['kept']
    for photo_path, mask_path in [_name_files(output, row['kept'])]
  ]
  dataset_csv.write(output / dataset_csv.NAME, pairs)
  return len(pairs)


def run() -> None:
  """Runs the command line."""
  flags.adopt_module_key_flags(runtime_flags)  # For --help.
  cli.define_paths(
    'checkpoint',
    ['lite', 'small'],
    'Two or more of what `predict` takes; u2netp adds another kind of network.',
    urls=('hf',),
  )
  cli.define_path('input', None, 'A folder of photos, a pattern, or a list.')
  cli.define_path('output', 'labelled', 'Folder for the data set.')
  flags.DEFINE_float(
    'agreement',
    0.8,
    'Least intersection over union of any two masks, for a photo to be kept.',
    lower_bound=0,
    upper_bound=1,
  )
  flags.DEFINE_integer(
    'side', 384, 'Longest side of the photos, in pixels.', lower_bound=32
  )
  flags.DEFINE_string('category', '', 'Column Category, such as animal.')
  flags.DEFINE_string(
    'source', '', 'Column Source, such as the place of origin.'
  )
  cli.run(main, __name__, required=('input',))


if __name__ == '__main__':
  run()
