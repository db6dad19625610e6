r"""Times training steps, their compilation, and one of their layers.

```bash
python -m scripts.benchmarks.train --cases=step --shapes=2x256,1x512
python -m scripts.benchmarks.train --cases=step --sides=torch,jax \
  --shapes=64x512 --dtype=bfloat16    # on a GPU
python -m scripts.benchmarks.train --cases=compiling --networks=lite,small,full
python -m scripts.benchmarks.train --cases=exactness,depthwise
```

step: the original network (53.5 M parameters) here, in Keras, in PyTorch: Adam,
  binary cross-entropy over the four outputs, uint8 batches in the host's
  memory. Keras' step is a compiled `train_on_batch`; PyTorch's is compiled too,
  with channels last and autocast. Each side runs in a process of its own, so
  that the peak of its memory is its own.
exactness: the demo network for an epoch, twice with
  `--config.deterministic=True`: losses and metrics are the same.
compiling: a configuration's training step, and the prediction of one photo,
  and then the program's own time, which compiling less must not cost.
depthwise: EfficientNet-Lite0's layers at 192x192 here and in XLA, on a CPU:
  values and both gradients.

Needs requirements-dev.txt, or PyTorch.
"""

import functools
import importlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from rmbg_jax.training import logs
from scripts.benchmarks import common

# Side of the features, channels, side of the kernel, stride.
LAYERS = (
  (96, 32, 3, 1),
  (96, 96, 3, 2),
  (48, 144, 5, 2),
  (24, 240, 5, 1),
  (12, 480, 5, 1),
  (6, 1152, 5, 1),
)

# Of a training's log, what two must have the same.
_COMPARED = ('loss', 'val_loss', 'val_mae', 'val_iou', 'grad_norm')

_SHAPES = flags.DEFINE_list('shapes', ['2x256', '1x512'], 'BATCHxSIZE of step.')
_DTYPE = flags.DEFINE_enum(
  'dtype', 'float32', ['float32', 'bfloat16'], 'Of step.'
)
_NETWORKS = flags.DEFINE_list(
  'networks', ['lite', 'small', 'full'], 'Names of files in configs/.'
)
_BATCH = flags.DEFINE_integer('batch', 4, 'Images of compiling and depthwise.')


def make_batch(batch: int, size: int) -> dict[str, np.ndarray]:
  """Returns random images and masks."""
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (batch, size, size, 4), np.uint8)
  return {
    'image': pixels[..., :3],
    'alpha': pixels[..., 3:],
    'weight': np.ones(batch, np.float32),
  }


def make_training(
  config: Any,  # A ConfigDict, which only this case needs.
  size: int,
) -> tuple[Any, Callable[..., tuple], list]:
  """Returns components, a step and its arguments: state, batch and rate."""
  from rmbg_jax.training import setup, state

  batch = config.data.batch_size
  with config.unlocked():
    config.data.update({'name': 'demo', 'loader': 'grain', 'threads': 1})
    config.data.update({'buffer': 1, 'size': (size, size)})
    config.data.demo.count = 2 * batch
    config.model.encoder.weights = ''
  config.model.remat, config.optimizer.accumulation = False, 1
  mesh = state.make_mesh()
  with tempfile.TemporaryDirectory() as folder:
    config.data.dir = folder
    components = setup.make_components(config)
    arguments = [
      setup.create_train_state(config, components, mesh, resumed=False),
      state.put_batch(make_batch(batch, size), mesh),
      state.put_scalar(1e-6, mesh),
    ]
  return components, setup.make_train_step(config, components), arguments


def make_jax_step(batch: int, size: int, dtype: str) -> Callable[[], float]:
  """Returns a function that takes a step and returns its loss."""
  from configs import default
  from rmbg_jax import runtime
  from rmbg_jax.training import state
  from rmbg_jax.training import step as step_lib

  runtime.return_memory_after_compiling()  # As every command does.
  config = default.get_config()
  config.model.dtype = dtype
  config.data.update(normalization='original', batch_size=batch)
  _, step, (train_state, _, rate) = make_training(config, size)
  data, mesh = make_batch(batch, size), state.make_mesh()

  def take_step():
    nonlocal train_state
    train_state, metrics = step(train_state, state.put_batch(data, mesh), rate)
    return step_lib.read_metrics(metrics)['loss']

  return take_step


def make_keras_step(batch: int, size: int, dtype: str) -> Callable[[], float]:
  """Returns a function that takes a step and returns its loss."""
  import keras

  from scripts.references import keras_network

  if dtype == 'bfloat16':
    keras.mixed_precision.set_global_policy('mixed_bfloat16')
  model = keras_network.build_original(keras, size=(size, size))
  model.compile(keras.optimizers.Adam(1e-6), 'binary_crossentropy')
  data = make_batch(batch, size)

  def take_step():
    images = data['image'][..., ::-1].astype(np.float32) / 255
    alpha = np.repeat(data['alpha'].astype(np.float32) / 255, 4, axis=-1)
    return float(model.train_on_batch(images, alpha))

  return take_step


def make_torch_step(batch: int, size: int, dtype: str) -> Callable[[], float]:
  """Returns a function that takes a step and returns its loss."""
  os.environ['JAX_PLATFORMS'] = 'cpu'  # It only makes the weights.
  import torch
  from torch.nn import functional

  from rmbg_jax import models
  from rmbg_jax.models import graph
  from rmbg_jax.training import state
  from scripts.references import torch_network

  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  torch.backends.cudnn.benchmark = True
  model = models.create_model({'name': 'unet'})
  network = torch_network.Network(
    graph.Graph(model.network, size=(size, size)),
    state.create_variables(model, seed=0),
  ).to(device, memory_format=torch.channels_last)
  optimizer = torch.optim.Adam(network.parameters(), 1e-6, fused=True)
  data = make_batch(batch, size)

  @torch.compile
  def compute_loss(images, alpha):
    images = images.permute(0, 3, 1, 2).flip(1).float() / 255
    alpha = alpha.permute(0, 3, 1, 2).float() / 255
    with torch.autocast(device, torch.bfloat16, enabled=dtype == 'bfloat16'):
      outputs = network(images)
    return sum(
      functional.binary_cross_entropy_with_logits(logits.float(), alpha)
      for logits in outputs
    ) / len(outputs)

  def take_step():
    images, alpha = (
      torch.from_numpy(data[key]).to(device) for key in ('image', 'alpha')
    )
    optimizer.zero_grad()
    loss = compute_loss(images, alpha)
    loss.backward()
    optimizer.step()
    return loss.item()

  return take_step


def read_peak_mb(side: str) -> float:
  """Returns the device's peak memory, or on a CPU the process'."""
  if side == 'torch':
    import torch

    if torch.cuda.is_available():
      return torch.cuda.max_memory_allocated() / 2**20
  if side == 'jax':
    import jax

    if stats := jax.local_devices()[0].memory_stats():
      return stats['peak_bytes_in_use'] / 2**20
  return common.read_peak_mb()


SIDES = {
  'keras': make_keras_step,
  'torch': make_torch_step,
  'jax': make_jax_step,
}
_SIDES = flags.DEFINE_list('sides', ['keras', 'jax'], ', '.join(SIDES))


def measure_side(
  side: str, batch: int, size: int, dtype: str, repeats: int
) -> tuple[float, float]:
  """Returns the median seconds of a step, and this process' peak memory."""
  take_step = SIDES[side](batch, size, dtype)
  for _ in range(2):  # The first one compiles.
    take_step()
  seconds = [common.time_call(take_step)[0] for _ in range(repeats)]
  return statistics.median(seconds), read_peak_mb(side)


def measure_step(_: Path) -> None:
  """Prints the sides of each shape, as a share of the first one too."""
  for shape in _SHAPES.value:
    batch, size = map(int, shape.split('x'))
    common.print_head(
      *(f'{shape}, {_DTYPE.value}', 's a step', 'of the first one'),
      *('images/s', 'peak MB', 'of the first one'),
    )
    first = None
    for side in _SIDES.value:
      seconds, peak = common.call_apart(
        *(measure_side, side, batch, size, _DTYPE.value, flags.FLAGS.repeats)
      )
      first = first or (seconds, peak)
      common.print_row(
        *(side, seconds, seconds / first[0], batch / seconds),
        *(peak, peak / first[1]),
      )


def measure_exactness(folder: Path) -> None:
  """Prints what differs between two trainings."""
  rows = []
  for run in ('first', 'second'):
    common.run_python(
      *('-m', 'rmbg_jax.main', '--config=demo', f'--workdir={folder / run}'),
      *('--config.data.loader=device', '--config.data.augment.jpeg=0'),
      *('--config.deterministic=True', '--config.train.epochs=1'),
      f'--config.data.dir={folder / "demo"}',
    )
    rows.append(logs.read_log(folder / run)[-1])
  unequal = [key for key in _COMPARED if rows[0][key] != rows[1][key]]
  print(f'Different in the second training: {", ".join(unequal) or "nothing"}')


def time_programs(network: str, batch: int) -> dict[str, tuple]:
  """Returns seconds of the processor to compile two programs, and of a call."""
  os.environ['JAX_ENABLE_COMPILATION_CACHE'] = 'false'
  import jax
  from jax import numpy as jnp

  from rmbg_jax.models import compiling as compiling_lib

  config = importlib.import_module(f'configs.{network}').get_config()
  config.data.batch_size = batch
  components, step, arguments = make_training(config, config.data.size[0])
  predict = jax.jit(
    lambda variables, images: components.model.apply(
      variables, components.preprocessing.normalize(images)
    )[-1],
    compiler_options=compiling_lib.make_options(),
  )

  def time_program(jitted, *arguments):
    began = time.process_time()
    program = jitted.lower(*arguments).compile()
    compiling, calls = time.process_time() - began, []
    for _ in range(3):
      # A step takes its state's memory over.
      copy = jax.block_until_ready(jax.tree.map(jnp.copy, arguments))
      began = time.perf_counter()
      jax.block_until_ready(program(*copy))
      calls.append(time.perf_counter() - began)
    return compiling, min(calls)

  images = make_batch(1, config.data.size[0])['image']
  variables = jax.device_get(arguments[0].eval_variables)
  return {
    'training step': time_program(step, *arguments),
    'prediction': time_program(predict, variables, images),
  }


def measure_compiling(_: Path) -> None:
  """Prints both programs of each network, from a process of its own."""
  common.print_head('', 'to compile, s of processor', 'once compiled, s')
  for network in _NETWORKS.value:
    programs = common.call_apart(time_programs, network, _BATCH.value)
    for name, seconds in programs.items():
      common.print_row(f'`{network}`, {name}', *seconds)


def measure_depthwise(_: Path) -> None:
  """Prints both sides of each layer."""
  import jax

  from rmbg_jax.models import depthwise

  def compute_all(convolve, stride, x, kernel):
    y, pull = jax.vjp(
      lambda x, kernel: convolve(
        *(x, kernel, (stride, stride), 'SAME'),
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        feature_group_count=x.shape[-1],
      ),
      *(x, kernel),
    )
    return y, pull(y)

  compute_all = jax.jit(compute_all, static_argnums=(0, 1))
  for side, channels, size, stride in LAYERS:
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (_BATCH.value, side, side, channels))
    kernel = jax.random.normal(keys[1], (size, size, 1, channels))

    def run(convolve, arguments=(stride, x, kernel)):
      jax.block_until_ready(compute_all(convolve, *arguments))

    common.compare(
      f'{side}x{side}x{channels}, {size}x{size}, {stride}',
      {
        "XLA's own": functools.partial(run, jax.lax.conv_general_dilated),
        'here': functools.partial(run, depthwise.convolve),
      },
    )


if __name__ == '__main__':
  common.run(
    {
      'step': measure_step,
      'exactness': measure_exactness,
      'compiling': measure_compiling,
      'depthwise': measure_depthwise,
    }
  )
