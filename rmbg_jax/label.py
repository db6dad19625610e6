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
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tqdm
from absl import app, flags
from PIL import Image

from data_pipelines import cli
from data_pipelines.datasets import dataset_csv, records
from data_pipelines.io import errors, files
from rmbg_jax import runtime_flags
from rmbg_jax.batch import listing, places
from rmbg_jax.evaluation import agreement
from rmbg_jax.inference import photos, runtimes
from rmbg_jax.inference import remover as remover_lib

_TABLE = 'labels.csv'
_COLUMNS = ('photo', 'agreement', 'area', 'unsure', 'kept', 'error')
# Areas of masks that something went wrong with, and of unsure pixels.
_AREAS = (0.02, 0.9)
_MOST_UNSURE = 0.2
_SAVE_EVERY = 500  # Photos.


def main() -> None:
  """Labels the photos; exits with 1 if any could not be read."""
  values = flags.FLAGS
  if len(values.checkpoint) < 2:
    raise app.UsageError('--checkpoint: pass two or more, to be compared.')
  output = Path(values.output)
  files.check_folder(output, 'output')
  table = output / _TABLE
  if not table.exists() and output.exists() and any(output.iterdir()):
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
  options = runtime_flags.make_options()
  runtimes.start_process(options['runtime'])
  teachers = [
    remover_lib.BackgroundRemover.from_checkpoint(path, **options)
    for path in values.checkpoint
  ]
  rows = _read_rows(table)
  missing = [job for job in jobs if _is_missing(rows.get(_locate(job.photo)))]
  taken = {str(row['kept']).lower() for row in rows.values()}
  _save(rows, output)  # So that a run that is killed is known.
  try:
    for number, job in enumerate(tqdm.tqdm(missing, unit='photo'), start=1):
      row = _label(job, teachers, output, taken)
      rows[str(row['photo'])] = row
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
  job: listing.Job,
  teachers: Sequence[remover_lib.BackgroundRemover],
  output: Path,
  taken: set[str],
) -> dict[str, object]:
  """Writes a photo and its mask, if it gets one; returns the photo's row.

  Its name is added to those that are taken, perhaps by another --input.
  """
  row: dict[str, object] = dict.fromkeys(_COLUMNS, '')
  row['photo'] = _locate(job.photo)
  try:
    if job.error:
      raise errors.UserError(job.error)
    photo = photos.read_photo(job.photo).seen
    photo.thumbnail((flags.FLAGS.side,) * 2, Image.Resampling.LANCZOS)
    label = agreement.combine([teacher.alpha(photo) for teacher in teachers])
  except (OSError, ValueError) as error:
    return {**row, 'error': error}
  row |= {
    name: f'{getattr(label, name):.4f}'
    for name in ('agreement', 'area', 'unsure')
  }
  if _is_good(row):
    name, number = str(job.result), 1
    while name.lower() in taken:
      number += 1
      name = f'{job.result}_{number}'
    taken.add(name.lower())
    row['kept'] = name
    mask = Image.fromarray(np.rint(255 * label.alpha).astype(np.uint8))
    with files.write_atomically(_name_photo(output, name)) as partial:
      photo.save(partial, format='jpeg', quality=95)
    with files.write_atomically(_name_mask(output, name)) as partial:
      mask.save(partial, format='png')
  return row


def _locate(photo: Path) -> str:
  """Returns a photo's path, the same from whatever folder it is named."""
  return str(photo.parent.resolve() / photo.name)


def _is_good(row: dict[str, object]) -> bool:
  """Returns whether a row's figures are those of a mask to keep."""
  agreement, area, unsure = (
    float(str(row[key])) for key in ('agreement', 'area', 'unsure')
  )
  return (
    agreement >= flags.FLAGS.agreement
    and _AREAS[0] <= area <= _AREAS[1]
    and unsure <= _MOST_UNSURE
  )


def _name_photo(output: Path, name: str) -> Path:
  return output / 'Images' / f'{name}.jpg'


def _name_mask(output: Path, name: str) -> Path:
  return output / 'Masks' / f'{name}.png'


def _read_rows(path: Path) -> dict[str, dict[str, object]]:
  """Returns the table's rows by photo, without those that failed."""
  if not path.exists():
    return {}
  with path.open(newline='', encoding='utf-8', errors='surrogateescape') as f:
    rows = [row for row in csv.DictReader(f) if not row['error']]
  for row in rows:
    if not _is_good(row):  # Any more, by another --agreement.
      row['kept'] = ''
  return {_locate(Path(row['photo'])): row for row in rows}


def _is_missing(row: dict[str, object] | None) -> bool:
  """Returns whether a photo with this row is still to be labelled."""
  return row is None or (_is_good(row) and not row['kept'])


def _save(rows: dict[str, dict[str, object]], output: Path) -> int:
  """Writes both lists; returns the number of labelled photos."""
  files.write_csv(output / _TABLE, _COLUMNS, rows.values())
  pairs = [
    records.Pair(
      name=f'{row["kept"]}.jpg',
      category=flags.FLAGS.category,
      image_path=_name_photo(output, str(row['kept'])),
      mask_path=_name_mask(output, str(row['kept'])),
      source=flags.FLAGS.source,
      label='pseudo',
    )
    for row in rows.values()
    if row['kept']
  ]
  dataset_csv.write(output / dataset_csv.NAME, pairs)
  return len(pairs)


def run() -> None:
  """Runs the command line."""
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
