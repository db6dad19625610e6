"""Says whether a data set is fit to train on.

```bash
python -m data_pipelines.check DIR --json=report.json --sheet=suspicious.png
```

The exit code is 1 where training on it would be wrong.
"""

from pathlib import Path

from absl import app, flags

from data_pipelines import cli
from data_pipelines.io import files
from data_pipelines.tools import check as check_lib


def main(argv: list[str]) -> None:
  """Checks the folder that the command line names."""
  if len(argv) != 2:
    raise app.UsageError('Pass one folder: python -m data_pipelines.check DIR')
  report, findings = check_lib.check(
    Path(cli.expand_home(argv[1])),
    allow_empty=flags.FLAGS.allow_empty_masks,
    validation_share=flags.FLAGS.validation_share,
  )
  print(check_lib.render_text(report))
  if flags.FLAGS.json:
    check_lib.save_report(report, Path(flags.FLAGS.json))
  if flags.FLAGS.sheet:
    with files.write_atomically(flags.FLAGS.sheet) as partial:
      check_lib.make_sheet(findings).save(partial, 'png')
  if not report['fit']:
    raise SystemExit(1)


def _define_flags() -> None:
  cli.define_path('json', '', 'File for the whole report.')
  cli.define_path('sheet', '', 'PNG file for pictures of suspicious pairs.')
  flags.DEFINE_bool('allow_empty_masks', False, 'Empty masks are meant so.')
  flags.DEFINE_float(
    'validation_share', 0.2, 'config.data.validation_share of the training.'
  )


if __name__ == '__main__':
  _define_flags()
  cli.run(main, __name__, takes_arguments=True)
