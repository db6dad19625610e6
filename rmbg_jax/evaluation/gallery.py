"""Writes galleries: one HTML file with its pictures in it."""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipelines.io import files, images, masks
from rmbg_jax.evaluation import metrics, predictions, scoring, tables
from rmbg_jax.evaluation import results as results_lib
from rmbg_jax.inference import rendering

_SIDE = 240  # Pixels of a picture's longest side.
_STYLE = (
  'body{font:14px sans-serif;margin:24px}td,th{padding:4px;text-align:left;'
  'vertical-align:top}img{display:block}small{color:#555}'
)


def save_gallery(
  results: results_lib.Results, path: Path, *, count: int
) -> None:
  """Writes HTML of the worst, median and best images, `count` of each."""
  key = metrics.find_rank_key(set(results.values))
  (metric,) = (one for one in results.metrics if one.key == key)
  values = results.values[key] * (1 if metric.higher_is_better else -1)
  order = np.argsort(values, kind='stable').tolist()  # Worst first.
  scales = find_scales(results.images)
  middle = max(0, (len(order) - count) // 2)

  def make_row(index):
    image = results.images[index]
    truth = read_truth(image['truth'])
    prediction = read_prediction(image['prediction'], scales)
    difference = None
    if truth is not None and prediction is not None:
      difference = _make_difference(prediction, truth)
    value = tables.format_value(float(results.values[key][index]))
    return _make_row(image, f'{key} {value}', truth, prediction, difference)

  sections = {
    'Worst': order[:count],
    'Median': order[middle : middle + count],
    'Best': order[::-1][:count],
  }
  _save_page(
    path,
    f'{results.system} on {results.data_set}',
    'Difference: red is too much, blue is missing.',
    ('truth', 'prediction', 'difference'),
    {f'{name} by {key}': map(make_row, own) for name, own in sections.items()},
  )


def save_comparison(
  pairs: Sequence[tuple[Mapping[str, str], Mapping[str, str], str]],
  path: Path,
  *,
  systems: tuple[str, str],
) -> None:
  """Writes HTML of images with two systems' predictions side by side.

  Each is the same image as both results describe it, and a caption.
  """
  scales = [find_scales([pair[system] for pair in pairs]) for system in (0, 1)]
  rows = []
  for first, second, text in pairs:
    predicted = (
      read_prediction(image['prediction'], found)
      for image, found in zip((first, second), scales, strict=True)
    )
    rows.append(_make_row(first, text, read_truth(first['truth']), *predicted))
  title = f'{systems[0]} and {systems[1]}'
  _save_page(path, title, '', ('truth', *systems), {'Changed most': rows})


def _make_difference(
  prediction: Image.Image, truth: Image.Image
) -> Image.Image:
  if prediction.size != truth.size:
    prediction = prediction.resize(truth.size, Image.Resampling.BILINEAR)
  # Not uint8, whose differences wrap around.
  change = np.asarray(prediction, np.int16) - np.asarray(truth, np.int16)
  too_much, missing = np.maximum(change, 0), np.maximum(-change, 0)
  # White less the other colours: too much leaves red, missing leaves blue.
  rgb = 255 - np.stack([missing, too_much + missing, too_much], axis=-1)
  return Image.fromarray(rgb.astype(np.uint8))


def read_photo(path: str) -> Image.Image | None:
  """Returns a photo in RGB, None if it cannot be read."""
  try:
    with images.opened(path) as image:
      return images.to_rgb(images.turn_upright(image))
  except (OSError, ValueError):
    return None  # Masks can be scored without their photos.


def read_truth(path: str) -> Image.Image | None:
  """Returns a true mask in grey, None if it cannot be read."""
  try:
    return masks.to_mask(images.open_image(path))
  except (OSError, ValueError):
    return None


def find_scales(described: Sequence[Mapping[str, str]]) -> dict[str, int]:
  """Returns the scales of a system's predictions; see `scoring.Job`."""
  paths = (image['prediction'] for image in described)
  return predictions.find_scales(Path(path) for path in paths if path)


def read_prediction(path: str, scales: Mapping[str, int]) -> Image.Image | None:
  """Returns a prediction in grey, None if it cannot be read."""
  try:
    alpha = scoring.read_alpha(Path(path), scales)
  except (OSError, ValueError):
    return None
  if alpha.mode == 'F':
    return Image.fromarray(rendering.to_mask(np.asarray(alpha)))
  return alpha


def _make_row(
  image: Mapping[str, str], text: str, *pictures: Image.Image | None
) -> str:
  name = html.escape(image['name'])
  cells = [f'{name}<br><small>{html.escape(text)}</small>']
  cells += map(_show, (read_photo(image['photo']), *pictures))
  return '<tr>' + ''.join(f'<td>{cell}</td>' for cell in cells) + '</tr>'


def _show(image: Image.Image | None) -> str:
  if image is None:
    return 'cannot be read'
  image = image.copy()
  image.thumbnail((_SIDE, _SIDE))
  buffer = io.BytesIO()
  image.save(buffer, 'jpeg', quality=85)
  code = base64.b64encode(buffer.getvalue()).decode()
  return f'<img src="data:image/jpeg;base64,{code}" alt="">'


def _save_page(
  path: Path,
  title: str,
  note: str,
  pictures: Sequence[str],
  sections: Mapping[str, Iterable[str]],
) -> None:
  title = html.escape(title)
  lines = [
    '<!doctype html><meta charset="utf-8">',
    f'<title>{title}</title><style>{_STYLE}</style>',
    f'<h1>{title}</h1><p>{html.escape(note)}</p>',
  ]
  header = ('', 'photo', *map(html.escape, pictures))
  for name, rows in sections.items():
    lines += [f'<h2>{html.escape(name)}</h2>', '<table>']
    lines.append(''.join(f'<th>{one}</th>' for one in header))
    lines += [*rows, '</table>']
  files.write_text(path, '\n'.join([*lines, '']))
