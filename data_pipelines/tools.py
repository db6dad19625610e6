"""Four small tools for a folder of `Images/` and `Masks/`.

```bash
python -m data_pipelines.tools rename --data=DIR --category=human
python -m data_pipelines.tools resize --data=DIR --size=512x512 --output=OUT
python -m data_pipelines.tools create_csv --data=DIR --category=human
python -m data_pipelines.tools plot --data=DIR --output=pairs.png
```

`rename` numbers the pairs CATEGORY_00001 and so on, in the folder itself;
`create_csv` writes its Dataset.csv; the others leave it alone.
"""

import dataclasses
from pathlib import Path

import numpy as np
from absl import app, flags
from PIL import Image

from data_pipelines import combine, errors, folder, prepare, sheets
from rmbg_jax import command_line, files


def rename(directory: Path, category: str) -> int:
  """Renames pairs, photo and mask alike, in their order.

  An interrupted call leaves at most one pair half renamed, and is repeated
  after that mask has been renamed too; `read_folder` names it.

  Returns:
    The number of pairs.

  Raises:
    UserError: as `folder.read_folder`; or if there is a
      Dataset.csv, which would not fit any more, or a name is taken.
  """
  _refuse_csv(directory)
  plan = {}
  for number, pair in enumerate(folder.read_folder(directory), start=1):
    for path in (pair.image_path, pair.mask_path):
      plan[path] = path.with_stem(f'{category}_{number:05d}')
  moves = {old: new for old, new in plan.items() if old != new}
  taken = [str(new) for new in moves.values() if new.exists()]
  folder.report(
    taken, remedy='Choose another --category; these names are taken'
  )
  for old, new in moves.items():
    old.rename(new)
  return len(plan) // 2


def create_csv(directory: Path, category: str) -> int:
  """Writes the Dataset.csv of a folder that has none; returns its rows.

  Args:
    directory: with `Images/` and `Masks/`.
    category: of all pairs; '' for the part of each name before the first '_'.
  """
  _refuse_csv(directory)
  pairs = [
    dataclasses.replace(pair, category=category or pair.name.partition('_')[0])
    for pair in folder.read_folder(directory)
  ]
  folder.write_csv(directory / folder.CSV_NAME, pairs)
  return len(pairs)


def resize(directory: Path, out: Path, size: str) -> int:
  """Writes the folder's pairs at another size; returns how many."""
  pairs = combine.name_pairs(folder.read_folder(directory), prefixed=False)
  written, rejected = prepare.prepare(
    pairs, out=out, size=size, allow_empty=True, invert=()
  )
  folder.report([r for _, r in rejected], remedy='These pairs were left out')
  return len(written)


def plot(directory: Path, out: Path, count: int) -> int:
  """Writes a PNG of pairs drawn at random: photo, mask, photo times mask."""
  pairs = folder.read_folder(directory)
  drawn = np.random.RandomState(42).permutation(len(pairs))[:count]
  rows = []
  for index in sorted(drawn):
    photo, mask = folder.read_pair(pairs[index], allow_empty=True)
    cut = Image.composite(photo, Image.new('RGB', photo.size, 'white'), mask)
    rows.append([photo, mask.convert('RGB'), cut])
  with files.write_atomically(out) as partial:
    sheets.make_sheet(rows, cell=200, columns=2).save(partial, 'png')
  return len(rows)


def _refuse_csv(directory: Path) -> None:
  if directory.is_dir():
    for entry in directory.iterdir():
      if entry.name.lower() == folder.CSV_NAME.lower():
        raise errors.UserError(f'{entry} exists already. Remove it first.')


def main(argv: list[str]) -> None:
  """Runs the tool that the command line names."""
  tools = ('rename', 'resize', 'create_csv', 'plot')
  if len(argv) != 2 or argv[1] not in tools:
    raise app.UsageError(f'Pass one tool: {", ".join(tools)}')
  given = flags.FLAGS
  needed = {
    'rename': ('category',),
    'resize': ('size', 'output'),
    'plot': ('output',),
  }
  for name in needed.get(argv[1], ()):
    if not given[name].value:
      raise app.UsageError(f'{argv[1]} needs --{name}.')
  directory, out = Path(given.data), Path(given.output)
  if argv[1] == 'rename':
    count = rename(directory, given.category)
  elif argv[1] == 'resize':
    count = resize(directory, out, given.size)
  elif argv[1] == 'create_csv':
    count = create_csv(directory, given.category)
  else:
    count = plot(directory, out, given.count)
  print(f'{argv[1]}: {count:,} pairs')


def _define_flags() -> None:
  command_line.define_path(
    'data', None, 'Folder of the data set.', short='dir', required=True
  )
  flags.DEFINE_string('category', '', 'Such as human or animal.')
  flags.DEFINE_string('size', '', 'Longest side, or HEIGHTxWIDTH.')
  command_line.define_path(
    'output', '', 'Folder, or PNG file, to write.', short='out'
  )
  flags.DEFINE_integer('count', 12, 'Pairs to plot.', lower_bound=1)


if __name__ == '__main__':
  _define_flags()
  command_line.run(main, __name__)
