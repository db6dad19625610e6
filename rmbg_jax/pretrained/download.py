"""Downloading published weights: checked, resumable, once per machine."""

import hashlib
import urllib.error
import urllib.request
from pathlib import Path

import platformdirs
import tqdm

_CHUNK = 1 << 20
_TIMEOUT = 10  # Seconds without an answer.


def cache_dir() -> Path:
  """Returns the user's cache folder of this project."""
  return Path(platformdirs.user_cache_dir('rmbg_jax'))


def local_path(url: str) -> Path:
  """Returns where the local copy of a published file is, once fetched."""
  return cache_dir() / url.rpartition('/')[2]


def fetch(url: str, *, checksum: str, flag: str) -> Path:
  """Returns the local copy of a published file, downloading it at need.

  An interrupted download goes on where it stopped.

  Args:
    url: the publisher's address; its last part names the local copy.
    checksum: 'md5:HEX' or 'sha256:HEX'; the digits may be the first of the
      full digest, as publishers put them into file names.
    flag: the flag that takes a local path instead, for the errors.

  Raises:
    FileNotFoundError: if the file cannot be downloaded.
    ValueError: if what was downloaded is not the published file.
  """
  path = local_path(url)
  if path.exists() and _matches(path, checksum):
    return path
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(path.name + '.partial')
  try:
    _download(url, partial)
  except OSError as error:  # URLError and time-outs are OSErrors.
    raise FileNotFoundError(
      f'{url} cannot be downloaded ({error}). Fetch it on another machine '
      f'(checksum {checksum}) and pass {flag}=PATH.'
    ) from error
  if not _matches(partial, checksum):
    partial.unlink()
    raise ValueError(
      f'{url}: the downloaded file does not have the checksum {checksum}. '
      f'Try again, or fetch it by hand and pass {flag}=PATH.'
    )
  partial.replace(path)
  return path


def _download(url: str, partial: Path) -> None:
  """Appends what is missing to the partial file."""
  start = partial.stat().st_size if partial.exists() else 0
  request = urllib.request.Request(url)
  if start:
    request.add_header('Range', f'bytes={start}-')
  try:
    response = urllib.request.urlopen(request, timeout=_TIMEOUT)
  except urllib.error.HTTPError as error:
    if error.code == 416:  # Nothing is missing; the checksum decides.
      return
    raise
  with response:
    resumed = response.status == 206  # Else the server sends all of it again.
    total = int(response.headers.get('Content-Length', 0))
    total += start if resumed else 0
    with (
      partial.open('ab' if resumed else 'wb') as file,
      tqdm.tqdm(
        total=total or None,
        initial=start if resumed else 0,
        unit='B',
        unit_scale=True,
        desc=f'Downloading {url}',
      ) as progress,
    ):
      while chunk := response.read(_CHUNK):
        file.write(chunk)
        progress.update(len(chunk))
    if total and partial.stat().st_size < total:
      raise OSError(
        f'the connection ended after {partial.stat().st_size} of {total} bytes'
      )


def _matches(path: Path, checksum: str) -> bool:
  algorithm, _, digits = checksum.partition(':')
  with path.open('rb') as file:
    digest = hashlib.file_digest(file, algorithm).hexdigest()
  return digest.startswith(digits)
