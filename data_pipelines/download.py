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

import zipfile
from pathlib import Path

from absl import flags

from data_pipelines import cli
from data_pipelines.datasets import published, records
from data_pipelines.io import errors


def download(name: str, out: Path) -> list[records.Pair]:
  """Fetches a data set of `published.DATA_SETS` and returns its pairs.

  Raises:
    UserError: if the client is missing or fails, or what came is not the
      data set.
  """
  data_set = published.DATA_SETS[name]
  out.mkdir(parents=True, exist_ok=True)
  try:
    if data_set.kaggle:
      import kagglehub

      kagglehub.dataset_download(data_set.kaggle, output_dir=str(out))
    else:
      import gdown

      archive = out / f'{name}.zip'
      gdown.download(id=data_set.drive, output=str(archive), resume=True)
      with zipfile.ZipFile(archive) as file:
        file.extractall(out)  # It keeps members within the folder.
      archive.unlink()
  except ImportError as error:
    raise errors.UserError(
      f'{error}. It is an extra: {errors.install_command("download")}'
    ) from error
  # A client may raise anything; the remedy is the same.
  except Exception as error:
    raise errors.UserError(
      f'{data_set.place}: {type(error).__name__}: {error}. If it is a matter '
      'of credentials or quota, see python -m data_pipelines.download --help, '
      f'or fetch it in a browser and unpack it into {out}.'
    ) from error
  return data_set.read(out)


def main() -> None:
  """Downloads what the flags name."""
  data_set = published.DATA_SETS[flags.FLAGS.name]
  print(f'From {data_set.place}. Terms: {data_set.terms}')
  if not flags.FLAGS.accept_terms:
    raise errors.UserError(
      'read the terms at that place; pass --accept_terms if you do.'
    )
  pairs = download(flags.FLAGS.name, Path(flags.FLAGS.output))
  print(published.describe_counts(pairs, data_set.counts))


if __name__ == '__main__':
  flags.DEFINE_enum(
    'name', None, list(published.DATA_SETS), 'Data set.', required=True
  )
  cli.define_path(
    'output', None, 'Folder to write to.', short='out', required=True
  )
  flags.DEFINE_bool('accept_terms', False, 'You have read and accept them.')
  cli.run(main, __name__)
