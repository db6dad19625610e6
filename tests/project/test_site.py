"""The documentation as a site, made strictly: a broken link is an error."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('material')
pytest.importorskip('mkdocstrings')

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def site(tmp_path_factory):
  """A folder with the site."""
  folder = tmp_path_factory.mktemp('site')
  result = subprocess.run(
    [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--quiet']
    + [f'--site-dir={folder}'],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr
  return folder


def test_every_page_is_there(site):
  for page in (ROOT / 'docs').glob('*.md'):
    assert (site / page.stem / 'index.html').exists(), page.name
  home = (site / 'index.html').read_text()
  assert 'python3 scripts/quickstart.py' in re.sub('<[^>]+>', '', home)
  assert (site / 'images/results.jpg').exists()


def test_the_reference_is_made_of_the_docstrings(site):
  text = (site / 'reference/index.html').read_text()
  for name in ('from_checkpoint', 'load_model', 'list_checkpoints'):
    assert f'{name}"' in text


def test_links_to_the_repository_lead_somewhere(site):
  pattern = r'href="https://github.com/rmbg-u2net/[^/]+/blob/main/([^"#]+)'
  found = {
    target
    for page in site.rglob('*.html')
    for target in re.findall(pattern, page.read_text())
  }
  assert {'CONTRIBUTING.md', 'LICENSE'} <= found
  for target in found:
    assert (ROOT / target).exists(), target
