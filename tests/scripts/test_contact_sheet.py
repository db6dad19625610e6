"""The picture of results to look at."""

import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def _run(photos, results, output):
  return subprocess.run(
    [sys.executable, 'scripts/contact_sheet.py', f'--input={photos}']
    + [f'--results={results}', f'--output={output}', '--cell=96'],
    cwd=ROOT,
    capture_output=True,
    text=True,
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
