"""What a training leaves behind to look at: a CSV log and pictures."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from rmbg_jax import files

COLUMNS = (
  'epoch',
  'learning_rate',
  'loss',
  'val_loss',
  'val_mae',
  'val_iou',
  'seconds',
)


class CsvLog:
  """A table with one row per epoch, whole on disk after every row.

  Attributes:
    path: of the CSV file. Rows before `first_epoch` that an earlier run wrote
      are kept; later ones belong to epochs that are being repeated.
  """

  def __init__(self, path: Path, *, first_epoch: int):
    self.path = path
    self._rows = []
    if first_epoch and path.exists():
      with path.open(newline='', encoding='utf-8') as file:
        self._rows = [
          row for row in csv.DictReader(file) if int(row['epoch']) < first_epoch
        ]

  @property
  def last(self) -> dict[str, Any]:
    """The last row, as read back from the file or as written; {} if none."""
    return dict(self._rows[-1]) if self._rows else {}

  def write(self, row: Mapping[str, int | float]) -> None:
    """Adds an epoch's row."""
    self._rows.append({column: row[column] for column in COLUMNS})
    with (
      files.write_atomically(self.path) as partial,
      partial.open('w', newline='', encoding='utf-8') as file,
    ):
      writer = csv.DictWriter(file, COLUMNS)
      writer.writeheader()
      writer.writerows(self._rows)


def write_grid(
  path: Path,
  images: UInt8[np.ndarray, 'b h w 3'],
  alpha: UInt8[np.ndarray, 'b h w 1'],
  outputs: Sequence[Float[np.ndarray, 'b h w 1']],
) -> None:
  """Writes a picture with a row per image: photo, truth, each output.

  Args:
    path: of the PNG.
    images: RGB in [0, 255].
    alpha: the truth in [0, 255].
    outputs: probabilities in [0, 1], coarse to fine.
  """
  columns = [images, np.repeat(alpha, 3, axis=-1)]
  for probs in outputs:
    grey = np.round(np.asarray(probs) * 255).astype(np.uint8)
    columns.append(np.repeat(grey, 3, axis=-1))
  grid = np.concatenate(
    [np.concatenate(list(column), axis=0) for column in columns], axis=1
  )
  with files.write_atomically(path) as partial:
    Image.fromarray(grid).save(partial, format='png')
