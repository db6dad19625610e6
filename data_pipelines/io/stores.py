"""Opens object stores; their errors become one line."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from data_pipelines.io import errors, network

# What the packages for each kind of store are: (an extra of the project, what
# that installs).
PACKAGES = {
  's3': ('s3', 's3fs'),
  'gs': ('gcs', 'gcsfs'),
  'az': ('azure', 'adlfs'),
}
_REMEDIES = {
  's3': 'Check the name, the credentials (AWS_ACCESS_KEY_ID and '
  'AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or the role of this machine) and what '
  'they may do there, the region (AWS_REGION), and for other stores than '
  "Amazon's the endpoint (AWS_ENDPOINT_URL)",
  'gs': 'Check the name, the credentials (GOOGLE_APPLICATION_CREDENTIALS, or '
  'gcloud auth application-default login) and what they may do there',
  'az': 'Check the name, the account (AZURE_STORAGE_ACCOUNT_NAME), and the '
  'credentials (AZURE_STORAGE_ACCOUNT_KEY, or az login) and what they may do '
  'there',
}
_LONGEST = 300  # Characters of an error; some list all that they have tried.
# Requests at once: a thread that waits for an answer computes nothing.
CONNECTIONS = 32


@functools.cache
def open_store(scheme: str) -> Any:
  """Returns the file system of fsspec that talks to a kind of store."""
  extra, package = PACKAGES[scheme]
  try:
    import fsspec

    # Others write there meanwhile, and each process has its own connections.
    options = {'use_listings_cache': False, 'skip_instance_cache': True}
    if scheme == 's3':
      options['config_kwargs'] = {
        'max_pool_connections': CONNECTIONS,
        'connect_timeout': network.PATIENCE,
      }
    store = fsspec.filesystem(scheme, **options)
  except ImportError as error:
    raise errors.UserError(
      f'{scheme}:// needs {package}: {errors.install_command(extra)}.'
    ) from error
  endpoint = _find_endpoint(store, scheme)
  if endpoint and (silence := network.find_silence(endpoint)):
    # No UserError, so that `naming` adds the URL and the remedy.
    raise OSError(silence)
  return store


def _find_endpoint(store: Any, scheme: str) -> str:
  """Returns the address that a store's package talks to; '' if unknown."""
  if scheme == 's3':
    store.connect()
    return store.s3.meta.endpoint_url
  if scheme == 'gs':
    return getattr(store, '_location', '')
  account = getattr(store, 'account_name', None)
  return f'https://{account}.blob.core.windows.net' if account else ''


@contextlib.contextmanager
def naming(url: str) -> Iterator[None]:
  """Has a store's errors name the URL and what to check.

  Raises:
    MissingFileError: if there is no such file, or bucket.
    UserError: whatever else is wrong.
  """
  remedy = _REMEDIES[url.partition('://')[0]]
  try:
    yield
  except errors.UserError:
    raise
  except FileNotFoundError as error:
    raise errors.MissingFileError(
      f'{url}: no such file or bucket. {remedy}.'
    ) from error
  # Each store has exceptions of its own, for which there is no common class.
  except Exception as error:
    raise errors.UserError(
      f'{url}: {_describe(error)}. {remedy}. The same command goes on.'
    ) from error


def _describe(error: Exception) -> str:
  text = ' '.join(str(error).split()).rstrip('.')
  if len(text) > _LONGEST:
    text = f'{text[:_LONGEST]} ...'
  # S3's own word for it, which s3fs leaves out.
  response = getattr(error.__cause__, 'response', None) or {}
  code = response.get('Error', {}).get('Code', '')
  if code and code not in text:
    text = f'{code}: {text}'
  if isinstance(error, PermissionError):
    return f'not allowed ({text})'
  if type(error) in (OSError, ValueError) and text:
    return text
  return f'{type(error).__name__}: {text}'.removesuffix(': ')
