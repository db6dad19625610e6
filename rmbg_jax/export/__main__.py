"""Writes a trained network in another format, by the ending of the output.

```bash
python -m rmbg_jax.export --checkpoint=runs/lite --output=lite.onnx
```

.safetensors: for this project, half the size. .onnx: for onnxruntime.
.stablehlo: for JAX without this project. .h5: for Keras, its own project
included. docs/export.md says how to use each.
"""

from pathlib import Path

from absl import flags

from data_pipelines import cli
from data_pipelines.io import files


def main() -> None:
  """Writes the file."""
  from rmbg_jax import export, runtime
  from rmbg_jax.weights import load

  runtime.start()
  values = flags.FLAGS
  output = Path(values.output)
  export.check_request(output, dtype=values.dtype)
  files.check_folder(output.parent, 'output')
  loaded = load.load_model(values.checkpoint)
  export.save_export(output, loaded, dtype=values.dtype)
  print(f'{output}: {output.stat().st_size / 1e6:.1f} MB')


def run() -> None:
  """Runs the command; `rmbg-export` is this."""
  # Here, since `predict` has some of these names as well.
  cli.define_path(
    'checkpoint', 'released', 'What `predict` takes.', urls=('hf',)
  )
  cli.define_file('output', None, 'The file to write.', required=True)
  flags.DEFINE_enum(
    'dtype',
    None,
    ['float16', 'float32'],
    'Of the parameters in a .safetensors (float16 by default); the other '
    'formats hold float32.',
  )
  cli.run(main, __name__)


if __name__ == '__main__':
  run()
