"""Makes a site of the files that are read on GitHub; a hook of mkdocs.yml.

The README becomes the first page, and the Python reference is made from the
docstrings. Links to what is not in docs/ lead to the repository.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure import files as files_lib
from mkdocs.structure import pages

ROOT = Path(__file__).resolve().parent.parent
# Links in Markdown: out of docs/, into it, and to other files.
_OUTSIDE = re.compile(r'(\]\()(?:\.\./)+([^)]+\))')
_INSIDE = re.compile(r'(\]\()docs/')
_LOCAL = re.compile(r'(\]\()(?!https?://|docs/|#)([^)]+\))')
# Modules for users; docs/design.md has the rest.
REFERENCE = {
  'Cutting out': ['rmbg_jax.inference.remover.BackgroundRemover'],
  'What is done to alpha': ['rmbg_jax.inference.refinement.Refinement'],
  'On a Ray cluster': ['rmbg_jax.batch.ray.cluster.cut_out'],
  'Checkpoints': [
    'rmbg_jax.weights.load.load_model',
    'rmbg_jax.weights.load.LoadedModel',
    'rmbg_jax.weights.catalogue.list_checkpoints',
    'rmbg_jax.weights.catalogue.Checkpoint',
    'rmbg_jax.weights.release.save_release',
  ],
  'Preprocessing': ['rmbg_jax.models.preprocessing.Preprocessing'],
  'Errors': [
    'data_pipelines.io.errors.UserError',
    'data_pipelines.io.errors.MissingFileError',
  ],
}


def on_files(files: files_lib.Files, config: MkDocsConfig) -> files_lib.Files:
  """Adds the pages that are not files in docs/."""
  address = f'{config.repo_url.rstrip("/")}/blob/main/'
  home = (ROOT / 'README.md').read_text(encoding='utf-8')
  home = _LOCAL.sub(rf'\g<1>{address}\2', home)
  home = _INSIDE.sub(r'\1', home)
  home = home.replace(
    '](images/photos/README.md)', f']({address}docs/images/photos/README.md)'
  )
  for name, content in (('index.md', home), ('reference.md', make_reference())):
    files.append(files_lib.File.generated(config, name, content=content))
  return files


def on_page_markdown(
  markdown: str, page: pages.Page, config: MkDocsConfig, files: files_lib.Files
) -> str:
  """Leads links that leave docs/ to the repository."""
  address = f'{config.repo_url.rstrip("/")}/blob/main/'
  return _OUTSIDE.sub(rf'\g<1>{address}\2', markdown)


def make_reference() -> str:
  """Returns the page of the Python reference."""
  parts = ['# Python reference']
  for title, names in REFERENCE.items():
    parts += [f'## {title}', *(f'::: {name}' for name in names)]
  return '\n\n'.join(parts) + '\n'
