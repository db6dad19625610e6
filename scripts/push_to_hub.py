r"""Puts a checkpoint on the Hugging Face hub, with a model card.

```bash
python scripts/push_to_hub.py --checkpoint=runs/lite --repo=OWNER/NAME \
  --license=cc-by-4.0
```

The repository gets `model.safetensors` and `README.md`, whose metadata the hub
reads. `--output=FOLDER` writes the two there instead, to be looked at. Needs
`pip install -e '.[hub]'`, and a token with the right to write in HF_TOKEN.
"""

import dataclasses
import re
import tempfile
from pathlib import Path

from absl import flags

from data_pipelines import cli
from data_pipelines.io import errors, files

_CHECKPOINT = cli.define_path(
  'checkpoint',
  'released',
  'What to publish, as predict takes it.',
  urls=('hf',),
)
_REPO = flags.DEFINE_string('repo', '', 'OWNER/NAME on the hub.')
_LICENSE = flags.DEFINE_string(
  'license',
  'other',
  "Of the weights, one of the hub's identifiers; `other` if none fits.",
)
_TERMS = flags.DEFINE_string(
  'terms', '', 'Of the weights, in a sentence; by default what the file states.'
)
_PRIVATE = flags.DEFINE_boolean(
  'private', False, 'Make the repository private.'
)
_UPDATE = flags.DEFINE_boolean(
  'update', False, 'Add a commit to a repository that is there already.'
)
_OUTPUT = cli.define_path(
  'output', '', 'Folder to write to instead; it must not be there.'
)


def main() -> None:
  """Publishes the checkpoint."""
  if not re.fullmatch('[^/]+/[^/]+', _REPO.value):
    raise errors.UserError(f'--repo={_REPO.value}: pass OWNER/NAME.')
  from rmbg_jax.weights import hub

  hub.import_hub(f'--repo={_REPO.value}')
  output = _OUTPUT.value
  if output and Path(output).exists():
    raise errors.UserError(f'--output={output} is there. Pass a new folder.')
  with tempfile.TemporaryDirectory() as temporary:
    folder = Path(output or temporary)  # Made when there is something for it.
    write_release(folder)
    print(output or upload(folder))


def write_release(folder: Path) -> None:
  """Writes the weights and the card."""
  from rmbg_jax import export, runtime
  from rmbg_jax.export import model_card
  from rmbg_jax.weights import hub, load

  runtime.start(uses_jax=False)
  loaded = load.load_model(_CHECKPOINT.value)
  if _TERMS.value:
    described = {**loaded.description, 'terms': _TERMS.value}
    loaded = dataclasses.replace(loaded, description=described)
  export.save_export(folder / hub.DEFAULT_FILE, loaded)
  card = model_card.make_card(
    loaded.describe(), repository=_REPO.value, license_name=_LICENSE.value
  )
  files.write_text(folder / 'README.md', card)


def upload(folder: Path) -> str:
  """Uploads the files in one commit; returns the repository's address.

  Raises:
    UserError: if the hub refuses, and why.
  """
  import huggingface_hub
  import huggingface_hub.errors

  api = huggingface_hub.HfApi()
  try:
    if not _UPDATE.value and api.repo_exists(_REPO.value):
      raise errors.UserError(
        f'--repo={_REPO.value} is there. Pass --update to add a commit, which '
        'replaces model.safetensors and README.md.'
      )
    url = api.create_repo(
      _REPO.value, private=_PRIVATE.value, exist_ok=_UPDATE.value
    )
    api.upload_folder(
      repo_id=_REPO.value,
      folder_path=folder,
      commit_message='Weights and model card',
    )
  except errors.UserError:
    raise
  except (OSError, ValueError, huggingface_hub.errors.HTTPError) as error:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = lines[0]
    if 'README.md' in reason:
      raise errors.UserError(
        f'--license={_LICENSE.value}: the hub refuses the card '
        f'({" ".join(lines)[:200]}). Pass one of its identifiers, which are in '
        'lower case, and --update: the repository is made.'
      ) from error
    raise errors.UserError(
      f'--repo={_REPO.value} cannot be written to ({reason}). Set HF_TOKEN to '
      'a token that may write there.'
    ) from error
  return str(url)


if __name__ == '__main__':
  cli.run(main, __name__)
