"""Draws what the refinements do at an edge.

```bash
python scripts/show_refinement.py --output=docs/images/refinement.jpg
```

A picture of the demo set stands for a photo; its true alpha, reduced to 64
pixels, for a network's answer. Left to right: the photo, then alpha without
refinement, guided, by matting, the truth. Below, each cut-out before white.
"""

import numpy as np
from absl import app
from PIL import Image, ImageDraw

from data_pipelines import cli
from data_pipelines.datasets import demo
from rmbg_jax.inference import foreground, refinement, rendering

_OUTPUT = cli.define_path('output', None, 'JPEG file to write.', required=True)

SEED = 5
SIDE, SMALL, CROP = 512, 64, 128  # Pixels.


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
  """Returns the foreground before white."""
  weight = alpha[..., None]
  return np.round(colours * weight + 255 * (1 - weight)).astype(np.uint8)


def main(argv: list[str]) -> None:
  """Writes the picture."""
  if len(argv) > 1:
    raise app.UsageError(f'Unexpected arguments: {argv[1:]}')
  pixels, mask, _ = demo.draw_pair(np.random.default_rng(SEED), (SIDE, SIDE))
  photo = Image.fromarray(pixels)
  truth = mask.astype(np.float32) / 255
  probs = Image.fromarray(truth).resize((SMALL, SMALL), Image.Resampling.BOX)
  alphas = {
    method: refinement.Refinement(method=method).apply(np.asarray(probs), photo)
    for method in refinement.METHODS
  }
  alphas['truth'] = truth
  columns = [('photo', pixels, on_white(pixels, truth))]
  for name, alpha in alphas.items():
    grey = np.repeat(rendering.to_mask(alpha)[..., None], 3, axis=2)
    clean = foreground.estimate_foreground(pixels, alpha)
    columns.append((name, grey, on_white(clean, alpha)))
  # Where the true alpha is least decided, there is most to see.
  band = Image.fromarray(truth * (1 - truth)).reduce(CROP // 4)
  row, column = np.unravel_index(np.argmax(np.asarray(band)), band.size[::-1])
  top, left = (
    int(np.clip(index * (CROP // 4) - CROP // 2, 0, SIDE - CROP))
    for index in (row, column)
  )
  sheet = Image.new(
    'RGB', (len(columns) * (2 * CROP + 4), 4 * CROP + 24), 'white'
  )
  draw = ImageDraw.Draw(sheet)
  for index, (name, *pictures) in enumerate(columns):
    x = index * (2 * CROP + 4)
    draw.text((x + 4, 4), name, fill='black')
    for line, picture in enumerate(pictures):
      crop = picture[top : top + CROP, left : left + CROP]
      tile = Image.fromarray(crop).resize((2 * CROP, 2 * CROP), 0)
      sheet.paste(tile, (x, 20 + line * (2 * CROP + 4)))
  sheet.save(_OUTPUT.value, quality=90)


if __name__ == '__main__':
  cli.run(main, __name__)
