"""Downloads published weights: checked, once per machine."""

from pathlib import Path
from typing import Any

import platformdirs

from data_pipelines.io import errors


def cache_dir() -> Path:
  """Returns the user's cache folder of this project.

  Raises:
    UserError: if the user has no home folder, as in some containers.
  """
  try:
    return Path(platformdirs.user_cache_dir('rmbg_jax'))
  except RuntimeError as error:
    raise errors.UserError(
      'There is no home folder to keep files in. Set XDG_CACHE_HOME to a '
      'folder.'
    ) from error


def local_path(url: str) -> Path:
  """Returns where the local copy of a published file is, once fetched."""
  return cache_dir() / url.rpartition('/')[2]


def is_present(url: str) -> bool:
  """Returns whether there is a local copy of a published file."""
  try:
    return local_path(url).exists()
  except (errors.UserError, OSError):
    return False


def fetch(url: str, *, checksum: str, flag: str) -> Path:
  """Returns the local copy of a published file, downloading it at need.

  Of several processes, one downloads and the others wait for it.

  Args:
    url: The publisher's address; its last part names the local copy.
    checksum: 'md5:HEX' or 'sha256:HEX'.
    flag: The flag that takes a local path instead, for the errors.

  Raises:
    MissingFileError: if the file cannot be downloaded, or is not the published
      one.
    UserError: if it cannot be stored.
  """
  # They take a fifth of a second to import, for a file that is mostly there.
  import filelock
  import pooch
  import requests

  path = local_path(url)
  # Any: it does not fulfil pooch's own protocol as that is declared.
  download: Any = pooch.HTTPDownloader(progressbar=True, timeout=10)
  pooch.get_logger().setLevel('WARNING')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f'{path}.lock'):
      pooch.retrieve(url, checksum, path.name, path.parent, downloader=download)
  # Broken answers and wrong checksums raise other errors than OSErrors.
  except (requests.RequestException, ValueError) as error:
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise errors.MissingFileError(
      f'{url} cannot be downloaded ({reason}). Try again, or fetch it by hand '
      f'(checksum {checksum}), and put it at {path} or pass {flag}=PATH.'
    ) from error
  except OSError as error:
    reason = error.strerror or error
    raise errors.UserError(
      f'{path}: {url} cannot be stored there ({reason}). Make room, set '
      f'XDG_CACHE_HOME to another folder, or pass {flag}=PATH of a copy.'
    ) from error
  return path
