r"""Writes data sets as TFDS ones: few large array_record files, no TensorFlow.

```bash
python -m data_pipelines.tfds_sets --name=combined --data=PREPARED --output=DIR
python -m rmbg_jax.main --config=lite \
  --config.data.name=tfds/combined --config.data.dir=DIR
```

Kept are the files' own bytes: nothing is encoded anew, and decoding is that of
the folder layout.
"""

from absl import flags

from data_pipelines import cli
from data_pipelines.datasets import tfds_sets as tfds_sets_lib
from data_pipelines.io import words


def main() -> None:
  """Builds what the flags describe."""
  counts = tfds_sets_lib.build(
    flags.FLAGS.name, flags.FLAGS.data, out=flags.FLAGS.output
  )
  for split, count in counts.items():
    print(f'{split}: {words.count(count, "pair")}')


if __name__ == '__main__':
  flags.DEFINE_enum(
    'name', None, list(tfds_sets_lib.READERS), 'Data set.', required=True
  )
  cli.define_path(
    'data', None, 'Folder that it is in.', short='dir', required=True
  )
  cli.define_path(
    'output', None, 'TFDS data_dir to write to.', short='out', required=True
  )
  cli.run(main, __name__)
