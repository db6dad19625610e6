"""Turns a training's best checkpoint into one `.safetensors` release file.

```bash
python scripts/export_release.py --checkpoint=runs/lite --output=l.safetensors
```
"""

import sys
from pathlib import Path

from absl import app, flags

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

_CHECKPOINT = flags.DEFINE_string(
  'checkpoint', None, 'What `load_model` loads.', required=True
)
_OUTPUT = flags.DEFINE_string(
  'output', None, 'The .safetensors file to write.', required=True
)
_DTYPE = flags.DEFINE_enum(
  'dtype', 'float16', ['float16', 'float32'], 'Of the stored parameters.'
)


def main(argv: list[str]) -> None:
  """Writes the release file."""
  del argv
  from rmbg_jax.pretrained import load, release

  output = Path(_OUTPUT.value)
  if output.suffix != '.safetensors':
    raise app.UsageError(f'--output={output} must end in .safetensors.')
  try:
    loaded = load.load_model(_CHECKPOINT.value)
  except (FileNotFoundError, ValueError) as error:
    raise SystemExit(f'Error: {error}') from error
  description = {
    **loaded.description,
    'preprocessing': loaded.preprocessing.to_dict(),
  }
  # Of use to the training alone, on the machine that it ran on.
  description.pop('position', None)
  if 'config' in description:
    description['config']['data'].pop('dir')
  release.save_release(
    output, loaded.variables, description, dtype=_DTYPE.value
  )
  print(f'{output}: {output.stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
  app.run(main)
