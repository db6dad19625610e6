"""Tells whether a data set is fit to train on.

```bash
python -m data_pipelines.check DIR --json=report.json --sheet=suspicious.png
```

The exit code is 1 where training on it would be wrong.
"""

import collections
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tqdm
from absl import app, flags
from PIL import Image

from data_pipelines import cli
from data_pipelines.datasets import folder, records, splitting
from data_pipelines.io import errors, files, images, parallel, words
from data_pipelines.io.types import JsonObject
from data_pipelines.tools import inspection, sheets

_SHOWN = 10  # Lines of each finding.
_CELL = 160  # Pixels of a picture on the sheet.
_MOST_ON_SHEET = 60


def check(
  directory: Path, *, allow_empty: bool, validation_share: float
) -> tuple[dict[str, Any], list[inspection.Finding]]:
  """Reads all files of a data set in the folder layout.

  A set without validation pairs is split as training splits it.

  Returns:
    (a JSON-compatible report, the findings in it).

  Raises:
    FileNotFoundError, ValueError: if there is no data set.
  """
  problems: list[str] = []
  pairs = folder.read_folder(directory, problems)
  usable = [pair for pair in pairs if pair.split != 'test']
  # So that pictures in both parts are found.
  if usable and not any(pair.split == 'val' for pair in usable):
    tested = [pair for pair in pairs if pair.split == 'test']
    pairs = tested + splitting.assign_splits(
      usable, validation_share=validation_share
    )
  results = parallel.map_in_order(inspection.inspect_pair, pairs)
  summaries = list(tqdm.tqdm(results, total=len(pairs), unit='pair'))
  findings = inspection.find_problems(summaries, allow_empty=allow_empty)
  if problems:
    kind = 'file without partner, or wrong row'
    findings.insert(0, inspection.Finding(kind, True, problems))
  if unused := _find_unused(directory, pairs):
    kind = 'file that no row names'
    findings.append(inspection.Finding(kind, False, unused))
  report = {
    'directory': str(directory),
    'pairs': len(pairs),
    'splits': _count(pair.split for pair in pairs),
    'categories': _count(pair.category for pair in pairs),
    'labels': _count(pair.label for pair in pairs),
    'sources': inspection.describe_sources(summaries),
    'findings': [
      {
        'kind': f.kind,
        'wrong': f.wrong,
        'count': len(f.items),
        'items': f.items,
      }
      for f in findings
    ],
    'fit': not any(finding.wrong for finding in findings),
  }
  return report, findings


def render_text(report: JsonObject) -> str:
  """Returns the report to read."""
  lines = [f'{report["directory"]}: {words.count(report["pairs"], "pair")}']
  for key in ('splits', 'categories', 'labels'):
    counts = (f'{name or "-"} {n:,}' for name, n in report[key].items())
    lines.append(f'{key}: {", ".join(counts)}')
  for source, summaries in report['sources'].items():
    ranges = ', '.join(
      f'{r}: {n:,}' for r, n in summaries['mask ranges'].items()
    )
    pairs = words.count(summaries['pairs'], 'pair')
    lines.append(
      f'source {source or "-"}: {pairs}, mean coverage '
      f'{summaries["mean coverage"]:.3f}, masks {ranges}'
    )
  for finding in report['findings']:
    title = 'WRONG' if finding['wrong'] else 'Note'
    lines.append(f'{title}: {finding["kind"]}: {finding["count"]:,}')
    lines += [f'  {item}' for item in finding['items'][:_SHOWN]]
    if finding['count'] > _SHOWN:
      lines.append(f'  and {finding["count"] - _SHOWN:,} more')
  verdict = 'Fit' if report['fit'] else 'Not fit'
  return '\n'.join([*lines, f'{verdict} to train on.'])


def save_report(report: JsonObject, path: Path) -> None:
  """Writes the report as JSON, atomically; names may be of any bytes."""
  # JSON escapes what is no character as Python does.
  files.write_text(path, json.dumps(report, indent=2, ensure_ascii=False))


def make_sheet(findings: Sequence[inspection.Finding]) -> Image.Image:
  """Returns pictures of suspicious pairs: photo, mask, and why."""
  share = max(1, _MOST_ON_SHEET // max(1, len(findings)))
  rows = []
  for finding in findings:
    for summary in finding.summaries[:share]:
      pair = summary.pair
      named = (finding.kind, pair.split, pair.source, pair.name)
      rows.append(
        [
          _open_for_sheet(pair.image_path),
          _open_for_sheet(pair.mask_path),
          sheets.draw_words(named, cell=_CELL),
        ]
      )
  if not rows:
    rows = [[sheets.draw_words(['Nothing suspicious.'], cell=_CELL)]]
  return sheets.make_sheet(rows, cell=_CELL, columns=2)


def _open_for_sheet(path: Path) -> Image.Image:
  try:
    image = images.open_image(path)
    with images.named(path):
      return images.to_rgb(image)
  except errors.UserError:
    return Image.new('RGB', (_CELL, _CELL), 'red')


def _find_unused(directory: Path, pairs: Sequence[records.Pair]) -> list[str]:
  """Returns images beside those of a Dataset.csv that it does not name."""
  if not any(e.name.lower() == 'dataset.csv' for e in directory.iterdir()):
    return []
  used = {path for p in pairs for path in (p.image_path, p.mask_path)}
  return sorted(
    str(file)
    for place in {path.parent for path in used}
    for file in place.iterdir()
    if images.is_image_file(file) and file not in used
  )


def _count(names) -> dict[str, int]:
  return dict(collections.Counter(names).most_common())


def main(argv: list[str]) -> None:
  """Checks the folder that the command line names."""
  if len(argv) != 2:
    raise app.UsageError('Pass one folder: python -m data_pipelines.check DIR')
  report, findings = check(
    Path(cli.expand_home(argv[1])),
    allow_empty=flags.FLAGS.allow_empty_masks,
    validation_share=flags.FLAGS.validation_share,
  )
  print(render_text(report))
  if flags.FLAGS.json:
    save_report(report, Path(flags.FLAGS.json))
  if flags.FLAGS.sheet:
    with files.write_atomically(flags.FLAGS.sheet) as partial:
      make_sheet(findings).save(partial, 'png')
  if not report['fit']:
    raise SystemExit(1)


if __name__ == '__main__':
  cli.define_file('json', '', 'File for the whole report.')
  cli.define_file('sheet', '', 'PNG file for pictures of suspicious pairs.')
  flags.DEFINE_bool('allow_empty_masks', False, 'Empty masks are meant so.')
  flags.DEFINE_float(
    'validation_share',
    0.2,
    'config.data.validation_share of the training.',
    lower_bound=0.001,
    upper_bound=0.999,
  )
  cli.run(main, __name__, takes_arguments=True)
