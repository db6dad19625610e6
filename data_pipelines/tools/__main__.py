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

from pathlib import Path

from absl import app, flags

from data_pipelines import cli
from data_pipelines.io import words
from data_pipelines.tools import folder_tools


def main(argv: list[str]) -> None:
  """Runs the tool that the command line names."""
  needed = {
    'rename': ('category',),
    'resize': ('size', 'output'),
    'create_csv': (),
    'plot': ('output',),
  }
  if len(argv) != 2 or argv[1] not in needed:
    raise app.UsageError(f'Pass one tool: {", ".join(needed)}')
  given = flags.FLAGS
  for name in needed[argv[1]]:
    if not given[name].value:
      raise app.UsageError(f'{argv[1]} needs --{name}.')
  directory, out = Path(given.data), Path(given.output)
  if argv[1] == 'rename':
    count = folder_tools.rename(directory, given.category)
  elif argv[1] == 'resize':
    count = folder_tools.resize(directory, out, given.size)
  elif argv[1] == 'create_csv':
    count = folder_tools.create_csv(directory, given.category)
  else:
    cli.check_new('output', given.output)
    count = folder_tools.plot(directory, out, given.count)
  print(f'{argv[1]}: {words.count(count, "pair")}')


if __name__ == '__main__':
  cli.define_path(
    'data', None, 'Folder of the data set.', short='dir', required=True
  )
  flags.DEFINE_string('category', '', 'Such as human or animal.')
  flags.DEFINE_string('size', '', 'Longest side, or HEIGHTxWIDTH.')
  cli.define_path('output', '', 'Folder, or PNG file, to write.', short='out')
  cli.define_overwrite()
  flags.DEFINE_integer('count', 12, 'Pairs to plot.', lower_bound=1)
  cli.run(main, __name__, takes_arguments=True)
