"""The metrics and their tables; a key states variant, region and unit."""

from typing import NamedTuple

GROUPS = ('saliency', 'matting')
TABLES = {
  'stretched': (
    'Each prediction is stretched to [0, 1] before it is scored, as '
    'PySODMetrics does by default (`normalize=True`) and papers do; the truth '
    'is binarised at > 128. Not for matting: see the other tables.'
  ),
  'raw': (
    'Predictions as they are (`normalize=False`); the truth is binarised at '
    '>= 128, but for MAE, which takes it as it is stored. At the size of the '
    "network's input, MAE and IoU are training's `val_mae` and `val_iou`."
  ),
  'matting': (
    'Alpha as it is, over the whole image and over the unknown band. '
    'SAD, Grad and Conn are sums over pixels in thousands.'
  ),
}


class Metric(NamedTuple):
  """A metric of a table.

  Attributes:
    key: Its name in files.
    title: Its name in tables.
    table: Name of its table, one of `TABLES`.
    higher_is_better: Otherwise lower is.
    curve: The curve whose mean over the images has the value as its largest;
      '' for a mean over the images' values.
  """

  key: str
  title: str
  table: str
  higher_is_better: bool
  curve: str = ''


_SALIENCY = {
  'mae': 'MAE',
  'max_f': 'max F',
  'mean_f': 'mean F',
  'adaptive_f': 'adp F',
  'weighted_f': 'wF',
  's': 'S',
  'max_e': 'max E',
  'mean_e': 'mean E',
  'adaptive_e': 'adp E',
  'iou': 'IoU',
  'dice': 'Dice',
  'boundary_iou': 'BIoU',
}
_MATTING = {
  'sad_{}_thousands': 'SAD/1000 {}',
  'mse_{}': 'MSE {}',
  'mad_{}': 'MAD {}',
  'gradient_{}_thousands': 'Grad/1000 {}',
  'connectivity_{}_thousands': 'Conn/1000 {}',
}
METRICS = (
  *(
    Metric(
      f'{name}_{table}',
      title,
      table,
      higher_is_better=name != 'mae',
      # The last letter of `max_f` and `max_e` names the curve.
      curve=f'{name[-1]}_{table}' if name.startswith('max_') else '',
    )
    for table in ('stretched', 'raw')
    for name, title in _SALIENCY.items()
  ),
  *(
    Metric(
      key.format(region),
      title.format(region),
      'matting',
      higher_is_better=False,
    )
    for region in ('whole', 'unknown')
    for key, title in _MATTING.items()
  ),
)


def find_rank_key(keys: set[str]) -> str:
  """Returns the metric that images are ordered by, of those there are."""
  return 'iou_raw' if 'iou_raw' in keys else 'mad_whole'
