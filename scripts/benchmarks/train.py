r"""Times a training step of the original network here, in Keras and PyTorch.

```bash
python -m scripts.benchmarks.train --cases=2x256,1x512
python -m scripts.benchmarks.train --sides=jax,torch --dtype=bfloat16 \
  --cases=64x512,48x512,32x512 --steps=20   # on a GPU
```

Needs requirements-dev.txt, or PyTorch. Each side runs in a process of its own,
so that the peak of its memory is its own. All take the same network (53.5 M
parameters), Adam, and binary cross-entropy over the four outputs, from uint8
batches in the host's memory; Keras' step is a compiled `train_on_batch`,
PyTorch's is compiled too, with channels last and autocast. Printed are the
medians, and the model FLOP utilisation: three times the forward pass' products
against the rate that a product of large matrices reaches on the same device.
"""

import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import flags

from scripts.benchmarks import common

_MATRIX = 8192  # Rows and columns; smaller on a CPU.

_CASES = flags.DEFINE_list('cases', ['2x256', '1x512'], 'BATCHxSIZE each.')
_STEPS = flags.DEFINE_integer('steps', 5, 'Timed steps of each.')
_DTYPE = flags.DEFINE_enum(
  'dtype', 'float32', ['float32', 'bfloat16'], 'Of the computation.'
)


def make_batch(batch: int, size: int) -> dict[str, np.ndarray]:
  """Returns random images and masks."""
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (batch, size, size, 4), np.uint8)
  return {
    'image': pixels[..., :3],
    'alpha': pixels[..., 3:],
    'weight': np.ones(batch, np.float32),
  }


def make_jax_step(batch: int, size: int, dtype: str) -> Callable[[], float]:
  """Returns a function that takes a step and returns its loss."""
  from configs import default
  from rmbg_jax import runtime
  from rmbg_jax.training import state
  from rmbg_jax.training import step as step_lib

  runtime.return_memory_after_compiling()  # As every command does.
  config = default.get_config()
  config.model.dtype = dtype
  config.data.update(
    normalization='original', size=(size, size), batch_size=batch
  )
  with tempfile.TemporaryDirectory() as folder:
    _, step, arguments = common.make_training(config, folder)
  train_state, _, learning_rate = arguments
  mesh = state.make_mesh()
  data = make_batch(batch, size)

  def take_step():
    nonlocal train_state
    train_state, metrics = step(
      train_state, state.put_batch(data, mesh), learning_rate
    )
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
    state.create_variables(model, seed=0, size=(64, 64)),
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


def count_flops(size: int) -> int:
  """Returns the products and sums of an image's forward pass."""
  import jax

  from rmbg_jax import models
  from rmbg_jax.models import graph as graph_lib

  model = models.create_model({'name': 'unet'})
  params = jax.eval_shape(
    lambda: model.init(jax.random.key(0), np.zeros((1, 64, 64, 3)))
  )['params']
  flops = 0
  for node in graph_lib.Graph(model.network, size=(size, size)).nodes.values():
    if node.op == 'conv':
      kernel = params
      for name in (*node.name.split('/'), 'kernel'):
        kernel = kernel[name]
      flops += 2 * math.prod(node.shape[:2]) * math.prod(kernel.shape)
  return flops


def measure_matrix_rate(dtype: str) -> float:
  """Returns the FLOP/s of a product of two large square matrices."""
  import jax

  on_cpu = jax.default_backend() == 'cpu'
  side = 1024 if on_cpu else _MATRIX
  # Random, and of size 1 all the way: zeros would be multiplied faster.
  x = jax.random.normal(jax.random.key(0), (side, side), dtype)

  @jax.jit
  def multiply(x):
    product = x
    for _ in range(10):  # One after the other, so that none is left out.
      product = product @ x * side**-0.5
    return product

  calls = [
    common.time_call(lambda: multiply(x).block_until_ready()) for _ in range(6)
  ]
  return 10 * 2 * side**3 / min(calls).clock


def read_peak_mb(side: str) -> float:
  """Returns the device's peak memory, or on a CPU the process'."""
  if side == 'torch':
    import torch

    if torch.cuda.is_available():
      return torch.cuda.max_memory_allocated() / 2**20
  if side == 'jax':
    import jax

    stats = jax.local_devices()[0].memory_stats() or {}
    if 'peak_bytes_in_use' in stats:
      return stats['peak_bytes_in_use'] / 2**20
  return common.read_peak_mb()


SIDES = {
  'jax': make_jax_step,
  'keras': make_keras_step,
  'torch': make_torch_step,
}
_SIDES = flags.DEFINE_list('sides', ['jax', 'keras'], ', '.join(SIDES))


def measure_side(
  side: str, batch: int, size: int, dtype: str, steps: int
) -> dict[str, float]:
  """Returns seconds per step and peak memory of this process."""
  began = time.perf_counter()
  take_step = SIDES[side](batch, size, dtype)
  take_step()
  first = time.perf_counter() - began
  take_step()
  seconds = [common.time_call(take_step).clock for _ in range(steps)]
  result = {
    'median': statistics.median(seconds),
    'fastest': min(seconds),
    'first': first,
    'peak_mb': read_peak_mb(side),
  }
  if side == 'jax':
    flops = 3 * batch * count_flops(size)
    result['rate'] = measure_matrix_rate(dtype)
    result['utilisation'] = flops / result['median'] / result['rate']
  return result


def measure_case(case: str) -> None:
  """Prints a case's sides, and the first one's ratios."""
  batch, size = map(int, case.split('x'))
  results = {}
  for side in common.choose(_SIDES, SIDES):
    try:
      results[side] = result = common.call_apart(
        measure_side, side, batch, size, _DTYPE.value, _STEPS.value
      )
    except SystemExit as error:
      reason = (str(error).strip() or 'no message').splitlines()[-1]
      print(f'{case} {side:6} failed: {reason[:300]}', flush=True)
      continue
    print(
      f'{case} {side:6} {result["median"]:8.3f} s/step (fastest '
      f'{result["fastest"]:.3f}, first {result["first"]:.1f}), '
      f'{batch / result["median"]:.1f} images/s, peak '
      f'{result["peak_mb"]:.0f} MB',
      flush=True,
    )
    if 'rate' in result:
      print(
        f'{case} {side:6} {100 * result["utilisation"]:.1f} % of the '
        f'{result["rate"] / 1e12:.2f} TFLOP/s of a matrix product'
      )
  first = _SIDES.value[0]
  ours = results.pop(first, None)
  for side, theirs in results.items() if ours else ():
    print(
      f'{case} {first} / {side}: '
      f'{ours["median"] / theirs["median"]:.2f} of the time, '
      f'{ours["peak_mb"] / theirs["peak_mb"]:.2f} of the memory',
      flush=True,
    )


def measure(folder: Path) -> None:
  """Prints each case."""
  del folder
  print(_DTYPE.value)
  for case in _CASES.value:
    measure_case(case)


if __name__ == '__main__':
  common.run(measure)
