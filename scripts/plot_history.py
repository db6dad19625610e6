"""Draws the curves of one or more trainings as a PNG.

```bash
python scripts/plot_history.py runs/demo runs/lite --output=history.png
```

Needs Matplotlib (`pip install matplotlib`, or the extra `eval`).
"""

import argparse
import json
from pathlib import Path

try:
  import matplotlib
except ImportError as error:
  raise SystemExit(
    'Error: the curves need Matplotlib. Run: pip install matplotlib'
  ) from error

matplotlib.use('Agg')  # No screen is needed.
from matplotlib import pyplot as plt

PANELS = (
  ('Loss', ('loss', 'val_loss')),
  ('Validation IoU', ('val_iou',)),
  ('Validation MAE', ('val_mae',)),
  ('Learning rate', ('learning_rate',)),
)


def read_log(workdir: Path) -> list[dict[str, float]]:
  """Returns the rows of a training's log.

  Raises:
    FileNotFoundError: if there is none.
  """
  path = workdir / 'log.jsonl'
  if not path.exists():
    raise FileNotFoundError(
      f'{path}: no log. Pass the --workdir of a training.'
    )
  return [json.loads(line) for line in path.read_text().splitlines()]


def main() -> None:
  """Writes the picture."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('workdirs', nargs='+', type=Path)
  parser.add_argument('--output', default=Path('history.png'), type=Path)
  arguments = parser.parse_args()
  figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout='constrained')
  for workdir in arguments.workdirs:
    try:
      rows = read_log(workdir)
    except FileNotFoundError as error:
      raise SystemExit(f'Error: {error}') from error
    epochs = [row['epoch'] + 1 for row in rows]
    for (title, keys), axis in zip(PANELS, axes.flat, strict=True):
      for key in keys:
        values = [row[key] for row in rows]
        axis.plot(epochs, values, '.-', label=f'{workdir.name} {key}')
      axis.set(title=title, xlabel='Epoch')
      axis.grid(alpha=0.3)
  for axis in axes.flat:
    axis.legend(fontsize='small')
  arguments.output.parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(arguments.output, dpi=120)
  print(arguments.output)


if __name__ == '__main__':
  main()
