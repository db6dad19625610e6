"""Downloading published weights: checked, resumable, once per machine."""

import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path

import filelock
import platformdirs
import tqdm

from data_pipelines.io import errors

_CHUNK = 1 << 20
_TIMEOUT = 10  # Seconds without an answer.


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
  """Returns where the local copy of a published file is, once fetched.

  Raises:
    UserError: as `cache_dir`.
  """
  return cache_dir() / url.rpartition('/')[2]


def is_present(url: str) -> bool:
  """Whether there is a local copy of a published file."""
  try:
    return local_path(url).exists()
  except (errors.UserError, OSError):
    return False


def fetch(url: str, *, checksum: str, flag: str) -> Path:
  """Returns the local copy of a published file, downloading it at need.

  An interrupted download goes on where it stopped. Of several processes, one
  downloads and the others wait for it.

  Args:
    url: the publisher's address; its last part names the local copy.
    checksum: 'md5:HEX' or 'sha256:HEX'; the digits may be the first of the
      full digest, as publishers put them into file names.
    flag: the flag that takes a local path instead, for the errors.

  Raises:
    MissingFileError: if the file cannot be downloaded.
    UserError: if what was downloaded is not the published file, or cannot be
      stored.
  """
  path = local_path(url)
  by_hand = (
    f'Fetch it by hand (checksum {checksum}), and put it at {path} or pass '
    f'{flag}=PATH.'
  )
  try:
    if path.exists() and _matches(path, checksum):
      return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f'{path}.lock'):
      # Another process may have downloaded it while this one waited.
      if not (path.exists() and _matches(path, checksum)):
        _download_checked(url, path, checksum, by_hand)
  except OSError as error:
    if isinstance(error, errors.UserError):
      raise
    reason = error.strerror or error
    raise errors.UserError(
      f'{path}: {url} cannot be stored there ({reason}). Make room, which goes '
      'on where it stopped, set XDG_CACHE_HOME to another folder, or pass '
      f'{flag}=PATH of a copy.'
    ) from error
  return path


def _download_checked(
  url: str, path: Path, checksum: str, by_hand: str
) -> None:
  partial = path.with_name(path.name + '.partial')
  _download(url, partial, by_hand)
  if not _matches(partial, checksum):
    size = partial.stat().st_size
    partial.unlink()
    raise errors.UserError(
      f'{url}: the downloaded file ({size} bytes) does not have the checksum '
      f'{checksum}. Try again. {by_hand}'
    )
  partial.replace(path)


def _download(url: str, partial: Path, by_hand: str) -> None:
  """Appends what is missing to the partial file.

  Raises:
    MissingFileError: for whatever goes wrong between here and the publisher.
    OSError: if the file cannot be written.
  """
  done = partial.stat().st_size if partial.exists() else 0
  # Of broken answers and addresses, those of proxies too, not all are OSErrors.
  failures = (OSError, http.client.HTTPException, ValueError)
  try:
    response = _open(url, done)
  except failures as error:
    raise _describe_failure(url, error, by_hand) from error
  if response is None:
    return
  with response:
    if response.status != 206:  # The server sends all of it again.
      done = 0
    total = None if response.length is None else done + response.length
    with (
      partial.open('ab' if done else 'wb') as file,
      tqdm.tqdm(
        total=total,
        initial=done,
        unit='B',
        unit_scale=True,
        desc=f'Downloading {url}',
      ) as progress,
    ):
      while True:
        try:
          chunk = response.read(_CHUNK)
        except failures as error:
          raise _describe_failure(url, error, by_hand) from error
        if not chunk:
          break
        file.write(chunk)
        progress.update(len(chunk))
  size = partial.stat().st_size
  if total is not None and size < total:
    error = f'the connection ended after {size} of {total} bytes'
    raise _describe_failure(url, error, by_hand)


def _open(url: str, start: int) -> http.client.HTTPResponse | None:
  """Returns the answer from a byte on, None if there is none after it."""
  request = urllib.request.Request(url)
  if start:
    request.add_header('Range', f'bytes={start}-')
  try:
    return urllib.request.urlopen(request, timeout=_TIMEOUT)
  except urllib.error.HTTPError as error:
    if start and error.code == 416:  # The checksum decides.
      return None
    raise


def _describe_failure(
  url: str, error: Exception | str, by_hand: str
) -> errors.MissingFileError:
  reason = ' '.join(str(error).split()) or type(error).__name__
  return errors.MissingFileError(
    f'{url} cannot be downloaded ({reason}). Try again, which goes on where it '
    f'stopped. {by_hand}'
  )


def _matches(path: Path, checksum: str) -> bool:
  algorithm, _, digits = checksum.partition(':')
  with path.open('rb') as file:
    digest = hashlib.file_digest(file, algorithm).hexdigest()
  return digest.startswith(digits)
