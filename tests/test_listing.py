"""What is to do, and what it is called."""

import os
from pathlib import Path

import pytest

from rmbg_jax.prediction import listing


@pytest.fixture
def tree(tmp_path):
  for name in ('b.JPG', 'a.png', 'notes.md', 'sub/a.webp', 'sub/ü b.heic'):
    path = tmp_path / 'photos' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
  return tmp_path / 'photos'


def _names(jobs):
  return [job.result.as_posix() for job in jobs]


def test_a_folder_is_mirrored(tree):
  jobs = listing.list_jobs(str(tree))
  assert _names(jobs) == ['a', 'b', 'sub/a', 'sub/ü b']
  assert jobs[1].photo == tree / 'b.JPG'


def test_a_file_a_pattern_and_a_list(tree):
  assert _names(listing.list_jobs(str(tree / 'a.png'))) == ['a']
  assert _names(listing.list_jobs(f'{tree}/**/a.*')) == ['a', 'sub/a']
  assert _names(listing.list_jobs(f'{tree}/sub/*.heic')) == ['ü b']
  path = tree / 'list.txt'
  path.write_text('sub/a.webp\n\na.png\na.png\nmissing.jpg\n', encoding='utf-8')
  # A missing file is named when its turn comes.
  assert _names(listing.list_jobs(str(path))) == ['a', 'missing', 'sub/a']


def test_a_folder_that_cannot_be_read_is_named(tree, monkeypatch):
  scan = os.scandir

  def refuse(path):
    if Path(path).name == 'sub':
      raise PermissionError(13, 'Permission denied', str(path))
    return scan(path)

  monkeypatch.setattr(os, 'scandir', refuse)
  jobs = listing.list_jobs(str(tree))
  assert _names(jobs) == ['a', 'b', 'sub']
  assert [bool(job.error) for job in jobs] == [False, False, True]
  assert 'cannot be read (Permission denied)' in jobs[2].error
  # The only thing in a folder, too.
  for name in ('a.png', 'b.JPG'):
    (tree / name).unlink()
  assert [job.photo for job in listing.list_jobs(str(tree))] == [tree / 'sub']


def test_nothing_to_do(tree, tmp_path):
  for source in ('absent', f'{tree}/*.tiff', str(tmp_path / 'photos/sub/..x')):
    with pytest.raises(FileNotFoundError, match='--input='):
      listing.list_jobs(source)


@pytest.mark.parametrize(
  ('names', 'results'),
  [
    (['a.jpg', 'b.jpg'], ['a', 'b']),
    (['a.jpg', 'a.png'], ['a.jpg', 'a.png']),
    (['A.jpg', 'a.png'], ['A.jpg', 'a.png']),
    # The third would take the first's longer name.
    (['a.jpg', 'a.png', 'a.jpg.png'], ['a.jpg', 'a.png', 'a.jpg.png']),
    (['x/a.jpg', 'a.jpg'], ['x/a', 'a']),
    (['.hidden.png', 'no'], ['.hidden', 'no']),
  ],
)
def test_no_result_replaces_another(names, results):
  named = listing.name_results([Path(name) for name in names])
  assert [path.as_posix() for path in named] == results


def test_shards_are_a_partition(tree):
  jobs = listing.list_jobs(str(tree))
  parts = [listing.take_shard(jobs, f'{i}/3') for i in range(3)]
  assert sorted(sum(parts, []), key=lambda job: job.photo) == jobs
  assert listing.take_shard(jobs, '') == jobs
  for wrong in ('3/3', '1', 'a/b', '-1/2', '1/0'):
    with pytest.raises(ValueError, match='pass i/n'):
      listing.take_shard(jobs, wrong)
