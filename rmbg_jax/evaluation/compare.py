"""Compares two systems on the same images by a paired bootstrap."""

from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.io import errors, files, words
from rmbg_jax.evaluation import gallery, metrics, tables
from rmbg_jax.evaluation import results as results_lib

_SHOWN = 20  # Images that changed most.


def compare(first: Path, second: Path, output: Path) -> str:
  """Compares two evaluations and writes what differs.

  Args:
    first: An `--output` with one system in it, or a system's folder in one.
    second: The same of another.
    output: Folder for `comparison.md`, `comparison.json` and, for each data
      set, `SET/differences.csv` and `SET/changed_most.html`.

  Returns:
    The report, as in `comparison.md`.

  Raises:
    MissingFileError: if there are no results.
    UserError: if there are several systems, or no image in common.
  """
  paths = [find_system(directory) for directory in (first, second)]
  names = [{p.parent.name for p in path.glob('*/images.csv')} for path in paths]
  common = sorted(names[0] & names[1])
  if not common:
    raise errors.UserError(
      f'--compare: {paths[0]} has results on {", ".join(sorted(names[0]))}, '
      f'{paths[1]} on {", ".join(sorted(names[1]))}: no data set in common.'
    )
  systems = paths[0].name, paths[1].name
  if systems[0] == systems[1]:
    systems = f'A ({systems[0]})', f'B ({systems[1]})'
  lines = [f'# {systems[1]} minus {systems[0]}', '']
  lines += [
    f'- {name}: {path}' for name, path in zip(systems, paths, strict=True)
  ]
  lines += [
    f'- {results_lib.RESAMPLES} paired resamples of the images; 95 % '
    'intervals; max F and max E are those of the mean curves.',
    '',
  ]
  report: dict[str, Any] = {'systems': systems, 'data_sets': {}}
  for name in common:
    pair = _align(*(results_lib.load_results(path / name) for path in paths))
    rows = compare_results(*pair)
    if not rows:
      raise errors.UserError(
        f'--compare: the results on {name} have no metric in common. Evaluate '
        'both with the same --metrics.'
      )
    count = len(pair[0].images)
    report['data_sets'][name] = {'images': count, 'rows': rows}
    lines += [f'## {name}: {words.count(count, "image")}', '']
    lines += [_render(rows, systems), '']
    lines += [_write_changes(*pair, systems, output / name), '']
  text = '\n'.join(lines)
  files.write_text(output / 'comparison.md', text)
  tables.save_json(report, output / 'comparison.json')
  return text


def compare_results(
  first: results_lib.Results, second: results_lib.Results
) -> list[dict[str, Any]]:
  """Returns, for each metric, both averages and their difference.

  Both are of the same images in the same order.

  Returns:
    Rows with `key`, `first`, `second`, `difference` (second minus first), the
    interval `low` and `high`, the share of images that are `improved` and
    `worsened`, and whether the second is `better`, None if 0 is in the
    interval.
  """
  shared = [c for c in first.metrics if c.key in second.values]

  def subtract(weights):
    changed, before = second.average(weights), first.average(weights)
    return {c.key: changed[c.key] - before[c.key] for c in shared}

  intervals = results_lib.compute_intervals(subtract, len(first.images))
  averages = [part.average() for part in (first, second)]
  rows = []
  for metric in shared:
    key = metric.key
    low, high = intervals[key]
    before, after = (float(average[key][0]) for average in averages)
    gains = second.values[key] - first.values[key]
    gains = gains if metric.higher_is_better else -gains
    # With 0 outside of the interval, the sign is certain.
    certain = low > 0 or high < 0
    rows.append(
      {
        'key': key,
        'first': before,
        'second': after,
        'difference': after - before,
        'low': low,
        'high': high,
        'improved': float(np.mean(gains > 0)),
        'worsened': float(np.mean(gains < 0)),
        'better': (low > 0) == metric.higher_is_better if certain else None,
      }
    )
  return rows


def find_system(directory: Path) -> Path:
  """Returns the folder of a system's results, given it or one around it.

  Raises:
    MissingFileError: if there are no results.
    UserError: if there are those of several systems.
  """
  if any(directory.glob('*/images.csv')):
    return directory
  found = sorted({path.parents[1] for path in directory.glob('*/*/images.csv')})
  if not found:
    raise errors.MissingFileError(
      f'--compare: no results in {directory}. Pass what was --output of an '
      'evaluation.'
    )
  if len(found) > 1:
    raise errors.UserError(
      f'--compare: {directory} has the results of several systems; pass one '
      f'of {", ".join(map(str, found))}.'
    )
  return found[0]


def _align(
  first: results_lib.Results, second: results_lib.Results
) -> tuple[results_lib.Results, results_lib.Results]:
  """Returns both results on their common images, in the same order."""
  places = [
    {image['name']: index for index, image in enumerate(part.images)}
    for part in (first, second)
  ]
  common = sorted(places[0].keys() & places[1].keys())
  if not common:
    raise errors.UserError(
      f'--compare: no image of {first.data_set} has both results.'
    )
  orders = [np.array([there[name] for name in common]) for there in places]
  return first.take(orders[0]), second.take(orders[1])


def _render(rows: list[dict[str, Any]], systems: tuple[str, str]) -> str:
  words = {True: 'better', False: 'worse', None: 'not certain'}
  cells = [
    [
      row['key'],
      *(tables.format_value(row[key]) for key in ('first', 'second')),
      f'{row["difference"]:+.4f}',
      f'{row["low"]:+.4f} to {row["high"]:+.4f}',
      f'{row["improved"]:.0%}',
      f'{row["worsened"]:.0%}',
      words[row['better']],
    ]
    for row in rows
  ]
  header = ('metric', *systems, 'difference', '95 % interval')
  return tables.render_cells(
    (*header, 'images improved', 'worsened', systems[1]), cells
  )


def _write_changes(
  first: results_lib.Results,
  second: results_lib.Results,
  systems: tuple[str, str],
  directory: Path,
) -> str:
  """Writes the differences per image; returns the table of the largest."""
  changes = {
    metric.key: second.values[metric.key] - first.values[metric.key]
    for metric in first.metrics
    if metric.key in second.values
  }
  rows = (
    {'name': image['name'], **{key: float(v[i]) for key, v in changes.items()}}
    for i, image in enumerate(first.images)
  )
  files.write_csv(directory / 'differences.csv', ['name', *changes], rows)
  key = metrics.find_rank_key(set(changes))
  change = changes[key]
  # Stable: equal changes stay in the order of names.
  shown, cells = [], []
  for i in np.argsort(-np.abs(change), kind='stable')[:_SHOWN]:
    image = first.images[i]
    before, after = first.values[key][i], second.values[key][i]
    text = f'{key} {before:.4f} to {after:.4f}'
    shown.append((image, second.images[i], text))
    values = map(tables.format_value, (float(before), float(after)))
    cells.append([image['name'], *values, f'{change[i]:+.4f}'])
  path = directory / 'changed_most.html'
  gallery.save_comparison(shown, path, systems=systems)
  header = ('changed most', *(f'{key} of {name}' for name in systems))
  return tables.render_cells((*header, 'difference'), cells)
