r"""Chooses a checkpoint's temperature on photos with masks.

```bash
python -m rmbg_jax.calibrate --checkpoint=runs/lite --data=DIR \
  --output=lite.safetensors
```

It prints MAE, S and the share of unsure pixels at each temperature. `--output`
is a release that asks for the chosen one by itself; elsewhere, pass it as
`--temperature`. Needs the extra `eval`.
"""

from pathlib import Path

from absl import app, flags

from data_pipelines import cli
from data_pipelines.io import errors, files, words


def main() -> None:
  """Prints the table, writes the release; exits with 1 if files were bad."""
  values = flags.FLAGS
  if not values.data:
    raise app.UsageError('--data is missing. Pass photos with masks.')
  output = Path(values.output) if values.output else None
  errors.check_extra('eval', 'Calibration needs more', 'py_sod_metrics')
  from rmbg_jax import export
  from rmbg_jax.evaluation import benchmarks, calibration, predictions
  from rmbg_jax.inference import remover as remover_lib
  from rmbg_jax.inference import runtimes
  from rmbg_jax.weights import load

  # Both before the photos, which take minutes.
  if output:
    export.check_request(output)
    files.check_folder(output.parent, 'output')
  data_sets = [
    data_set
    for directory in values.data
    for data_set in benchmarks.load_data_sets(directory, splits=values.split)
  ]
  runtimes.start_process('auto')
  loaded = load.load_model(values.checkpoint)
  if output:
    load.check_own(loaded)
  facts = predictions.describe_checkpoint(values.checkpoint, loaded)
  for data_set in data_sets:
    known = benchmarks.find_trained_on(data_set, facts['training_data'] or ())
    if known:
      print(
        f'Trained on {", ".join(known)} of {data_set.name}, where a network is '
        'surer than elsewhere. Pass photos that it has not seen.'
      )
  remover = remover_lib.BackgroundRemover(loaded)
  table, problems = calibration.measure(remover, data_sets)
  for problem in problems[:20]:
    print(f'Left out: {problem}')
  if not table:
    raise errors.UserError(
      f'--data={",".join(values.data)}: no photo is left whose mask has any '
      'foreground.'
    )
  chosen = calibration.choose(table)
  print(calibration.format_table(table, chosen))
  print(f'Chosen: --temperature={chosen}')
  if output:
    export.save_export(output, loaded.with_temperature(chosen))
    print(f'{output} asks for it.')
  if problems:
    print(f'{words.count(len(problems), "file")} left out in all.')
    raise SystemExit(1)


def run() -> None:
  """Runs the command line."""
  cli.define_path(
    'checkpoint',
    'released',
    'What `predict` takes as --checkpoint.',
    urls=('hf',),
  )
  cli.define_paths(
    'data', [], 'Folders of photos and masks that it was not trained on.'
  )
  flags.DEFINE_list(
    'split', [], 'Rows to measure on, such as val; default: all but train.'
  )
  cli.define_file('output', '', 'The .safetensors release to write.')
  cli.run(main, __name__)


if __name__ == '__main__':
  run()
