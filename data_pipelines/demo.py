"""Writes the demo set: pictures drawn from a seed, with exact alpha.

```bash
python -m data_pipelines.demo --output=demo_data --count=600
```
"""

from pathlib import Path

from absl import flags

from data_pipelines import cli
from data_pipelines.datasets import demo as demo_lib
from data_pipelines.io import words


def main() -> None:
  """Writes a demo set into the folder of --output."""
  demo_lib.make_demo(
    Path(flags.FLAGS.output),
    count=flags.FLAGS.count,
    size=(flags.FLAGS.size, flags.FLAGS.size),
    seed=flags.FLAGS.seed,
  )
  print(f'{words.count(flags.FLAGS.count, "pair")} in {flags.FLAGS.output}')


if __name__ == '__main__':
  cli.define_path(
    'output', None, 'Folder to write to.', short='out', required=True
  )
  flags.DEFINE_integer('count', 600, 'Number of pairs.', lower_bound=1)
  flags.DEFINE_integer('size', 128, 'Height and width, pixels.', lower_bound=16)
  flags.DEFINE_integer(
    'seed', 42, 'Another seed draws other pictures.', lower_bound=0
  )
  cli.run(main, __name__)
