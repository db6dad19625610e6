"""The picture of results to look at."""

import numpy as np
from PIL import Image

from tests.support import commands

COLOURS = {
  'x/a.png': (250, 0, 0),
  'y/a.png': (0, 250, 0),
  'b.jpg.png': (0, 0, 250),
  'b.png.png': (250, 250, 0),
}


def test_photos_of_equal_names_are_not_mixed_up(tmp_path):
  photos, cutouts = tmp_path / 'photos', tmp_path / 'out/cutout'
  names = ('x/a.jpg', 'y/a.jpg', 'b.jpg', 'b.png')
  for name, (result, colour) in zip(names, COLOURS.items(), strict=True):
    for path in (photos / name, cutouts / result):
      path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (40, 30), colour).save(photos / name)
    Image.new('RGBA', (40, 30), (*colour, 255)).save(cutouts / result)
  (photos / 'x/a.json').write_text('{}')  # No photo.
  done = commands.run(
    *('-m', 'scripts.contact_sheet', f'--input={photos}'),
    *(f'--results={tmp_path / "out"}', f'--output={tmp_path / "sheet.png"}'),
    *('--cell=40', '--columns=1'),
  )
  assert done.returncode == 0
  sheet = np.asarray(Image.open(tmp_path / 'sheet.png'), int)
  for number, result in enumerate(sorted(COLOURS)):
    row = sheet[number * 34 + 15]  # In the middle, with gaps of four between.
    for x in (20, 2 * 44 + 20):  # The photo and the cut-out.
      assert np.abs(row[x] - COLOURS[result]).max() < 10


def _run(photos, results, output):
  return commands.run(
    *('scripts/contact_sheet.py', f'--input={photos}'),
    *(f'--results={results}', f'--output={output}', '--cell=96'),
  )


def test_results_of_other_photos_and_other_files_are_left_out(tmp_path):
  photos, results = tmp_path / 'photos', tmp_path / 'results'
  photos.mkdir()
  (results / 'cutout').mkdir(parents=True)
  Image.new('RGB', (50, 40), 'red').save(photos / 'a.jpg')
  (photos / 'a.txt').write_text('About a.')
  Image.new('RGB', (50, 40), 'blue').save(photos / 'b.jpg')
  for name in ('a', 'b.jpg', 'earlier'):
    cutout = Image.new('RGBA', (50, 40), 'red')
    cutout.save(results / f'cutout/{name}.png')
  sheet = tmp_path / 'sheet.png'
  made = _run(photos, results, sheet)
  assert made.returncode == 0, made.stderr
  with Image.open(sheet) as image:
    assert image.height < 2 * 96  # One line of two photos.
    reds = [image.getpixel((48 + 3 * k * 100, 48))[0] for k in range(2)]
  assert reds[0] > 200
  assert reds[1] < 50
  for name in ('a', 'b'):
    (photos / f'{name}.jpg').unlink()
  empty = _run(photos, results, tmp_path / 'none.png')
  assert empty.stderr.startswith('Error: --results=')
