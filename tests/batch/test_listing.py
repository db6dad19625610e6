"""What is to do, and what it is called."""

import collections
import os
from pathlib import Path

import pytest

from data_pipelines.io import errors
from rmbg_jax.batch import listing


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


def _write_list(path, *lines):
  path.write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8')
  return str(path)


def test_results_of_a_list_stay_below_their_folder(tree, tmp_path):
  (tmp_path / 'lists').mkdir()
  (tmp_path / 'lists/y.png').touch()
  outside = str(tree / 'a.png')
  source = _write_list(
    tmp_path / 'lists/list.txt',
    'y.png',
    './y.png',
    '../lists/y.png',
    '../photos/a.png',
    outside,
    '../photos/sub/../b.JPG',
  )
  jobs = listing.list_jobs(source)
  whole = tree.relative_to('/').as_posix()
  assert sorted(_names(jobs)) == sorted([f'{whole}/a', f'{whole}/b', 'y'])
  for wrong in ('../a', '/a', 'a/../../b'):
    with pytest.raises(ValueError, match='outside of its folder'):
      listing.Job(photo=tree, result=Path(wrong))


def test_what_is_done_is_not_renamed_by_more_photos(tree, tmp_path):
  pattern = f'{tree}/**/*.webp'
  lines = ['photos/sub/a.webp']
  source = tmp_path / 'list.txt'
  before = [
    _names(listing.list_jobs(pattern)),
    _names(listing.list_jobs(_write_list(source, *lines))),
  ]
  assert before == [['sub/a'], ['photos/sub/a']]
  for name in ('other/c.webp', 'd.webp'):
    (tree / name).parent.mkdir(exist_ok=True)
    (tree / name).touch()
    lines += [f'photos/{name}', str(tree / name)]
  after = [
    _names(listing.list_jobs(pattern)),
    _names(listing.list_jobs(_write_list(source, *lines))),
  ]
  assert after[0] == ['d', 'other/c', 'sub/a']
  assert after[1] == ['photos/d', 'photos/other/c', 'photos/sub/a']


def test_a_photo_under_the_links_that_lead_to_it_is_done_once(tree, tmp_path):
  (tmp_path / 'link').symlink_to('photos')
  source = _write_list(
    tmp_path / 'list.txt', 'photos/a.png', 'link/a.png', 'link/sub/../a.png'
  )
  assert _names(listing.list_jobs(source)) == ['photos/a']
  (tree / 'loop').symlink_to('.')
  assert _names(listing.list_jobs(f'{tree}/**/a.png')) == ['a']


@pytest.mark.parametrize(
  'content',
  [
    b'\xef\xbb\xbf\xc3\xbc.jpg\n',
    'ü.jpg\r\n'.encode('utf-16'),
    b'\xfe\xff' + 'ü.jpg\r\n'.encode('utf-16-be'),
    'ü.jpg\n'.encode('utf-32'),
    '\n  ü.jpg  \n\n'.encode(),
  ],
)
def test_lists_of_any_encoding(content, tmp_path):
  path = tmp_path / 'list.txt'
  path.write_bytes(content)
  (job,) = listing.list_jobs(str(path))
  assert job.photo == tmp_path / 'ü.jpg'


def test_lines_are_names_of_any_bytes(tmp_path):
  names = [
    b'caf\xe9.jpg',
    'ls\u2028x.jpg'.encode(),
    b' blank.jpg',
    b'a\x0cb.jpg',
  ]
  for name in names:
    Path(os.fsdecode(os.fsencode(tmp_path) + b'/' + name)).touch()
  path = tmp_path / 'list.txt'
  path.write_bytes(b'\n'.join([*names, b'.', b'..', b'']))
  jobs = listing.list_jobs(str(path))
  done = {os.fsencode(job.photo.name) for job in jobs if not job.error}
  assert done == set(names)
  assert all(job.photo.is_file() for job in jobs if not job.error)
  assert [job.error.split(',')[0] for job in jobs if job.error] == [
    'a folder'
  ] * 2


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'a.jpg\0b.jpg\0', 'not a text'),
    ('a.jpg'.encode('utf-16-le'), 'Save it as UTF-8'),
    (b'\xff\xfea', 'not a text'),
    (b'\n \n', 'Write a path on each line'),
  ],
)
def test_lists_that_are_none(content, message, tmp_path):
  path = tmp_path / 'list.txt'
  path.write_bytes(content)
  with pytest.raises(errors.UserError, match=message) as error:
    listing.list_jobs(str(path))
  assert str(path) in str(error.value)


def test_nothing_of_a_folder_is_passed_over_in_silence(tree, tmp_path):
  (tmp_path / 'other').mkdir()
  (tree / 'linked').symlink_to('../other')
  (tree / 'same').symlink_to('sub')
  (tree / 'dead.jpg').symlink_to('nowhere.jpg')
  (tree / 'gone').symlink_to('/nowhere/photos')
  (tree / 'note.md').symlink_to('nowhere.md')
  os.mkfifo(tree / 'pipe.png')
  for name in ('c.jfif', 'd.JPE', '._a.png', 'raw.cr2', 'raw.CR2', 'README'):
    (tree / name).touch()
  others, none = collections.Counter(), collections.Counter()
  jobs = listing.list_jobs(str(tree), others)
  failed = {job.photo.name: job.error for job in jobs if job.error}
  assert {job.photo.name for job in jobs if not job.error} == {
    *('a.png', 'b.JPG', 'c.jfif', 'd.JPE', 'a.webp', 'ü b.heic')
  }
  assert sorted(failed) == ['dead.jpg', 'gone', 'linked', 'pipe.png']
  assert 'not followed' in failed['linked']
  assert 'leads nowhere' in failed['dead.jpg'] and 'nowhere' in failed['gone']
  assert others == {'.cr2': 2, '.md': 1, 'no ending': 1}
  assert listing.list_jobs(f'{tree}/*', none) and not none


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
    (['...jpg', '..jpg', 'x/...jpg'], ['...jpg', '..jpg', 'x/...jpg']),
    (['A.jpg', 'a.jpg'], ['A.jpg', 'a.jpg (2)']),
    # The same in two ways that Unicode has of writing it.
    (['\u00fc.jpg', 'u\u0308.png'], ['\u00fc.jpg', 'u\u0308.png']),
    # What of a list is the same below and outside of its folder.
    (['x/a.jpg', 'x/a.jpg'], ['x/a.jpg', 'x/a.jpg (2)']),
  ],
)
def test_no_result_replaces_another(names, results):
  named = listing.name_results([Path(name) for name in names])
  assert [path.as_posix() for path in named] == results


def test_shards_are_a_partition(tree):
  jobs = listing.list_jobs(str(tree))
  parts = [jobs[listing.parse_shard(f'{i}/3')] for i in range(3)]
  assert sorted(sum(parts, []), key=lambda job: job.photo) == jobs
  assert jobs[listing.parse_shard('')] == jobs
  for wrong in ('3/3', '1', 'a/b', '-1/2', '1/0'):
    with pytest.raises(ValueError, match='pass i/n'):
      listing.parse_shard(wrong)
