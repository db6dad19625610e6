"""Writes the report of an evaluation: what was scored, how, and the tables."""

import datetime
import importlib.metadata
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import figure as figures

import rmbg_jax
from data_pipelines.io import files, parallel, words
from data_pipelines.io.types import JsonObject
from rmbg_jax.evaluation import (
  benchmarks,
  differences,
  gallery,
  metrics,
  tables,
)
from rmbg_jax.evaluation import results as results_lib

# Of curves: from high to low, as PySODMetrics' are.
_THRESHOLDS = np.arange(255, -1, -1) / 255
_PACKAGES = ('numpy', 'scipy', 'pillow', 'pysodmetrics', 'jax', 'jaxlib')


def _describe_run() -> dict[str, Any]:
  return {
    # To be pasted, however the program was started.
    'command': shlex.join(['python', '-m', 'rmbg_jax.evaluate', *sys.argv[1:]]),
    'date': datetime.datetime.now().astimezone().isoformat(timespec='seconds'),
    'versions': {
      'rmbg_jax': rmbg_jax.__version__,
      'python': platform.python_version(),
      **{name: importlib.metadata.version(name) for name in _PACKAGES},
    },
    'machine': {
      'system': platform.platform(),
      'processor': parallel.name_processor(),
      'cores': parallel.count_cores(),
    },
  }


def save_report(
  results: Sequence[results_lib.Results],
  data_sets: Sequence[benchmarks.DataSet],
  *,
  systems: Mapping[str, JsonObject],
  output: Path,
  gallery_count: int,
) -> str:
  """Writes `table.md`, `table.csv`, `results.json`, curves and galleries.

  Args:
    results: Results of all systems on all data sets.
    data_sets: Data sets of the results.
    systems: Their descriptions; `notes` is a list of sentences.
    output: The folder.
    gallery_count: Worst, median and best images to show; 0 for no gallery.

  Returns:
    The report for a terminal: the same without intervals.
  """
  about = _describe_run()
  rows = [row for part in results for row in tables.make_rows(part)]
  header = _write_header(about, systems)
  text, shown = (
    _render(header, results, data_sets, rows, intervals=intervals)
    for intervals in (True, False)
  )
  files.write_text(output / 'table.md', text)
  tables.save_csv(rows, output / 'table.csv')
  tables.save_json(
    {
      'about': about,
      'systems': systems,
      'rows': rows,
      **{
        kind: {f'{r.system} on {r.data_set}': getattr(r, kind) for r in results}
        for kind in ('empty', 'failed')
      },
    },
    output / 'results.json',
  )
  for part in results:
    if gallery_count and part.images:
      path = output / part.system / part.data_set / 'gallery.html'
      gallery.save_gallery(part, path, count=gallery_count)
  for data_set in data_sets:
    own = [part for part in results if part.data_set == data_set.name]
    if drawn := [part for part in own if part.curves]:
      _save_curves(drawn, output / f'curves_{data_set.name}.png')
    if gallery_count and len(own) > 1:
      path = output / f'most_different_{data_set.name}.jpg'
      differences.save_for_results(own, path, count=gallery_count)
  return shown


def _render(
  header: str,
  results: Sequence[results_lib.Results],
  data_sets: Sequence[benchmarks.DataSet],
  rows: Sequence[tables.Row],
  *,
  intervals: bool,
) -> str:
  parts = [header]
  for data_set in data_sets:
    own = [part for part in results if part.data_set == data_set.name]
    parts.append(_describe_data_set(data_set, own))
    own_rows = [row for row in rows if row['data_set'] == data_set.name]
    for table, explanation in metrics.TABLES.items():
      rendered = tables.render(own_rows, table=table, intervals=intervals)
      if rendered:
        parts += [f'### {table.capitalize()}', explanation, rendered]
  if empty := tables.render_empty(results):
    parts += ['## Empty truths: counted apart, in no average above', empty]
  return '\n\n'.join(parts) + '\n'


def _write_header(about: JsonObject, systems: Mapping[str, JsonObject]) -> str:
  versions = ', '.join(f'{k} {v}' for k, v in about['versions'].items())
  machine = about['machine']
  lines = [
    '# Evaluation',
    '',
    f'- `{about["command"]}`',
    f'- {about["date"]}; {versions}',
    f'- {machine["cores"]} cores of {machine["processor"]}, '
    f'{machine["system"]}',
    f'- Intervals: 95 %, bootstrap over the images, {results_lib.RESAMPLES} '
    'resamples. Max F and max E are the largest of the mean curve.',
  ]
  for name, details in systems.items():
    shown = [
      f'{key} {value}'
      for key, value in details.items()
      if isinstance(value, (str, int))
    ]
    lines.append(f'- {name}: {", ".join(shown)}')
    if 'training_data' in details:
      sources = details['training_data']
      stated = 'not stated' if sources is None else ', '.join(sources)
      lines.append(f'  - trained on: {stated}')
    lines += [f'  - **{note}**' for note in details['notes']]
  return '\n'.join(lines)


def _describe_data_set(
  data_set: benchmarks.DataSet, results: Sequence[results_lib.Results]
) -> str:
  count = len(data_set.pairs)
  lines = [f'## {data_set.name}: {words.count(count, "image")}', '']
  if data_set.published and count != data_set.published:
    lines.append(
      f'- **{data_set.published} images were published: figures on {count} '
      'cannot be put beside a paper.**'
    )
  if data_set.binarize:
    lines.append('- The truth is binarised at > 128 in all tables.')
  if data_set.problems:
    lines.append(f'- Left out: {words.count(len(data_set.problems), "file")}.')
  for part in results:
    lines.append(
      f'- {part.system}: {len(part.images)} scored, {len(part.empty)} with an '
      f'empty truth, {len(part.failed)} failed'
    )
    if part.resized:
      lines[-1] += (
        f'; {part.resized} predictions were of another size than the truth and '
        'resized, bilinear'
      )
  return '\n'.join(lines)


def _save_curves(results: Sequence[results_lib.Results], path: Path) -> None:
  """Writes a PNG of precision-recall, F and E of systems on one data set."""
  figure = figures.Figure(figsize=(15, 4.5), layout='constrained')
  axes = figure.subplots(1, 3)
  for part in results:
    precision, recall, f, e = (
      part.curves[f'{key}_stretched'].mean(axis=0)
      for key in ('precision', 'recall', 'f', 'e')
    )
    axes[0].plot(recall, precision, label=part.system)
    axes[1].plot(_THRESHOLDS, f, label=f'{part.system}, max {f.max():.3f}')
    axes[2].plot(_THRESHOLDS, e, label=f'{part.system}, max {e.max():.3f}')
  axes[0].set(xlabel='Recall', ylabel='Precision')
  axes[1].set(xlabel='Threshold', ylabel='F (beta^2 = 0.3)')
  axes[2].set(xlabel='Threshold', ylabel='E')
  for axis in axes:
    axis.set(xlim=(0, 1), ylim=(0, 1.01))
    axis.grid(alpha=0.3)
    axis.legend(fontsize='small', loc='lower left')
  images = words.count(len(results[0].images), 'image')
  figure.suptitle(f'{results[0].data_set}, {images}')
  with files.write_atomically(path) as partial:
    figure.savefig(partial, dpi=100, format='png')
