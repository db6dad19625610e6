"""Builds what a release consists of: wheel, sdist, weights, checksums, notes.

```bash
python scripts/build_release.py --tag=v0.1.0 --output=dist
```

`.github/workflows/release.yml` runs it for a tag. Needs `pip install build`.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from absl import flags

import rmbg_jax
from data_pipelines import cli
from data_pipelines.io import errors, files

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
  """Builds everything."""
  check_tag(flags.FLAGS.tag)
  output = Path(flags.FLAGS.output).resolve()
  if output.exists():
    raise errors.UserError(f'--output={output} is there. Pass a new folder.')
  notes = read_changes(
    (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8'), rmbg_jax.__version__
  )
  subprocess.run(
    [sys.executable, '-m', 'build', f'--outdir={output}', ROOT],
    check=True,
    cwd=ROOT,
  )
  for weights in sorted((ROOT / 'rmbg_jax/weights/released').iterdir()):
    shutil.copy(weights, output)
  write_checksums(output)
  files.write_text(output / 'NOTES.md', notes)
  print(*sorted(path.name for path in output.iterdir()), sep='\n')


def check_tag(tag: str) -> None:
  """Checks that a tag names the version of the project.

  Raises:
    UserError: if not.
  """
  expected = f'v{rmbg_jax.__version__}'
  if tag != expected:
    raise errors.UserError(
      f'--tag={tag}: the version in rmbg_jax/__init__.py asks for {expected}. '
      'Change one of them.'
    )


def read_changes(changelog: str, version: str) -> str:
  """Returns what a changelog says of a version.

  Raises:
    UserError: if it has no such heading.
  """
  pattern = rf'^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## |\Z)'
  match = re.search(pattern, changelog, re.M | re.S)
  if match is None:
    raise errors.UserError(
      f'CHANGELOG.md: there is no heading "## [{version}]". Rename '
      '"## [Unreleased]" to it, with the date.'
    )
  return match[1].strip() + '\n'


def write_checksums(folder: Path) -> None:
  """Writes `SHA256SUMS` of a folder, as `sha256sum --check` takes it."""
  lines = [
    f'{files.hash_file(path)}  {path.name}\n'
    for path in sorted(folder.iterdir())
  ]
  files.write_text(folder / 'SHA256SUMS', ''.join(lines))


if __name__ == '__main__':
  # Here, since other programs that a process imports have an --output too.
  flags.DEFINE_string('tag', None, 'v and the version.', required=True)
  cli.define_path('output', 'dist', 'Folder to make; it must not be there.')
  cli.run(main, __name__)
