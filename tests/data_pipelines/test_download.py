"""Downloads, with clients that stand in for the real ones.

No server is reached: the stubs have the signatures of kagglehub 1.0 and gdown
6.5. That the data sets are at their places was not tested.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import published_sets

ROOT = Path(__file__).resolve().parents[2]

KAGGLEHUB = """
import os, shutil
def dataset_download(
  handle, path=None, *, force_download=False, output_dir=None
):
  shutil.copytree(os.environ['ARCHIVES'] + '/' + handle, output_dir,
                  dirs_exist_ok=True)
  return output_dir
"""
GDOWN = """
import os, shutil
def download(url=None, output=None, quiet=False, *, id=None, resume=False):
  if 'QUOTA' in os.environ:
    raise RuntimeError('Too many users have viewed or downloaded this file')
  assert resume
  shutil.copyfile(os.environ['ARCHIVES'] + f'/{id}.zip', output)
  return output
"""
DRIVE = '1pVq1rWXCwkMbEZpTt4-yUQ3NsnQd_DNY'


@pytest.fixture
def host(tmp_path):
  """Stub clients, and what they would fetch."""
  (tmp_path / 'clients').mkdir()
  (tmp_path / 'clients/kagglehub.py').write_text(KAGGLEHUB)
  (tmp_path / 'clients/gdown.py').write_text(GDOWN)
  archives = tmp_path / 'archives'
  published_sets.make_p3m(archives / 'rahulbhalley/p3m-10k/P3M-10k/P3M-10k')
  published_sets.make_people(
    archives / 'nikhilroxtomar/person-segmentation/people'
  )
  published_sets.make_cod10k(tmp_path / 'cod/COD10K-v3')
  subprocess.run(
    [sys.executable, '-m', 'zipfile', '-c', archives / f'{DRIVE}.zip']
    + [tmp_path / 'cod/COD10K-v3'],
    check=True,
  )
  return {
    **os.environ,
    'PYTHONPATH': str(tmp_path / 'clients'),
    'ARCHIVES': str(archives),
  }


def _run(name, out, environment, *flags):
  return subprocess.run(
    [sys.executable, '-m', 'data_pipelines.download', f'--name={name}']
    + [f'--output={out}', *flags],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
  )


@pytest.mark.parametrize(
  ('name', 'line'),
  [
    ('p3m', 'p3m-10k train: 6 pairs, but 9,421 were published'),
    ('cod10k', 'cod10k test: 4 pairs, but 2,026 were published'),
    ('people', 'people val: 2 pairs, but 568 were published'),
  ],
)
def test_each_is_fetched_unpacked_and_read(name, line, host, tmp_path):
  result = _run(name, tmp_path / 'out', host, '--accept_terms')
  assert result.returncode == 0, result.stderr
  assert 'Terms: ' in result.stdout
  assert line in result.stdout
  assert not list((tmp_path / 'out').glob('*.zip'))


def test_terms_clients_and_quotas_are_explained(host, tmp_path):
  refused = _run('cod10k', tmp_path / 'out', host)
  assert refused.returncode == 1
  assert 'non-commercial' in refused.stdout
  assert '--accept_terms' in refused.stderr
  assert not (tmp_path / 'out').exists()
  quota = _run(
    'cod10k', tmp_path / 'out', {**host, 'QUOTA': '1'}, '--accept_terms'
  )
  assert quota.returncode == 1
  assert 'Too many users' in quota.stderr
  assert 'fetch it in a browser' in quota.stderr.replace('\n', ' ')
  clients = Path(host['PYTHONPATH'])
  (clients / 'gdown.py').write_text("raise ImportError('No module gdown')")
  missing = _run('cod10k', tmp_path / 'out', host, '--accept_terms')
  assert missing.returncode == 1
  assert "pip install -e '.[download]'" in missing.stderr
  assert 'Traceback' not in missing.stderr + quota.stderr
