"""Tables of results: for the terminal, Markdown, CSV and JSON."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.io import files
from data_pipelines.io.types import JsonObject
from rmbg_jax.evaluation import metrics
from rmbg_jax.evaluation import results as results_lib

Row = dict[str, Any]


def make_rows(results: results_lib.Results) -> list[Row]:
  """Returns the averages over all images, per source and per category.

  Each row has `system`, `data_set`, `group`, `images`, the metrics' values by
  key in `values`, and 95 % bootstrap intervals (low, high) in `intervals`.
  """
  return [
    {
      'system': part.system,
      'data_set': part.data_set,
      'group': group,
      'images': len(part.images),
      'values': {k: float(value[0]) for k, value in part.average().items()},
      'intervals': results_lib.compute_intervals(
        part.average, len(part.images)
      ),
    }
    for group, part in _split(results)
  ]


def render_empty(results: Sequence[results_lib.Results]) -> str:
  """Returns the table of images with an empty truth, '' if there are none."""
  cells = [
    [
      part.data_set,
      part.system,
      str(len(part.empty)),
      *(
        format_value(float(np.mean([row[key] for row in part.empty])))
        for key in ('mae_raw', 'area_raw')
      ),
    ]
    for part in results
    if part.empty
  ]
  header = 'data set', 'system', 'images', 'MAE', 'share taken for object'
  return render_cells(header, cells) if cells else ''


def render(rows: Sequence[Row], *, table: str, intervals: bool) -> str:
  """Returns a table of `metrics.TABLES` as Markdown, '' if there is none.

  The rows are of one data set; each group has its systems side by side.
  """
  shown = [one for one in _list_metrics(rows) if one.table == table]
  if not shown:
    return ''
  groups = list(dict.fromkeys(row['group'] for row in rows))
  # Stable: within a group, systems stay in their order.
  rows = sorted(rows, key=lambda row: groups.index(row['group']))
  header = ['images of', 'system', 'n']
  header += [
    f'{metric.title} {"↑" if metric.higher_is_better else "↓"}'
    for metric in shown
  ]
  cells = [
    [row['group'], row['system'], str(row['images'])]
    + [_format_cell(row, metric.key, intervals) for metric in shown]
    for row in rows
  ]
  return render_cells(header, cells)


def render_cells(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
  """Returns a Markdown table whose columns line up in a terminal too."""
  columns = zip(header, *cells, strict=True)
  widths = [max(map(len, column)) for column in columns]

  def join(line):
    return f'| {" | ".join(map(str.ljust, line, widths))} |'

  rule = f'|{"|".join("-" * (width + 2) for width in widths)}|'
  return '\n'.join([join(header), rule, *map(join, cells)])


def format_value(value: float) -> str:
  """Returns four decimals; of large numbers, fewer; '-' for none."""
  if not math.isfinite(value):
    return '-'
  return f'{value:.4f}' if abs(value) < 10 else f'{value:.2f}'


def save_csv(rows: Sequence[Row], path: Path) -> None:
  """Writes one line per system, data set and group, with the intervals."""
  header = ['data_set', 'group', 'system', 'images']
  for metric in _list_metrics(rows):
    header += [metric.key, f'{metric.key}_low', f'{metric.key}_high']
  lines = []
  for row in rows:
    line = {key: row[key] for key in header[:4]}
    for key, value in row['values'].items():
      low, high = row['intervals'][key]
      line |= {key: value, f'{key}_low': low, f'{key}_high': high}
    lines.append(line)
  files.write_csv(path, header, lines)


def save_json(content: JsonObject, path: Path) -> None:
  """Writes JSON, atomically; what is not a finite number becomes null."""
  finite = json.loads(json.dumps(content), parse_constant=lambda _: None)
  text = json.dumps(finite, indent=1, ensure_ascii=False)
  files.write_text(path, text + '\n')


def _list_metrics(rows: Sequence[Row]) -> list[metrics.Metric]:
  found = {key for row in rows for key in row['values']}
  return [metric for metric in metrics.METRICS if metric.key in found]


def _split(
  results: results_lib.Results,
) -> Iterator[tuple[str, results_lib.Results]]:
  if not results.images:
    return
  yield 'all', results
  for key in ('source', 'category'):
    names = np.array([image[key] for image in results.images])
    # A single group would repeat `all`.
    if len(set(names)) > 1:
      for name in sorted(set(names)):
        yield f'{key} {name or "(none)"}', results.take(names == name)


def _format_cell(row: Row, key: str, intervals: bool) -> str:
  if key not in row['values']:
    return '-'
  text = format_value(row['values'][key])
  if intervals and text != '-':
    low, high = map(format_value, row['intervals'][key])
    text += f' ({low}-{high})'
  return text
