r"""Shows what a training sees: augmented pairs of its first batches, as a PNG.

```bash
python scripts/show_batch.py --config=configs/lite.py --config.data.dir=DIR \
  --output=batch.png
```

Each pair is a photo, its alpha, and the photo times alpha.
"""

import numpy as np
from absl import flags
from PIL import Image

from data_pipelines import cli
from data_pipelines.tools import sheets
from rmbg_jax import command_line

_CONFIG = command_line.define_config('The configuration of the training.')
_OUTPUT = cli.define_file(
  'output', 'batch.png', 'PNG file to write.', short='out'
)
_COUNT = flags.DEFINE_integer('count', 24, 'Pairs to show.', lower_bound=1)
_CELL = flags.DEFINE_integer('cell', 160, 'Pixels of a picture.', lower_bound=8)


def main() -> None:
  """Writes the picture."""
  from data_pipelines.io import files
  from rmbg_jax import runtime
  from rmbg_jax.training import inputs, settings

  runtime.start()
  config = _CONFIG.value
  settings.check_config(config)
  batches = inputs.make_inputs(config, size=tuple(config.data.size))
  rows = []
  while len(rows) < _COUNT.value:
    batch = next(batches.train_batches)
    for photo, alpha in zip(batch['image'], batch['alpha'], strict=True):
      photo = Image.fromarray(np.asarray(photo))
      alpha = Image.fromarray(np.asarray(alpha[..., 0]))
      cut = Image.composite(photo, Image.new('RGB', photo.size), alpha)
      rows.append([photo, alpha.convert('RGB'), cut])
  sheet = sheets.make_sheet(
    rows[: _COUNT.value], cell=_CELL.value, columns=min(3, _COUNT.value)
  )
  with files.write_atomically(_OUTPUT.value) as partial:
    sheet.save(partial, 'png')
  print(_OUTPUT.value)


if __name__ == '__main__':
  command_line.run(main, __name__)
