"""What makes a data set unfit to train on is found and named."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines import check
from data_pipelines.datasets import (
  dataset_csv,
  decoding,
  folder,
  records,
  splitting,
)
from data_pipelines.io import images
from data_pipelines.tools import inspection
from tests.support import commands, published_sets


def _make(root, count=10, source='own'):
  """A set without fault: textured photos, soft discs, an official split."""
  published_sets.make_p3m(root / 'tree', train=count, test=0, size=(60, 48))
  pairs = []
  for index, photo in enumerate(sorted((root / 'tree').rglob('*.jpg'))):
    pairs.append(
      records.Pair(
        name=photo.name,
        category='human',
        image_path=photo,
        mask_path=photo.parent.parent / 'mask' / f'{photo.stem}.png',
        source=source,
        split='train' if index < 0.7 * count else 'val',
      )
    )
  dataset_csv.write(root / 'Dataset.csv', pairs)
  return pairs


def _check(root, allow_empty=False):
  report, findings = check.check(
    root, allow_empty=allow_empty, validation_share=0.2
  )
  return report, {finding.kind: finding for finding in findings}


def test_names_without_endings_are_not_the_same(tmp_path):
  pairs = [
    dataclasses.replace(pair, name=Path(pair.name).stem)
    for pair in _make(tmp_path)
  ]
  dataset_csv.write(tmp_path / 'Dataset.csv', pairs)
  report, findings = _check(tmp_path)
  assert report['fit'] and not findings


def test_a_good_set_is_fit(tmp_path):
  _make(tmp_path)
  report, findings = _check(tmp_path)
  assert report['fit'] and not findings
  assert report['splits'] == {'train': 7, 'val': 3}
  own = report['sources']['own']
  assert own['pairs'] == 10
  assert own['mask ranges'] == {'0-255': 10}
  masks = [
    np.asarray(Image.open(pair.mask_path)) / 255
    for pair in folder.read_folder(tmp_path)
  ]
  assert own['mean coverage'] == pytest.approx(np.mean(masks), abs=1e-4)


def test_a_set_without_validation_is_split_as_in_training(tmp_path):
  pairs = [
    dataclasses.replace(pair, split='test' if number > 7 else 'train')
    for number, pair in enumerate(_make(tmp_path))
  ]
  dataset_csv.write(tmp_path / 'Dataset.csv', pairs)
  report, _ = _check(tmp_path)
  assert report['splits'] == {'test': 2, 'val': 2, 'train': 6}
  # The same picture in what will be both parts.
  _, (first, *_) = splitting.split_pairs(pairs, validation_share=0.2)
  other = pairs[0] if pairs[0] != first else pairs[1]
  for one, two in zip(_files(first), _files(other), strict=True):
    two.write_bytes(one.read_bytes())
  report, findings = _check(tmp_path)
  assert not report['fit'] and 'same picture across splits' in findings
  bare = [dataclasses.replace(pair, split='test') for pair in pairs]
  dataset_csv.write(tmp_path / 'Dataset.csv', bare)
  assert _check(tmp_path)[0]['splits'] == {'test': 10}


def _files(pair):
  return pair.image_path, pair.mask_path


def _break(pairs):
  """One fault of each kind; returns kind: (name in the line, wrong)."""

  def save_mask(index, values):
    Image.fromarray(values.astype(np.uint8)).save(pairs[index].mask_path)

  content = pairs[0].image_path.read_bytes()
  pairs[0].image_path.write_bytes(content[: len(content) // 2])
  save_mask(1, np.full((60, 48), 255))
  save_mask(2, np.zeros((48, 60)))
  save_mask(3, np.full((48, 60), 255))
  mask = np.zeros((48, 60))
  mask[20:30, 20:30] = 1
  save_mask(4, mask)
  save_mask(5, mask * 38)
  # The same photo, smaller and compressed anew, in the other split.
  photo = Image.open(pairs[6].image_path).resize((50, 40))
  photo.save(pairs[8].image_path, quality=70)
  Image.fromarray((mask[:40, :50] * 255).astype(np.uint8)).save(
    pairs[8].mask_path
  )
  exif = Image.Exif()
  exif[0x0112] = 3
  Image.open(pairs[9].image_path).rotate(180).save(
    pairs[9].image_path, exif=exif
  )
  Image.new('L', (9, 9)).save(pairs[7].image_path.with_name('stray.png'))
  names = [pair.image_path.stem for pair in pairs]
  return {
    'unreadable': (names[0], True),
    'size mismatch': (names[1], True),
    'empty mask': (names[2], True),
    'full mask': (names[3], False),
    'mask of 0 and 1 among others': (names[4], False),
    'unclear mask': (names[5], True),
    'same picture across splits': (names[8], True),
    'rotated by EXIF (read upright)': (names[9], False),
    'file that no row names': ('stray', False),
  }


def test_each_fault_is_found(tmp_path):
  pairs = _make(tmp_path)
  expected = _break(pairs)
  report, findings = _check(tmp_path)
  assert not report['fit']
  assert set(findings) == set(expected)
  for kind, (name, wrong) in expected.items():
    assert findings[kind].wrong == wrong, kind
    assert len(findings[kind].items) == 1, findings[kind].items
    assert name in findings[kind].items[0]
  _, allowed = _check(tmp_path, allow_empty=True)
  assert not allowed['empty mask'].wrong
  for index in (0, 1, 5, 8):
    pairs[index].mask_path.unlink()
  report, findings = _check(tmp_path)
  assert len(findings['file without partner, or wrong row'].items) == 4


def _red(mask):
  return np.stack([mask, mask * 0, mask * 0], axis=-1)


@pytest.mark.parametrize(
  ('store', 'kind', 'stored'),
  [
    (_red, None, 'one colour'),
    (lambda mask: np.float32(mask / 255 * 0.9), None, 'floats'),
    (lambda mask: mask.astype(np.uint16) * 257, None, '16 bits'),
    (lambda mask: mask.astype(np.uint16) * 16, 'unclear mask', None),
    (lambda mask: _red(mask) + np.uint8([0, 0, 200]), 'unclear mask', None),
    (lambda mask: mask // 2 + 60, 'grey masks', '0-255'),
    (
      lambda mask: np.uint8(128) * (mask > 0) + np.uint8(127) * (mask > 254),
      'trimaps, or a third class',
      '0-255',
    ),
  ],
)
def test_check_reads_masks_as_training_does(store, kind, stored, tmp_path):
  pairs = [
    dataclasses.replace(pair, mask_path=pair.mask_path.with_suffix('.tif'))
    for pair in _make(tmp_path)
  ]
  for pair in pairs:
    mask = np.asarray(Image.open(pair.mask_path.with_suffix('.png')))
    Image.fromarray(store(mask)).save(pair.mask_path)
  dataset_csv.write(tmp_path / 'Dataset.csv', pairs)
  report, findings = _check(tmp_path)
  assert report['fit'] == (kind is None)
  assert kind is None or kind in findings
  if stored:
    assert report['sources']['own']['mask ranges'] == {stored: 10}
  if kind == 'unclear mask':
    for pair in pairs:
      with pytest.raises(ValueError, match=pair.mask_path.name):
        decoding.read_pair(pair, allow_empty=True)


def test_a_soft_matte_may_be_dim_but_not_all_of_them(tmp_path):
  pairs = [dataclasses.replace(p, label='alpha') for p in _make(tmp_path)]
  dataset_csv.write(tmp_path / 'Dataset.csv', pairs)

  def darken(pair, share):
    mask = np.asarray(Image.open(pair.mask_path))
    Image.fromarray((mask * share).astype(np.uint8)).save(pair.mask_path)

  darken(pairs[0], 0.3)
  report, findings = _check(tmp_path)
  assert report['fit'] and set(findings) == {'mask below 128 of 255'}
  assert (
    np.asarray(decoding.read_pair(pairs[0], allow_empty=True)[1]).max() == 76
  )
  for pair in pairs[1:]:
    darken(pair, 0.3)
  report, findings = _check(tmp_path)
  assert not report['fit'] and 'unclear mask range' in findings
  darken(pairs[0], 0.014)
  with pytest.raises(ValueError, match='largest value is 1:'):
    decoding.read_pair(pairs[0], allow_empty=True)
  deep = np.asarray(Image.open(pairs[1].mask_path)).astype(np.uint16)
  Image.fromarray(deep).save(pairs[1].mask_path)
  with pytest.raises(ValueError, match='largest value is 76:'):
    decoding.read_pair(pairs[1], allow_empty=True)


def test_names_that_differ_in_case_or_extension_are_found(tmp_path):
  pairs = _make(tmp_path)
  twin = dataclasses.replace(
    pairs[0], name=f'{pairs[1].image_path.stem.upper()}.PNG'
  )
  dataset_csv.write(tmp_path / 'Dataset.csv', [twin, *pairs[1:]])
  report, findings = _check(tmp_path)
  assert report['fit']
  (item,) = findings['same name but for its case or extension'].items
  # Upper case sorts first.
  assert item == f'{twin.name} (train) and {pairs[1].name} (train)'


def test_inverted_masks_of_a_source_are_found(tmp_path):
  pairs = _make(tmp_path)
  for pair in pairs:
    mask = np.asarray(Image.open(pair.mask_path))
    Image.fromarray(255 - mask).save(pair.mask_path)
  _, findings = _check(tmp_path)
  assert set(findings) == {'inverted masks'}
  assert 'own: 10 of 10 masks' in findings['inverted masks'].items[0]
  assert '--invert=own' in findings['inverted masks'].items[0]


def test_duplicates_are_those_of_a_naive_search(rng):
  signatures = rng.integers(0, 2**63, (200, 2), np.uint64)
  signatures[150] = signatures[3]
  signatures[151] = signatures[4] ^ np.array([0b1011, 0b1], np.uint64)
  signatures[152] = signatures[5] ^ np.array([0b10111, 0b1], np.uint64)
  expected = [
    (i, j)
    for i in range(200)
    for j in range(i + 1, 200)
    if sum(
      bin(int(a) ^ int(b)).count('1')
      for a, b in zip(signatures[i], signatures[j], strict=True)
    )
    <= inspection.NEAR
  ]
  assert expected == [(3, 150), (4, 151)]
  assert inspection.find_duplicates(signatures) == expected


def test_names_of_any_bytes_are_reported(tmp_path):
  pairs = _make(tmp_path)
  for number, name in enumerate((os.fsdecode(b'caf\xe9'), 'x\u2028y')):
    mask = pairs[number].mask_path
    mask.write_bytes(b'')
    pairs[number] = dataclasses.replace(
      pairs[number],
      name=f'{name}.jpg',
      image_path=pairs[number].image_path.rename(mask.with_name(f'{name}.jpg')),
      mask_path=mask.rename(mask.with_name(f'{name}.png')),
    )
  dataset_csv.write(tmp_path / 'Dataset.csv', pairs)
  report, findings = _check(tmp_path)
  assert len(findings['unreadable'].items) == 2
  check.save_report(report, tmp_path / 'r.json')
  assert json.loads((tmp_path / 'r.json').read_text()) == report
  check.make_sheet(list(findings.values()))


def test_command_line(tmp_path):
  pairs = _make(tmp_path)
  _break(pairs)
  command = ['-m', 'data_pipelines.check', tmp_path]
  outputs = [f'--json={tmp_path}/r.json', f'--sheet={tmp_path}/s.png']
  result = commands.run(*command, *outputs)
  assert result.returncode == 1
  assert 'Traceback' not in result.stderr
  assert 'WRONG: empty mask: 1' in result.stdout
  assert result.stdout.endswith('Not fit to train on.\n')
  report = json.loads((tmp_path / 'r.json').read_text())
  assert not report['fit'] and report['pairs'] == 10
  # Nine pairs with a fault or a twin, two side by side, three cells for each.
  height, width = images.read_size(tmp_path / 's.png')
  assert 5 * 160 <= height < 6 * 160 and 6 * 160 <= width < 7 * 160
  absent = commands.run(*command[:-1], '/absent')
  assert absent.returncode == 1
  assert 'Error: /absent: no such data folder' in absent.stderr
  for share in ('-0.5', '0', '1'):
    refused = commands.run(*command, f'--validation_share={share}')
    assert refused.returncode == 1
    assert f'{float(share)} is not a number in the range' in refused.stderr
