r"""Puts results on one picture to look at: photo, mask, cut-out on checks.

```bash
python scripts/contact_sheet.py --input=PHOTOS --results=OUT \
  --output=sheet.png
```
"""

from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image

from data_pipelines import cli
from data_pipelines.io import errors, files, images, suffixes
from data_pipelines.tools import sheets

_FORMATS = {'.png': 'PNG', '.jpg': 'JPEG'}

_INPUT = cli.define_path('input', None, 'Folder of the photos.', required=True)
_RESULTS = cli.define_path(
  'results', None, 'The --output of a prediction.', required=True
)
_OUTPUT = cli.define_file(
  'output', None, 'PNG or JPEG file to write.', required=True
)
_CELL = flags.DEFINE_integer('cell', 160, 'Pixels of a picture.', lower_bound=8)
_COLUMNS = flags.DEFINE_integer(
  'columns', 2, 'Results in a row.', lower_bound=1
)
_LIMIT = flags.DEFINE_integer(
  'limit', 0, 'Results to show; 0 for all.', lower_bound=0
)


def make_checks(size: tuple[int, int]) -> Image.Image:
  """Returns the grey checks that stand for transparency."""
  width, height = size
  y, x = np.mgrid[:height, :width] // 8
  grey = np.where((x + y) % 2, 255, 204).astype(np.uint8)
  return Image.fromarray(grey).convert('RGB')


def main() -> None:
  """Writes the sheet."""
  image_format = _FORMATS.get(Path(_OUTPUT.value).suffix.lower())
  if image_format is None:
    raise errors.UserError(
      f'--output={_OUTPUT.value}: must end in {" or ".join(_FORMATS)}.'
    )
  root, results = Path(_INPUT.value), Path(_RESULTS.value, 'cutout')
  found = [p for p in root.rglob('*') if p.suffix.lower() in suffixes.PHOTO]
  # Results of photos of one stem keep the photos' endings.
  photos = {path.relative_to(root).with_suffix(''): path for path in found}
  photos |= {path.relative_to(root): path for path in found}
  places = {
    path: path.relative_to(results).with_suffix('')
    for path in sorted(results.rglob('*.png'))
  }
  # Results of other photos may be there too.
  cutouts = [path for path, place in places.items() if place in photos]
  rows = []
  for path in cutouts[: _LIMIT.value or None]:
    photo = images.to_rgb(images.open_image(photos[places[path]]))
    with Image.open(path) as cutout:
      result = make_checks(cutout.size)
      result.paste(cutout, mask=cutout.getchannel('A'))
      rows.append([photo, cutout.getchannel('A').convert('RGB'), result])
  if not rows:
    raise errors.UserError(
      f'--results={_RESULTS.value}: no cut-outs of the photos in '
      f'--input={_INPUT.value} there. Pass what was --output.'
    )
  sheet = sheets.make_sheet(rows, cell=_CELL.value, columns=_COLUMNS.value)
  with files.write_atomically(_OUTPUT.value) as partial:
    sheet.save(partial, image_format, quality=90)
  print(_OUTPUT.value)


if __name__ == '__main__':
  cli.run(main, __name__)
