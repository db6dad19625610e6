r"""Times what a first training step and a first prediction compile.

```bash
python -m scripts.benchmarks.compiling --networks=lite,small,full
```

Each network has a process of its own, with no compiled program kept: the step
of its configuration, and the prediction of one photo at the size of its input.
Seconds are the clock's; those of the processor beside them say more on a busy
machine. The step's own time is printed too: compiling less must not cost it.
"""

import importlib
import json
import time
from typing import Any

import numpy as np
from absl import flags

from data_pipelines import cli
from scripts.benchmarks import common

_NETWORKS = flags.DEFINE_list(
  'networks', ['lite', 'small', 'full'], 'Names of files in configs/.'
)
_BATCH = flags.DEFINE_integer('batch', 4, 'Images of a training step.')
_NETWORK = flags.DEFINE_string('network', None, 'Measure one, here.')


def time_compilation(
  jitted: Any,  # JAX has no public name for its class.
  arguments: tuple,
) -> tuple[Any, dict]:
  """Returns the compiled function, and the seconds of making it.

  Args:
    jitted: What `jax.jit` returned.
    arguments: Its arguments.
  """
  clock, busy = time.perf_counter(), time.process_time()
  compiled = jitted.lower(*arguments).compile()
  return compiled, {
    'clock': time.perf_counter() - clock,
    'processor': time.process_time() - busy,
  }


def measure(network: str, batch: int) -> dict[str, dict[str, float]]:
  """Returns the seconds of compiling a configuration's programs, in parts."""
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
  train_state = state.create_train_state(
    variables, optimizer, mesh, use_ema=config.optimizer.ema_decay > 0
  )
  step = step_lib.make_train_step(
    model,
    optimizer,
    preprocessing,
    loss_weights=dict(config.loss.weights),
    output_weights=tuple(config.loss.outputs),
    ema_decay=config.optimizer.ema_decay,
  )
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (batch, *size, 3), np.uint8)
  inputs = {
    'image': images,
    'alpha': images[..., :1],
    'weight': np.ones(batch, np.float32),
  }
  rate = state.put_scalar(1e-6, mesh)
  placed = state.put_batch(inputs, mesh)
  compiled, training = time_compilation(step, (train_state, placed, rate))
  seconds = []
  for _ in range(3):
    began = time.perf_counter()
    train_state, metrics = compiled(train_state, placed, rate)
    jax.block_until_ready(metrics)
    seconds.append(time.perf_counter() - began)
  training['once compiled'] = min(seconds)

  variables = jax.device_get(variables)
  predict = jax.jit(
    lambda variables, images: model.apply(
      variables, preprocessing.normalize(images)
    )[-1],
    compiler_options=compiling.make_options(),
  )
  compiled, prediction = time_compilation(predict, (variables, images[:1]))
  prediction['once compiled'] = min(
    common.time_call(
      lambda: jax.block_until_ready(compiled(variables, images[:1]))
    )
    for _ in range(6)
  )
  return {'training step': training, 'prediction': prediction}


def main(argv: list[str]) -> None:
  """Prints the table."""
  common.begin(argv)
  if _NETWORK.value:
    print(json.dumps(measure(_NETWORK.value, _BATCH.value)))
    return
  print('| | to compile, s | of processor | once compiled, s |')
  print('|---|---:|---:|---:|')
  for network in _NETWORKS.value:
    process = common.run_side(
      __spec__.name,
      f'--network={network}',
      f'--batch={_BATCH.value}',
      environment={'JAX_ENABLE_COMPILATION_CACHE': 'false'},
    )
    for part, seconds in common.read_result(process).items():
      clock, processor, call = seconds.values()
      print(
        f'| `{network}`, {part} | {clock:.1f} | {processor:.1f} | {call:.3f} |',
        flush=True,
      )


if __name__ == '__main__':
  cli.run(main, __name__)
