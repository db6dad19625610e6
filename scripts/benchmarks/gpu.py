"""Measures all that needs a GPU, one benchmark after the other.

```bash
python -m scripts.benchmarks.gpu | tee gpu.md
```
"""

from data_pipelines import cli
from scripts.benchmarks import common

# The most important first: what was printed stays, whatever ends the run.
COMMANDS = (
  'train --cases=step --sides=torch,jax --shapes=64x512 --dtype=bfloat16',
  'train --cases=exactness',
  'predict --cases=devices,released',
  'data --sides=loader,augmented',
)


def main() -> None:
  """Prints what each benchmark prints, or why it failed."""
  for command in COMMANDS:
    print(f'\n## {command}\n', flush=True)
    name, *flags = command.split()
    try:
      print(common.run_python('-m', f'scripts.benchmarks.{name}', *flags))
    except SystemExit as error:
      print(f'failed: {error}', flush=True)


if __name__ == '__main__':
  cli.run(main, __name__)
