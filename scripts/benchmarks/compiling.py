r"""Times the compilation of a training step and of a prediction.

```bash
python -m scripts.benchmarks.compiling --networks=lite,small,full
```

Each network has a process of its own, with no compiled program kept: the step
of its configuration, and the prediction of one photo at the size of its input.
Seconds are the clock's; those of the processor beside them say more on a busy
machine. The step's own time is printed too: compiling less must not cost it.
"""

import importlib
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from scripts.benchmarks import common

_NETWORKS = flags.DEFINE_list(
  'networks', ['lite', 'small', 'full'], 'Names of files in configs/.'
)
_BATCH = flags.DEFINE_integer('batch', 4, 'Images of a training step.')


def time_program(
  jitted: Any,  # JAX has no public name for its class.
  arguments: tuple,
) -> tuple[float, float, float]:
  """Returns the seconds of compiling, by clock and processor, and of a call."""
  import jax

  clock, busy = time.perf_counter(), time.process_time()
  compiled = jitted.lower(*arguments).compile()
  clock, busy = time.perf_counter() - clock, time.process_time() - busy
  calls = []
  for _ in range(3):
    # A step takes its state's memory over.
    copy = jax.tree.map(lambda x: x + 0, arguments)
    jax.block_until_ready(copy)
    calls.append(
      common.time_call(lambda copy=copy: jax.block_until_ready(compiled(*copy)))
    )
  return clock, busy, min(calls)


def measure(network: str, batch: int) -> dict[str, tuple]:
  """Returns `time_program` of a configuration's two programs."""
  import jax

  from rmbg_jax.models import compiling
  from rmbg_jax.models.preprocessing import make_preprocessing
  from rmbg_jax.training import optimizers, setup, state
  from rmbg_jax.training import step as step_lib

  config = importlib.import_module(f'configs.{network}').get_config()
  config.model.remat, config.optimizer.accumulation = False, 1
  _, model = setup.create_model(config.model)
  size = tuple(config.data.size)
  efficient = config.model.encoder.get('name', '').startswith('efficientnet')
  preprocessing = make_preprocessing(
    'efficientnet' if efficient else 'keras', size=size
  )
  optimizer = optimizers.make_optimizer(
    weight_decay=config.optimizer.weight_decay,
    clip_norm=config.optimizer.clip_norm,
    encoder_rate=config.optimizer.encoder_rate,
  )
  mesh = state.make_mesh()
  variables = state.create_variables(model, seed=0, size=(64, 64))
  step = step_lib.make_train_step(
    model,
    optimizer,
    preprocessing,
    loss_weights=dict(config.loss.weights),
    output_weights=tuple(config.loss.outputs),
    ema_decay=config.optimizer.ema_decay,
  )
  images = np.random.default_rng(0).integers(
    0, 256, (batch, *size, 3), np.uint8
  )
  inputs = {
    'image': images,
    'alpha': images[..., :1],
    'weight': np.ones(batch, np.float32),
  }
  training = (
    state.create_train_state(
      variables, optimizer, mesh, use_ema=config.optimizer.ema_decay > 0
    ),
    state.put_batch(inputs, mesh),
    state.put_scalar(1e-6, mesh),
  )
  predict = jax.jit(
    lambda variables, images: model.apply(
      variables, preprocessing.normalize(images)
    )[-1],
    compiler_options=compiling.make_options(),
  )
  return {
    'training step': time_program(step, training),
    'prediction': time_program(
      predict, (jax.device_get(variables), images[:1])
    ),
  }


def measure_all(folder: Path) -> None:
  """Prints the table."""
  del folder
  common.print_head('', 'to compile, s', 'of processor', 'once compiled, s')
  for network in _NETWORKS.value:
    parts = common.call_apart(
      measure,
      network,
      _BATCH.value,
      environment={'JAX_ENABLE_COMPILATION_CACHE': 'false'},
    )
    for part, (clock, processor, call) in parts.items():
      common.print_row(
        f'`{network}`, {part}',
        f'{clock:.1f}',
        f'{processor:.1f}',
        f'{call:.3f}',
      )


if __name__ == '__main__':
  common.run(measure_all)
