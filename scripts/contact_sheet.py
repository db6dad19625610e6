"""Puts results on one picture to look at: photo, mask, cut-out on checks.

```bash
python scripts/contact_sheet.py --photos=PHOTOS --results=OUT --sheet=sheet.png
```
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data_pipelines import sheets


def make_checks(size: tuple[int, int], square: int = 8) -> Image.Image:
  """Returns the grey checks that stand for transparency."""
  width, height = size
  y, x = np.mgrid[:height, :width] // square
  grey = np.where((x + y) % 2, 255, 204).astype(np.uint8)
  return Image.fromarray(grey).convert('RGB')


def main() -> None:
  """Writes the sheet."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--photos', required=True, type=Path)
  parser.add_argument('--results', required=True, type=Path)
  parser.add_argument('--sheet', required=True, type=Path)
  parser.add_argument('--cell', type=int, default=160, help='Pixels.')
  parser.add_argument('--columns', type=int, default=2)
  parser.add_argument('--limit', type=int, default=0, help='0 for all.')
  arguments = parser.parse_args()
  by_stem = {path.stem: path for path in arguments.photos.rglob('*.*')}
  cutouts = sorted((arguments.results / 'cutout').rglob('*.png'))
  rows = []
  for path in cutouts[: arguments.limit or None]:
    with (
      Image.open(by_stem[path.stem]) as photo,
      Image.open(path) as cutout,
    ):
      upright = ImageOps.exif_transpose(photo).convert('RGB')
      result = make_checks(cutout.size)
      result.paste(cutout, mask=cutout.getchannel('A'))
      rows.append([upright, cutout.getchannel('A').convert('RGB'), result])
  if not rows:
    raise SystemExit(f'{arguments.results}/cutout: no results there.')
  arguments.sheet.parent.mkdir(parents=True, exist_ok=True)
  sheet = sheets.make_sheet(
    rows, cell=arguments.cell, columns=arguments.columns
  )
  sheet.save(arguments.sheet)
  print(arguments.sheet)


if __name__ == '__main__':
  main()
