"""Results are put beside their own photos."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
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
  subprocess.run(
    [sys.executable, '-m', 'scripts.contact_sheet', f'--input={photos}']
    + [f'--results={tmp_path / "out"}', f'--output={tmp_path / "sheet.png"}']
    + ['--cell=40', '--columns=1'],
    cwd=ROOT,
    check=True,
  )
  sheet = np.asarray(Image.open(tmp_path / 'sheet.png'), int)
  for number, result in enumerate(sorted(COLOURS)):
    row = sheet[number * 34 + 15]  # In the middle, with gaps of four between.
    for x in (20, 2 * 44 + 20):  # The photo and the cut-out.
      assert np.abs(row[x] - COLOURS[result]).max() < 10
