"""Fetches the published data sets through their hosts' own clients.

```bash
pip install -e '.[download]'    # in a checkout: kagglehub and gdown
python -m data_pipelines.download --name=people --output=DIR --accept_terms
```

Kaggle asks for an account: an API token from kaggle.com/settings as
~/.kaggle/kaggle.json, or KAGGLE_USERNAME and KAGGLE_KEY. Google Drive needs
none, but stops large files that many people fetch; then try again a day later.
An interrupted download goes on where it stopped.
"""

from pathlib import Path

from absl import flags

from data_pipelines import cli
from data_pipelines.datasets import directories
from data_pipelines.io import errors
from data_pipelines.tools import download as download_lib


def main() -> None:
  """Downloads what the flags name."""
  published = download_lib.DATA_SETS[flags.FLAGS.name]
  print(f'From {published.place}. Terms: {published.terms}')
  if not flags.FLAGS.accept_terms:
    raise errors.UserError(
      'read the terms at that place; pass --accept_terms if you do.'
    )
  pairs = download_lib.download(flags.FLAGS.name, Path(flags.FLAGS.output))
  print('\n'.join(directories.describe_counts(pairs, published.counts)))


def _define_flags() -> None:
  flags.DEFINE_enum(
    'name', None, list(download_lib.DATA_SETS), 'Data set.', required=True
  )
  cli.define_path(
    'output', None, 'Folder to write to.', short='out', required=True
  )
  flags.DEFINE_bool('accept_terms', False, 'You have read and accept them.')


if __name__ == '__main__':
  _define_flags()
  cli.run(main, __name__)
