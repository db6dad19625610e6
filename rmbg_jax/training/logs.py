"""Writes the logs and pictures of a training."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from data_pipelines.io import errors, files


def read_log(workdir: Path) -> list[dict[str, int | float]]:
  """Returns the rows of a training's log.

  Raises:
    MissingFileError: if there is none.
    UserError: naming a line that is damaged.
  """
  path = workdir / 'log.jsonl'
  if not path.exists():
    raise errors.MissingFileError(
      f'{path}: no log. Pass the --workdir of a training.'
    )
  return [
    files.parse_json(
      line, f'{path}, line {number}', remedy='Remove the line, or the file.'
    )
    for number, line in enumerate(path.read_bytes().splitlines(), 1)
  ]


class Reporter:
  """Writes a row per epoch as CSV, JSON lines, TensorBoard and text.

  The CSV and the JSON lines are whole on disk after every row. Rows that an
  earlier run wrote are kept, but for those of epochs that are to be repeated.
  """

  def __init__(
    self, workdir: Path, *, first_epoch: int, tensorboard: bool, active: bool
  ):
    """Reads the rows of earlier runs.

    Args:
      workdir: Working directory of the training.
      first_epoch: The first that is to be written.
      tensorboard: Whether to write for TensorBoard.
      active: Whether to write at all; of several processes, one does.
    """
    self._workdir = workdir
    self._active = active
    self._rows: list[dict[str, Any]] = []
    if first_epoch:
      with contextlib.suppress(errors.MissingFileError):
        self._rows = [
          row for row in read_log(workdir) if row['epoch'] < first_epoch
        ]
    self._board = None
    if active and tensorboard:
      import tensorboardX  # Needed by nothing else.

      # Hides what an interrupted run wrote of epochs that are repeated.
      self._board = tensorboardX.SummaryWriter(
        str(workdir / 'tensorboard'), purge_step=first_epoch
      )

  @property
  def last(self) -> dict[str, Any]:
    """The last row, {} if there is none."""
    return dict(self._rows[-1]) if self._rows else {}

  def write(self, row: Mapping[str, int | float]) -> None:
    """Adds an epoch's row; all rows have the same columns."""
    # In every process, since all of them may read `last`.
    self._rows.append(dict(row))
    if not self._active:
      return
    print(
      f'Epoch {row["epoch"] + 1}: loss {row["loss"]:.4f}, '
      f'val_loss {row["val_loss"]:.4f}, MAE {row["val_mae"]:.4f}, '
      f'IoU {row["val_iou"]:.4f}, learning rate {row["learning_rate"]:.2g}, '
      f'{row["images_per_second"]:.1f} images/s, {row["seconds"]:.0f} s'
    )
    # All rows again: an interruption leaves either the old file or the new one.
    lines = ''.join(json.dumps(row) + '\n' for row in self._rows)
    files.write_text(self._workdir / 'log.jsonl', lines)
    files.write_csv(self._workdir / 'log.csv', list(row), self._rows)
    if self._board:
      for key, value in row.items():
        self._board.add_scalar(key, value, int(row['epoch']))
      self._board.flush()

  def write_grid(self, epoch: int, grid: UInt8[np.ndarray, 'h w 3']) -> None:
    """Writes an epoch's picture."""
    if not self._active:
      return
    path = self._workdir / 'pictures' / f'epoch_{epoch:04d}.png'
    with files.write_atomically(path) as partial:
      Image.fromarray(grid).save(partial, format='png')
    if self._board:
      self._board.add_image('validation', grid, epoch, dataformats='HWC')

  def close(self) -> None:
    """Ends the TensorBoard file."""
    if self._board:
      self._board.close()
