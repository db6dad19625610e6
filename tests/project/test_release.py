"""What a tag releases, and the one place of the version."""

import hashlib
import re
from pathlib import Path

import pytest

import rmbg_jax
from data_pipelines.io import errors

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def build_release(monkeypatch):
  monkeypatch.syspath_prepend(ROOT / 'scripts')
  import build_release

  return build_release


def test_the_version_is_in_one_place():
  version = re.escape(rmbg_jax.__version__)
  for name in ('pyproject.toml', 'CITATION.cff', 'setup.py'):
    text = (ROOT / name).read_text()
    assert not re.search(rf'^version\W+{version}', text, re.M), name


def test_a_tag_must_name_the_version(build_release):
  build_release.check_tag(f'v{rmbg_jax.__version__}')
  for tag in (rmbg_jax.__version__, 'v9.9.9'):
    with pytest.raises(errors.UserError, match='asks for v'):
      build_release.check_tag(tag)


def test_notes_are_the_changelog_of_the_version(build_release):
  text = (
    '# Changelog\n\n## [1.2.0] - 2026-01-01\n\nNew.\n\n## [1.1.0]\n\nOld.\n'
  )
  assert build_release.read_changes(text, '1.2.0') == 'New.\n'
  assert build_release.read_changes(text, '1.1.0') == 'Old.\n'
  with pytest.raises(errors.UserError, match=r'no heading "## \[1.2\]"'):
    build_release.read_changes(text, '1.2')


def test_checksums(build_release, tmp_path):
  (tmp_path / 'a').write_bytes(b'a')
  build_release.write_checksums(tmp_path)
  expected = f'{hashlib.sha256(b"a").hexdigest()}  a\n'
  assert (tmp_path / 'SHA256SUMS').read_text() == expected


def test_workflow_and_images_name_what_there_is():
  workflow = (ROOT / '.github/workflows/release.yml').read_text()
  assert 'scripts/build_release.py --tag="$GITHUB_REF_NAME"' in workflow
  for name in ('cpu', 'cuda'):
    lines = (ROOT / f'docker/{name}.Dockerfile').read_text().splitlines()
    (copied,) = (line for line in lines if line.startswith('COPY '))
    for path in copied.split()[1:-1]:
      assert (ROOT / path).exists(), path
    assert any(line.startswith('USER ') for line in lines)
