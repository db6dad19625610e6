"""Draws the curves of one or more trainings as a PNG.

```bash
python scripts/plot_history.py runs/demo runs/lite --output=history.png
```

Needs Matplotlib (`pip install matplotlib`, or the extra `eval`).
"""

from pathlib import Path

from absl import app

from data_pipelines import cli
from data_pipelines.io import errors, files
from rmbg_jax.training import logs

_OUTPUT = cli.define_file('output', 'history.png', 'PNG file to write.')
PANELS = (
  ('Loss', ('loss', 'val_loss')),
  ('Validation IoU', ('val_iou',)),
  ('Validation MAE', ('val_mae',)),
  ('Learning rate', ('learning_rate',)),
)


def main(argv: list[str]) -> None:
  """Writes the picture."""
  try:
    from matplotlib import figure
  except ImportError as error:
    raise errors.UserError(
      'the curves need Matplotlib. Run: pip install matplotlib'
    ) from error
  if len(argv) < 2:
    raise app.UsageError('Pass the working directory of a training, or several')
  picture = figure.Figure(figsize=(10, 7), layout='constrained')
  axes = picture.subplots(2, 2)
  for workdir in map(Path, map(cli.expand_home, argv[1:])):
    rows = logs.read_log(workdir)
    epochs = [row['epoch'] + 1 for row in rows]
    for (title, keys), axis in zip(PANELS, axes.flat, strict=True):
      for key in keys:
        values = [row[key] for row in rows]
        axis.plot(epochs, values, '.-', label=f'{workdir.name} {key}')
      axis.set(title=title, xlabel='Epoch')
      axis.grid(alpha=0.3)
  for axis in axes.flat:
    axis.legend(fontsize='small')
  with files.write_atomically(_OUTPUT.value) as partial:
    picture.savefig(partial, dpi=120, format='png')
  print(_OUTPUT.value)


if __name__ == '__main__':
  cli.run(main, __name__, takes_arguments=True)
