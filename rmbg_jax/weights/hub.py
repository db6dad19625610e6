"""Checkpoints on the Hugging Face hub: `hf://OWNER/NAME[@REVISION][/FILE]`.

`huggingface_hub` fetches and keeps the files, in its own cache and with its own
settings (`HF_HOME`, `HF_TOKEN`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`).
"""

import hashlib
import logging
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from data_pipelines.io import errors, files, network

PREFIX = 'hf://'
# File of an address without one, as elsewhere on the hub.
DEFAULT_FILE = 'model.safetensors'
# None of these can run code when it is read; pickles can.
SUFFIXES = ('.safetensors', '.h5', '.hdf5', '.onnx')

_ADDRESS = re.compile(r'hf://([^/@]+/[^/@]+)(?:@([^/]+))?(?:/(.+))?')


class Address(NamedTuple):
  """A file on the hub.

  Attributes:
    repository: OWNER/NAME.
    revision: A branch, a tag or a commit; None for the default branch.
    file: Its path in the repository.
  """

  repository: str
  revision: str | None
  file: str

  def __str__(self) -> str:
    at = f'@{urllib.parse.quote(self.revision, "")}' if self.revision else ''
    return f'{PREFIX}{self.repository}{at}/{self.file}'


def parse_address(text: str) -> Address:
  """Returns the parts of an address; a `/` in a revision is written `%2F`.

  Raises:
    UserError: if it is not an address of a file that may be opened.
  """
  match = _ADDRESS.fullmatch(text)
  if match is None:
    raise errors.UserError(
      f'{text}: not an address on the hub. Pass '
      'hf://OWNER/NAME[@REVISION][/FILE].'
    )
  repository, revision, file = match.groups()
  file = file or DEFAULT_FILE
  if not file.endswith(SUFFIXES):
    raise errors.UserError(
      f'{text}: only {", ".join(SUFFIXES)} files are opened: others may run '
      "code. Pass such a file's name behind the repository's."
    )
  return Address(repository, revision and urllib.parse.unquote(revision), file)


def fetch(text: str) -> Path:
  """Returns the local copy of a file on the hub, downloading it at need.

  Without a network, the copy that the last download left is taken. Either way
  the content is held against the checksum that the hub states.

  Raises:
    MissingFileError: if it cannot be downloaded, and why.
    UserError: if it is no address, if the content is damaged, or if
      `huggingface_hub` is not installed.
  """
  address = parse_address(text)
  hub = import_hub(text)
  # It would wait for minutes.
  is_silent = hub.constants.HF_HUB_OFFLINE or bool(
    network.find_silence(hub.constants.ENDPOINT)
  )
  try:
    path = hub.hf_hub_download(
      address.repository,
      address.file,
      revision=address.revision,
      local_files_only=is_silent,
    )
  except (
    OSError,
    ValueError,
    RuntimeError,
    hub.errors.HTTPError,
    hub.errors.EntryNotFoundError,
  ) as error:
    raise _describe_failure(text, error, hub) from error
  path = Path(path)
  _check_content(text, path)
  return path


def list_cached() -> Iterator[tuple[Address, Path]]:
  """Yields the `.safetensors` files in the hub's cache, each by its commit."""
  try:
    hub = import_hub(PREFIX)
  except errors.UserError:
    return
  try:
    # Without it, a folder that was read at import, unlike that of downloads.
    found = hub.scan_cache_dir(hub.constants.HF_HUB_CACHE)
  # A RuntimeError: the user has no home folder.
  except (hub.errors.CacheNotFound, OSError, RuntimeError):
    return
  # Data sets are in the same cache.
  models = [repo for repo in found.repos if repo.repo_type == 'model']
  for repository in sorted(models, key=lambda repo: repo.repo_id):
    for revision in sorted(repository.revisions, key=lambda r: r.commit_hash):
      for file in sorted(revision.files, key=lambda f: f.file_path):
        if file.file_path.suffix == '.safetensors':
          name = file.file_path.relative_to(revision.snapshot_path).as_posix()
          address = Address(repository.repo_id, revision.commit_hash, name)
          yield address, file.file_path


def import_hub(text: str):
  """Returns `huggingface_hub`, silenced; `text` is what needs it."""
  try:
    import huggingface_hub
    import huggingface_hub.constants
    import huggingface_hub.errors
  except ImportError as error:
    raise errors.UserError(
      f'{text}: the hub needs huggingface_hub: {errors.install_command("hub")}.'
    ) from error
  for client in ('httpx', 'httpx2'):  # They log a line per request.
    logging.getLogger(client).setLevel(logging.WARNING)
  return huggingface_hub


def _describe_failure(
  text: str, error: Exception, hub
) -> errors.MissingFileError:
  first, *_ = str(error).strip().splitlines() or [type(error).__name__]
  reasons = {
    # First the narrow kinds: they are kinds of those below.
    'GatedRepoError': "its owner grants access. Ask for it on the repository's "
    'page, and set HF_TOKEN.',
    'RepositoryNotFoundError': 'there is no such repository, or it is private. '
    'Look at the address; for a private one, set HF_TOKEN.',
    'RevisionNotFoundError': 'there is no such revision. Look at the address.',
    'LocalEntryNotFoundError': 'the hub cannot be reached, and no copy is in '
    'its cache. Try again with a network and without HF_HUB_OFFLINE, or pass '
    'the path of a copy.',
    'EntryNotFoundError': f'there is no {parse_address(text).file} in the '
    'repository. Name another file behind it: hf://OWNER/NAME/FILE.',
  }
  reason = next(
    (
      reason
      for kind, reason in reasons.items()
      if isinstance(error, getattr(hub.errors, kind))
    ),
    f'{first.rstrip(".")}. Try again, set HF_HOME to a folder that you may '
    'write to, or pass the path of a copy.',
  )
  return errors.MissingFileError(f'{text} cannot be downloaded: {reason}')


def _check_content(text: str, path: Path) -> None:
  """Holds a cached file against its checksum, which is its blob's name."""
  stored = path.resolve()
  digits = stored.name
  if not re.fullmatch(r'[0-9a-f]{40}|[0-9a-f]{64}', digits):
    return  # Where there are no symbolic links, the cache keeps no checksums.
  if len(digits) == 64:
    digest = files.hash_file(stored)
  else:  # Git's, of small files.
    content = stored.read_bytes()
    header = f'blob {len(content)}\0'.encode()
    digest = hashlib.sha1(header + content).hexdigest()
  if digest != digits:
    raise errors.UserError(
      f'{text}: the copy {stored} does not have the checksum {digits} that the '
      'hub states. Delete it and try again.'
    )
