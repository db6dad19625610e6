"""The folder contract, and what it says about what is wrong."""

import dataclasses
import math
import os
import re

import numpy as np
import pytest
from PIL import Image

from data_pipelines.datasets import (
  dataset_csv,
  decoding,
  folder,
  records,
  splitting,
)
from data_pipelines.io import errors

HEADER = 'Image Name,Category,Image Path,Mask Path'


def _write(path, size=(8, 6)):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new('L', size, 255).save(path)


def _make(root, names, image_dir='Images', mask_dir='Masks'):
  for name in names:
    _write(root / image_dir / f'{name}.jpg')
    _write(root / mask_dir / f'{name}.png')


@pytest.mark.parametrize(
  'dirs', [('Images', 'Masks'), ('images', 'mask'), ('IMAGE', 'Mask')]
)
def test_pairs_by_stem_whatever_the_case(dirs, tmp_path):
  _make(tmp_path, ['b 2', 'ä', 'a.1'], *dirs)
  (tmp_path / dirs[0] / 'Thumbs.db').touch()
  pairs = folder.read_folder(tmp_path)
  assert [pair.name for pair in pairs] == ['a.1.jpg', 'b 2.jpg', 'ä.jpg']
  for pair in pairs:
    assert pair.image_path.stem == pair.mask_path.stem


def test_csv_with_backslashes_and_optional_columns(tmp_path):
  _make(tmp_path, ['x', 'y'])
  (tmp_path / 'dataset.CSV').write_text(
    f'\ufeff{HEADER},Source,Label,Split\n'
    'y.jpg,animal,Images\\y.jpg,Masks\\y.png,zoo,pseudo,val\n'
    'x.jpg,human,Images/x.jpg,Masks/x.png,,,train\n',
    encoding='utf-8',
  )
  first, second = folder.read_folder(tmp_path)
  assert (first.name, first.label, first.split) == ('x.jpg', 'gt', 'train')
  assert second == records.Pair(
    name='y.jpg',
    category='animal',
    image_path=tmp_path / 'Images/y.jpg',
    mask_path=tmp_path / 'Masks/y.png',
    source='zoo',
    label='pseudo',
    split='val',
  )
  assert splitting.split_pairs([first, second], validation_share=0.9) == (
    [first],
    [second],
  )


def test_rows_without_a_split_are_for_training(tmp_path):
  _make(tmp_path, ['w', 'x', 'y', 'z'])
  splits = {'w': 'test', 'x': '', 'y': 'val', 'z': 'train'}
  rows = [f'{k}.jpg,,Images/{k}.jpg,Masks/{k}.png,{splits[k]}' for k in splits]
  text = '\n'.join([f'{HEADER},Split', *rows])
  (tmp_path / 'Dataset.csv').write_text(text)
  pairs = folder.read_folder(tmp_path)
  assert [pair.split for pair in pairs] == ['test', 'train', 'val', 'train']
  bare = [dataclasses.replace(pairs[1], split=''), *pairs[2:]]
  training, validation = splitting.split_pairs(bare, validation_share=0.5)
  assert [pair.name for pair in training] == ['x.jpg', 'z.jpg']
  assert [pair.name for pair in validation] == ['y.jpg']


def test_csv_round_trip(tmp_path):
  _make(tmp_path, ['x', 'y'])
  pairs = folder.read_folder(tmp_path)
  dataset_csv.write(tmp_path / 'Dataset.csv', pairs)
  assert folder.read_folder(tmp_path) == pairs
  assert not list(tmp_path.glob('*.partial'))


def _remove_mask(root):
  (root / 'Masks/b.png').unlink()


def _remove_image(root):
  (root / 'Images/b.jpg').unlink()


def _duplicate(root):
  _write(root / 'Images/b.png')


def _nest(root):
  _write(root / 'Images/more/c.jpg')
  (root / 'Images/empty').mkdir()


def _csv(text, encoding='utf-8'):
  return lambda root: (root / 'Dataset.csv').write_text(text, encoding)


ROW = 'a.jpg,x,Images/a.jpg,Masks/a.png'


@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (_remove_mask, r'b\.jpg has no mask in Masks/'),
    (_remove_image, r'b\.png has no image in Images/'),
    (_duplicate, r'b\.png has the stem of b\.jpg'),
    (_csv('Image Name,Category\n'), 'column Image Path, Mask Path is missing'),
    (_csv(f'{HEADER}\n'), 'the data set is empty'),
    (_csv(f'{HEADER}\n{ROW}\n{ROW}\n'), 'line 3: a.jpg is also line 2'),
    (_csv(f'{HEADER}\nc,x,c.jpg,c.png\n'), r'line 2: .*c\.jpg does not exist'),
    (_csv(f'{HEADER}\nc,x,,c.png\n'), 'line 2: Image Path is empty'),
    (_csv(f'{HEADER}\n\n\n{ROW}\nc,x\n'), r'csv, line 5: Image Path is empty'),
    (_csv(f'{HEADER}\n{ROW},,,\n'), 'line 2: it has 3 fields more'),
    (_csv(f'{HEADER}\n"{ROW}\n{ROW}\n'), r'Dataset\.csv, line 2 .* quote'),
    (_csv(f'{HEADER}\n"{ROW}\n{ROW}",x,y,z\n'), 'line 3: Image Name .* quote'),
    (_csv(f'{HEADER}\n{ROW}{"x" * 999}\n'), 'line 2: .* does not exist'),
    (_csv(f'{HEADER}\nc,x,C:\\me\\a.jpg,Masks/a.png'), r'C:\\me.*relative to'),
    (
      _csv(f'{HEADER}\nc,x,/me/a.jpg,Masks/a.png'),
      'move the file away, .*:\n  .*/me/a.jpg .*relative to',
    ),
    (_csv(f'{HEADER}\n{ROW}\n', 'utf-16'), r'Dataset\.csv: .* UTF-16.* UTF-8'),
    (_csv(f'{HEADER}\na,é,a,b\n', 'cp1252'), r"2: Category '\\udce9' .*UTF-8"),
    (_csv(f'{HEADER}\na,x,é.jpg,b\n', 'cp1252'), 'not exist; .* not UTF-8'),
    (_csv(HEADER.replace(',', ';')), r'is missing; .*with commas'),
    # Not left out without a word, as other columns are.
    (_csv(f'{HEADER},split\n{ROW},val\n'), "called 'split'. Write 'Split'"),
    (_csv(f'{HEADER}, Label\n{ROW},alpha\n'), "called ' Label'. Write 'Label"),
    (_nest, r'Images/more is a folder, whose images are not read'),
    (_csv(f'{HEADER},Label\n{ROW},guess\n'), "Label is 'guess', not one of gt"),
    (_csv(f'{HEADER},Split\n{ROW},dev\n'), "Split is 'dev', not one of train"),
  ],
)
def test_damage_is_named(damage, message, tmp_path):
  _make(tmp_path, ['a', 'b'])
  damage(tmp_path)
  with pytest.raises(ValueError, match=message):
    folder.read_folder(tmp_path)


@pytest.mark.parametrize(
  ('photo', 'mask'),
  [
    ('cafe\u0301.jpg', 'caf\u00e9.png'),
    ('IMG.JPG', 'img.png'),
    ('a.jpg', 'a_mask.png'),
    ('a.jpg', 'a.jpg.png'),
  ],
)
def test_what_has_no_partner_is_named_though_nothing_is_left(
  photo, mask, tmp_path
):
  _write(tmp_path / 'Images' / photo)
  _write(tmp_path / 'Masks' / mask)
  message = f'{photo} has no mask .*{re.escape(mask)} is there'
  with pytest.raises(errors.UserError, match=message):
    folder.read_folder(tmp_path, [])


def test_photos_of_other_formats_are_named(tmp_path):
  _make(tmp_path, ['a', 'b'])
  (tmp_path / 'Images/b.jpg').rename(tmp_path / 'Images/b.HEIC')
  message = r'b.png has no image in Images/ \(b.HEIC is there, of a format'
  with pytest.raises(errors.UserError, match=message):
    folder.read_folder(tmp_path)


def test_attributes_of_macos_are_no_photos(tmp_path):
  _make(tmp_path, ['a', 'b'])
  for path in list(tmp_path.rglob('*.*g')):
    path.with_name(f'._{path.name}').write_bytes(b'\0\5\26\7')
  pairs = folder.read_folder(tmp_path)
  assert [pair.name for pair in pairs] == ['a.jpg', 'b.jpg']
  decoding.check_pairs(pairs)


def test_names_that_are_not_utf_8_stay(tmp_path):
  name = os.fsdecode(b'caf\xe9')
  _make(tmp_path, [name, 'b\u2028c'])
  pairs = folder.read_folder(tmp_path)
  dataset_csv.write(tmp_path / 'Dataset.csv', pairs)
  assert folder.read_folder(tmp_path) == pairs
  decoding.check_pairs(pairs)


def test_missing_empty_and_other_folders(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'absent.*--config\.data\.dir'):
    folder.read_folder(tmp_path / 'absent')
  with pytest.raises(ValueError, match='not a data set'):
    folder.read_folder(tmp_path)
  (tmp_path / 'Images').mkdir()
  (tmp_path / 'Masks').mkdir()
  with pytest.raises(ValueError, match='the data set is empty'):
    folder.read_folder(tmp_path)


def test_headers_are_checked(tmp_path):
  _make(tmp_path, [f'n{i:02d}' for i in range(14)])
  _write(tmp_path / 'Masks/n03.png', size=(6, 8))
  (tmp_path / 'Images/n05.jpg').write_text('not an image')
  pairs = folder.read_folder(tmp_path)
  with pytest.raises(ValueError) as error:
    decoding.check_pairs(pairs)
  message = str(error.value)
  assert re.search(r'n03\.jpg is 8x6 pixels, its mask n03\.png 6x8', message)
  assert re.search(r'n05\.jpg: cannot be read', message)
  assert 'more' not in message
  for path in (tmp_path / 'Masks').iterdir():
    path.write_text('')
  with pytest.raises(ValueError, match='and 4 more'):
    decoding.check_pairs(pairs)


def test_split_is_scikit_learns(tmp_path):
  pairs = [
    records.Pair(
      name=f'{i:03d}', category='', image_path=tmp_path, mask_path=tmp_path
    )
    for i in range(23)
  ]
  training, validation = splitting.split_pairs(pairs, validation_share=0.2)
  # sklearn's train_test_split(range(23), test_size=.2, random_state=42).
  order = np.random.RandomState(42).permutation(23)
  expected = sorted(order[: math.ceil(23 * 0.2)])
  assert [int(pair.name) for pair in validation] == expected
  assert sorted(training + validation, key=lambda p: p.name) == pairs
  with pytest.raises(ValueError, match='No pair is left for training'):
    splitting.split_pairs(pairs[:1], validation_share=0.2)
