"""From published trees to one data set, whatever goes wrong on the way."""

import csv
import dataclasses
import hashlib
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.datasets import (
  folder,
  merging,
  published,
  records,
  sources,
)
from data_pipelines.io import images
from data_pipelines.tools import writing
from tests.support import helpers, published_sets

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def trees(tmp_path):
  published_sets.make_p3m(tmp_path / 'in/p3m')
  published_sets.make_cod10k(tmp_path / 'in/cod')
  published_sets.make_people(tmp_path / 'in/people')
  return tmp_path / 'in'


def _command(out, *flags):
  return [
    sys.executable,
    '-m',
    'data_pipelines.prepare',
    f'--output={out}',
    *map(str, flags),
  ]


def _run(out, *flags, limit=None):
  command = _command(out, *flags)
  if limit is not None:
    code = (
      'import os, resource, sys;'
      f'resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));'
      'os.execv(sys.argv[1], sys.argv[1:])'
    )
    command = [sys.executable, '-c', code, *command]
  return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def _sources(trees):
  return [
    f'--p3m={trees / "p3m"}',
    f'--cod10k={trees / "cod"}',
    f'--people={trees / "people"}',
  ]


def _digest(root):
  """The content of all files, by name."""
  return {
    str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(root.rglob('*'))
    if path.is_file()
  }


def _stamps(root):
  return {p: p.stat().st_mtime_ns for p in root.rglob('*.??g')}


def _own(root, count=3, size=(24, 20)):
  """A folder of one's own, of PNG photos."""
  rng = np.random.default_rng(1)
  for part in ('Images', 'Masks'):
    (root / part).mkdir(parents=True)
  for index in range(count):
    photo = rng.integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(photo).save(root / f'Images/n{index}.png')
    mask = np.zeros(size[::-1], np.uint8)
    mask[4:9, 5:12] = 255
    Image.fromarray(mask).save(root / f'Masks/n{index}.png')


def _prepare(root, out, *, size='', allow_empty=False, invert=()):
  problems = []
  pairs = merging.name_pairs(folder.read_folder(root, problems))
  written, rejected = writing.prepare(
    pairs, out=out, size=size, allow_empty=allow_empty, invert=list(invert)
  )
  return written, rejected, problems


def test_the_combined_set(trees, tmp_path):
  before, out = _digest(trees), tmp_path / 'out'
  first = _run(out, *_sources(trees))
  assert first.returncode == 0, first.stderr
  assert 'people train: 5 pairs, but 5,110 were published' in first.stdout
  assert _digest(trees) == before
  pairs = folder.read_folder(out)
  # 10 of P3M, 8 camouflaged of COD10K, 7 people; the summary's last line.
  assert len(pairs) == 25
  assert first.stdout.splitlines()[-1].split() == ['all', '13', '4', '8']
  by_source = {pair.source: pair for pair in pairs}
  assert by_source['people'].name.startswith('human_ache')
  assert by_source['p3m-10k'].label == 'alpha'
  assert {p.split for p in pairs if p.source.startswith('p3m-500')} == {'test'}
  for pair in pairs:
    mask = np.asarray(Image.open(pair.mask_path))
    assert mask.dtype == np.uint8 and mask.max() == 255
    if pair.source == 'people':
      assert set(np.unique(mask)) == {0, 255}
  # Again: nothing is written anew.
  stamps = _stamps(out)
  second = _run(out, *_sources(trees))
  assert second.returncode == 0
  assert _stamps(out) == stamps
  # A changed original is.
  changed = next((trees / 'people/images').iterdir())
  Image.new('RGB', (30, 34), 'red').save(changed)
  _run(out, *_sources(trees))
  anew = {path for path, stamp in _stamps(out).items() if stamps[path] != stamp}
  assert {path.stem for path in anew} == {f'human_{changed.stem}'}


def test_original_split_is_that_of_all_that_the_original_used(trees):
  everything = [
    *published.P3M.read(trees / 'p3m'),
    *published.COD10K.read(trees / 'cod'),
    *published.PEOPLE.read(trees / 'people'),
  ]
  split, left_out = merging.split_originally(
    merging.name_pairs(everything), 0.2
  )
  assert {pair.source for pair in left_out} == {'p3m-500-p'}
  assert len(left_out) == 2
  # 8 of P3M, 16 of COD10K, 7 people.
  names = sorted(pair.name for pair in split)
  assert [pair.name for pair in split] == names and len(names) == 31
  order = np.random.RandomState(42).permutation(31)
  held_out = {names[i] for i in order[: math.ceil(31 * 0.2)]}
  for choice, count in (('cam', 23), ('cam+background', 27), ('all', 31)):
    chosen = [p for p in split if merging.choose_cod10k(p, choice)]
    assert len(chosen) == count
    for pair in chosen:
      assert pair.split == ('val' if pair.name in held_out else 'train')
  total = sum(
    sum(known.counts.values()) for known in published.DATA_SETS.values()
  )
  assert total - published.P3M.counts['p3m-500-p', 'test'] == 25599


def test_all_that_was_written_is_trained_on(trees, tmp_path):
  out = tmp_path / 'out'
  options = ('--cod10k_images=all', '--split=original')
  done = _run(out, *_sources(trees), *options)
  assert done.returncode == 0, done.stderr
  # 31 but for the rounding of a fifth: 7 for validation.
  assert done.stdout.splitlines()[-2].split() == ['all', '24', '7', '0']
  assert '8 have empty masks' in done.stdout
  training, validation = _load(out)
  assert (len(training), len(validation)) == (24, 7)
  again = _run(tmp_path / 'again', f'--folder={out}', '--split=original')
  assert again.returncode == 0, again.stderr
  assert sum(map(len, _load(tmp_path / 'again'))) == 31


def _load(directory):
  return sources.load_pairs(
    'folder',
    directory,
    validation_share=0.2,
    limit=0,
    demo_count=1,
    demo_size=8,
  )


def test_official_split_trains_on_nothing_that_is_tested(trees):
  """COD10K has two photos under one name in Train and in Test."""
  for kind, suffix in (('Image', 'jpg'), ('GT_Object', 'png')):
    name = f'COD10K-CAM-1-Aquatic-1-BatFish-{{}}.{suffix}'
    tested = trees / 'cod/Test' / kind / name.format(1008)
    trained = trees / 'cod/Train' / kind / name.format(1008)
    trained.write_bytes(tested.read_bytes())
  pairs = merging.name_pairs(published.COD10K.read(trees / 'cod'))
  assert len({pair.name for pair in pairs}) == len(pairs) == 17
  split, left_out = merging.split_officially(pairs, 0.3)
  assert [pair.name for pair in left_out] == [
    'aquatic_COD10K-CAM-1-Aquatic-1-BatFish-1008_cod10k_train.jpg'
  ]
  assert [p.name for p in split] == sorted(p.name for p in split)
  assert len(split) == 16
  counts = {
    (source, s): sum((p.source, p.split) == (source, s) for p in split)
    for source in ('cod10k', 'cod10k-noncam')
    for s in records.SPLITS
  }
  assert list(counts.values()) == [2, 2, 4, 2, 2, 4]


def test_numbers_as_names_are_not_the_same_photo(tmp_path):
  """`0001.jpg` of one source is tested, and of two others trained on."""

  def make(source, split, seed):
    path = tmp_path / source / '0001.png'
    path.parent.mkdir()
    helpers.make_photo((9, 8), seed).save(path)
    return records.Pair(
      name=f'{source}.png',
      category='',
      image_path=path,
      mask_path=path,
      source=source,
      split=split,
    )

  tested = make('tested', 'test', seed=0)
  other, same = make('other', 'train', seed=1), make('same', 'train', seed=0)
  kept, left_out = merging.split_officially([other, same, tested], 0.3)
  assert {pair.source for pair in kept} == {'tested', 'other'}
  assert left_out == [same]
  # In folders of one's own, photos have the same names by chance.
  mine = [
    dataclasses.replace(pair, source='mine') for pair in (tested, other, same)
  ]
  kept, left_out = merging.split_officially(mine, 0.3)
  assert [pair.name for pair in kept] == ['other.png', 'tested.png']
  assert [pair.name for pair in left_out] == ['same.png']


def test_a_single_pair_is_trained_on(tmp_path):
  _own(tmp_path / 'in', count=1)
  done = _run(tmp_path / 'out', f'--folder={tmp_path / "in"}')
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1].split() == ['all', '1', '0', '0']


def test_sizes(tmp_path):
  _own(tmp_path / 'in')
  written, _, _ = _prepare(tmp_path / 'in', tmp_path / 'long', size='12')
  assert {images.read_size(p.image_path) for p in written} == {(10, 12)}
  assert {images.read_size(p.mask_path) for p in written} == {(10, 12)}
  expected = Image.open(tmp_path / 'in/Images/n0.png').resize(
    (12, 10), Image.Resampling.BILINEAR
  )
  np.testing.assert_array_equal(
    np.asarray(Image.open(written[0].image_path)), np.asarray(expected)
  )
  written, _, _ = _prepare(tmp_path / 'in', tmp_path / 'exact', size='16x32')
  assert {images.read_size(p.image_path) for p in written} == {(16, 32)}
  large, _, _ = _prepare(tmp_path / 'in', tmp_path / 'same', size='5000')
  assert {images.read_size(p.image_path) for p in large} == {(20, 24)}
  with pytest.raises(
    ValueError, match=r"was made with .*'12'.*another --output"
  ):
    _prepare(tmp_path / 'in', tmp_path / 'long', size='13')
  with pytest.raises(ValueError, match='--size=10x: pass the longest side'):
    _prepare(tmp_path / 'in', tmp_path / 'x', size='10x')


def test_odd_files_come_out_plain(tmp_path):
  """Rotated, CMYK, palette, 16 bits, alpha; spaces and other alphabets."""
  root = tmp_path / 'in'
  _own(root, count=0)
  grey = np.tile(np.linspace(0, 255, 24).astype(np.uint8), (20, 1))
  photo = Image.fromarray(np.stack([grey, grey // 2, 255 - grey], axis=-1))
  exif = Image.Exif()
  exif[0x0112] = 6  # To be turned clockwise.
  photo.save(root / 'Images/turned é.JPG', 'jpeg', exif=exif, quality=95)
  photo.convert('CMYK').save(root / 'Images/print.jpeg', quality=95)
  photo.convert('P').save(root / 'Images/palette.png')
  photo.convert('RGBA').save(root / 'Images/写真 1.png')
  Image.fromarray(grey.astype(np.uint16) * 257).save(root / 'Images/deep.png')
  mask = np.zeros((20, 24), np.uint8)
  mask[5:15, 6:12] = 1
  stored = {
    'turned é': Image.fromarray(np.rot90(mask, -1)),  # Already upright.
    'print': Image.fromarray(mask.astype(bool)),
    'palette': Image.fromarray(mask),
    '写真 1': Image.fromarray(mask * 255),
    'deep': Image.fromarray(mask.astype(np.uint16) * 65535),
  }
  stored['palette'].putpalette([0, 0, 0, 128, 0, 0])  # As PASCAL VOC's.
  for name, picture in stored.items():
    picture.save(root / f'Masks/{name}.png')
  written, rejected, problems = _prepare(root, tmp_path / 'out')
  assert not rejected and not problems
  assert len(written) == 5
  for pair in folder.read_folder(tmp_path / 'out'):
    turned = 'turned' in pair.name
    result = Image.open(pair.image_path)
    assert result.mode == 'RGB'
    assert result.getexif().get(0x0112, 1) == 1
    assert images.read_size(pair.image_path) == (
      (24, 20) if turned else (20, 24)
    )
    expected = np.rot90(mask, -1) if turned else mask
    np.testing.assert_array_equal(
      np.asarray(Image.open(pair.mask_path)), expected * 255
    )
    if 'deep' not in pair.name:
      upright = photo.rotate(-90, expand=True) if turned else photo
      difference = np.asarray(result, int) - np.asarray(upright, int)
      assert np.abs(difference).mean() < 20, pair.name


def test_what_cannot_be_used_is_named(tmp_path):
  root, out = tmp_path / 'in', tmp_path / 'out'
  _own(root, count=8)
  content = (root / 'Images/n0.png').read_bytes()
  (root / 'Images/n0.png').write_bytes(content[: len(content) // 2])
  Image.new('L', (20, 24), 255).save(root / 'Masks/n1.png')
  Image.new('L', (24, 20), 0).save(root / 'Masks/n2.png')
  classes = Image.fromarray(np.arange(480, dtype=np.uint8).reshape(20, 24) % 3)
  classes.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
  classes.save(root / 'Masks/n3.png')
  Image.new('RGB', (24, 20)).save(root / 'Images/n4.jpg')  # Two photos.
  (root / 'Masks/n5.png').unlink()
  result = _run(out, f'--folder={root}')
  assert result.returncode == 1
  assert 'Traceback' not in result.stderr
  assert {p.name for p in folder.read_folder(out)} == {
    'folder_n6.png',
    'folder_n7.png',
  }
  with (out / writing.REJECTED_NAME).open(newline='') as file:
    reasons = [row['Reason'] for row in csv.DictReader(file)]
  for expected in (
    'n0.png: cannot be read as an image',
    'n1.png is 24x20 pixels, its mask n1.png 20x24',
    'n2.png: the mask is empty',
    'n3.png: it has the classes [0, 1, 2] in a coloured palette',
    'n4.png has the stem of n4.jpg',
    'n5.png has no mask in Masks/',
  ):
    assert any(expected in reason for reason in reasons), reasons
    assert expected in result.stdout
  assert len(reasons) == 6


def test_one_name_or_size_costs_no_other_pair(tmp_path):
  root = tmp_path / 'in'
  _own(root, count=2)
  names = (os.fsdecode(b'caf\xe9'), 'b\u2028c', 'x' * 250, 'tiny')
  for name in names:
    shutil.copy(root / 'Images/n0.png', root / f'Images/{name}.png')
    shutil.copy(root / 'Masks/n0.png', root / f'Masks/{name}.png')
  tiny = np.zeros((20, 24), np.uint8)
  tiny[3, 3] = 255
  Image.fromarray(tiny).save(root / 'Masks/tiny.png')
  # A JPEG of another name stays one, and one that is called PNG becomes one.
  Image.open(root / 'Images/n1.png').save(root / 'Images/n1.jfif', 'jpeg')
  (root / 'Images/n1.png').unlink()
  Image.new('RGB', (24, 20), 'red').save(root / 'Images/n0.png', 'jpeg')
  out = tmp_path / 'out'
  # With the prefix, one name is longer than names can be.
  pairs = merging.name_pairs(writing.read_own(str(root), []))
  written, rejected = writing.prepare(
    pairs, out=out, size='8', allow_empty=False, invert=()
  )
  assert {reason.partition(': ')[2][:25] for _, reason in rejected} == {
    'File name too long. Renam',
    'at 8x7 pixels next to not',
  }
  pairs = folder.read_folder(out)
  assert pairs == written and len(pairs) == 4
  for pair in pairs:
    with Image.open(pair.image_path) as photo:
      suffix = {'.jpg': 'JPEG', '.png': 'PNG'}[pair.image_path.suffix]
      assert photo.format == suffix
  rows = [('', 'caf\udce9 is not right')]
  writing.write_rejected(out / writing.REJECTED_NAME, rows)
  assert b'caf\xe9' in (out / writing.REJECTED_NAME).read_bytes()


def test_inverted_masks(tmp_path):
  _own(tmp_path / 'in', count=1)
  with pytest.raises(ValueError, match='--invert=own: no pair has this Source'):
    _prepare(tmp_path / 'in', tmp_path / 'out', invert=['own'])
  written, _, _ = _prepare(tmp_path / 'in', tmp_path / 'out', invert=[''])
  original = np.asarray(Image.open(tmp_path / 'in/Masks/n0.png'))
  result = np.asarray(Image.open(written[0].mask_path))
  np.testing.assert_array_equal(result, 255 - original)


def test_a_killed_preparation_goes_on(tmp_path):
  published_sets.make_people(tmp_path / 'in', train=55, val=5, size=(400, 300))
  arguments = (f'--people={tmp_path / "in"}', '--size=390')
  process = subprocess.Popen(
    _command(tmp_path / 'killed', *arguments),
    cwd=ROOT,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  masks = tmp_path / 'killed/Masks'
  while not (masks.is_dir() and len(list(masks.iterdir())) > 6):
    assert process.poll() is None
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  process.wait()
  assert not (tmp_path / 'killed/Dataset.csv').exists()
  done = _stamps(tmp_path / 'killed')
  assert len(done) < 120
  assert _run(tmp_path / 'killed', *arguments).returncode == 0
  assert _run(tmp_path / 'whole', *arguments).returncode == 0
  assert _digest(tmp_path / 'killed') == _digest(tmp_path / 'whole')
  after = _stamps(tmp_path / 'killed')
  # Whole pairs were kept; of a pair in the making both files come anew.
  kept = [path for path in done if after.get(path) == done[path]]
  assert len(kept) >= len(done) - 2 * (os.cpu_count() or 1)


def test_a_full_disk_stops_with_a_remedy(tmp_path):
  """A limit on the size of files stands for the disk's end."""
  _own(tmp_path / 'in', size=(200, 200))
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out/.DS_Store').touch()  # As a file manager makes it.
  result = _run(tmp_path / 'out', f'--folder={tmp_path / "in"}', limit=2000)
  assert result.returncode == 1
  assert 'Error: cannot write to' in result.stderr
  assert 'run the same command again' in result.stderr.replace('\n', ' ')
  assert 'Traceback' not in result.stderr
  assert not (tmp_path / 'out/Dataset.csv').exists()
  assert not list((tmp_path / 'out').rglob('*.png'))
  assert not list((tmp_path / 'out').rglob('*.partial'))
  again = _run(tmp_path / 'out', f'--folder={tmp_path / "in"}')
  assert again.returncode == 0
  assert len(folder.read_folder(tmp_path / 'out')) == 3


def test_wrong_folders_are_refused(trees, tmp_path):
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine/diary.txt').touch()
  for arguments, message in (
    ((tmp_path / 'out',), 'Pass at least one of --p3m'),
    ((tmp_path / 'mine', *_sources(trees)), 'not of this command'),
    ((trees / 'p3m/out', *_sources(trees)), 'not to be changed'),
    ((tmp_path / 'out', f'--people={trees / "p3m"}'), 'Expected'),
  ):
    result = _run(*arguments)
    assert result.returncode == 1
    assert 'Traceback' not in result.stderr
    assert message in result.stderr.replace('\n', ' ')
  assert not (tmp_path / 'out').exists()
