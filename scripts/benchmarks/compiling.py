"""Times the compilation of a training step and of a prediction.

```bash
python -m scripts.benchmarks.compiling --networks=lite,small,full
```

Each network has a process of its own, with no compiled program kept: the step
of its configuration, and the prediction of one photo at the size of its input.
The step's own time is printed too: compiling less must not cost it.
"""

import importlib
from pathlib import Path

from absl import flags

from scripts.benchmarks import common

_NETWORKS = flags.DEFINE_list(
  'networks', ['lite', 'small', 'full'], 'Names of files in configs/.'
)
_BATCH = flags.DEFINE_integer('batch', 4, 'Images of a training step.')


def time_programs(network: str, batch: int, folder: str) -> dict[str, list]:
  """Returns what a configuration's two programs take.

  That is, in seconds: compiling, by clock and processor, and a call.
  """
  import jax

  from rmbg_jax.models import compiling

  config = importlib.import_module(f'configs.{network}').get_config()
  config.data.batch_size = batch
  components, step, arguments = common.make_training(config, folder)
  train_state, inputs, _ = arguments
  predict = jax.jit(
    lambda variables, images: components.model.apply(
      variables, components.preprocessing.normalize(images)
    )[-1],
    compiler_options=compiling.make_options(),
  )

  def time_program(jitted, *arguments):
    compiled = None

    def compile_program():
      nonlocal compiled
      compiled = jitted.lower(*arguments).compile()

    seconds = common.time_call(compile_program)
    calls = []
    for _ in range(3):
      # A step takes its state's memory over.
      copy = jax.tree.map(lambda x: x + 0, arguments)
      jax.block_until_ready(copy)
      calls.append(
        common.time_call(
          lambda copy=copy: jax.block_until_ready(compiled(*copy))
        )
      )
    return [*seconds, min(calls).clock]

  return {
    'training step': time_program(step, *arguments),
    'prediction': time_program(
      predict,
      *jax.device_get((train_state.eval_variables, inputs['image'][:1])),
    ),
  }


def measure(folder: Path) -> None:
  """Prints the table."""
  common.print_head('', 'to compile, s', 'of processor', 'once compiled, s')
  for network in _NETWORKS.value:
    parts = common.call_apart(
      time_programs,
      network,
      _BATCH.value,
      folder / network,
      environment={'JAX_ENABLE_COMPILATION_CACHE': 'false'},
    )
    for part, seconds in parts.items():
      common.print_row(
        f'`{network}`, {part}', *(f'{value:.3f}' for value in seconds)
      )


if __name__ == '__main__':
  common.run(measure)
