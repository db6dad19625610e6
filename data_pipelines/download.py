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

import dataclasses
import zipfile
from collections.abc import Callable
from pathlib import Path

from absl import flags

from data_pipelines import cli
from data_pipelines.datasets import cod10k, directories, p3m, people, records
from data_pipelines.io import errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
  """The address and the terms of a published data set.

  Attributes:
    place: Address of the data set, for a person.
    terms: Terms of the data set, as far as known.
    kaggle: The data set's handle at Kaggle, or ''.
    drive: The archive's id at Google Drive, or ''.
    read: Its reader.
    counts: Numbers of published pairs by source and split.
  """

  place: str
  terms: str
  read: Callable[[Path], list[records.Pair]]
  counts: dict[tuple[str, str], int]
  kaggle: str = ''
  drive: str = ''


DATA_SETS = {
  'p3m': Published(
    place='kaggle.com/datasets/rahulbhalley/p3m-10k, a copy',
    terms=(
      "Its authors' release agreement, labelled MIT, is in "
      'github.com/JizhiziLi/P3M: read it there.'
    ),
    kaggle='rahulbhalley/p3m-10k',
    read=p3m.read_p3m,
    counts=p3m.PUBLISHED,
  ),
  'cod10k': Published(
    place="its authors' Google Drive (github.com/DengPingFan/SINet)",
    terms='For non-commercial purposes only.',
    drive='1pVq1rWXCwkMbEZpTt4-yUQ3NsnQd_DNY',
    read=cod10k.read_cod10k,
    counts=cod10k.PUBLISHED,
  ),
  'people': Published(
    place='kaggle.com/datasets/nikhilroxtomar/person-segmentation',
    terms='See that page; this project has not verified its licence.',
    kaggle='nikhilroxtomar/person-segmentation',
    read=people.read_people,
    counts=people.PUBLISHED,
  ),
}


def download(name: str, out: Path) -> list[records.Pair]:
  """Fetches and unpacks a data set, and reads it.

  Args:
    name: Name of the data set, one of `DATA_SETS`.
    out: Folder to put it in.

  Returns:
    Its pairs.

  Raises:
    UserError: if the client is missing or fails, or what came is not the
      data set.
  """
  published = DATA_SETS[name]
  out.mkdir(parents=True, exist_ok=True)
  try:
    if published.kaggle:
      import kagglehub

      kagglehub.dataset_download(published.kaggle, output_dir=str(out))
    else:
      import gdown

      archive = out / f'{name}.zip'
      gdown.download(id=published.drive, output=str(archive), resume=True)
      _unpack(archive, out)
  except ImportError as error:
    raise errors.UserError(
      f'{error}. It is an extra: {errors.install_command("download")}'
    ) from error
  # A client may raise anything; the remedy is the same.
  except Exception as error:
    raise errors.UserError(
      f'{published.place}: {type(error).__name__}: {error}. If it is a matter '
      'of credentials or quota, see python -m data_pipelines.download --help, '
      f'or fetch it in a browser and unpack it into {out}.'
    ) from error
  return published.read(out)


def _unpack(archive: Path, out: Path) -> None:
  with zipfile.ZipFile(archive) as file:
    # extractall keeps members within the folder.
    file.extractall(out)
  archive.unlink()


def main() -> None:
  """Downloads what the flags name."""
  published = DATA_SETS[flags.FLAGS.name]
  print(f'From {published.place}. Terms: {published.terms}')
  if not flags.FLAGS.accept_terms:
    raise errors.UserError(
      'read the terms at that place; pass --accept_terms if you do.'
    )
  pairs = download(flags.FLAGS.name, Path(flags.FLAGS.output))
  print('\n'.join(directories.describe_counts(pairs, published.counts)))


def _define_flags() -> None:
  flags.DEFINE_enum('name', None, list(DATA_SETS), 'Data set.', required=True)
  cli.define_path(
    'output', None, 'Folder to write to.', short='out', required=True
  )
  flags.DEFINE_bool('accept_terms', False, 'You have read and accept them.')


if __name__ == '__main__':
  _define_flags()
  cli.run(main, __name__)
