"""Times depthwise convolution and its gradients here and in XLA, on a CPU.

```bash
python -m scripts.benchmarks.depthwise --batch=8
```

The layers are EfficientNet-Lite0's at 192x192. The two take turns, call by
call. Printed are the medians in milliseconds.
"""

import functools
from collections.abc import Callable

import jax
from absl import flags

from data_pipelines import cli
from rmbg_jax.models import depthwise
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
_BATCH = flags.DEFINE_integer('batch', 8, 'Images at once.')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'Timed calls of each.')


def make_calls(
  convolve: Callable[..., jax.Array],
  x: jax.Array,
  kernel: jax.Array,
  **options: object,
) -> dict[str, Callable[[], object]]:
  """Returns functions that compute the values, and them and the gradients."""

  def apply(x, kernel):
    return convolve(x, kernel, **options)

  def compute_all(x, kernel):
    y, pull = jax.vjp(apply, x, kernel)
    return y, pull(y)

  return {
    name: functools.partial(
      lambda call: jax.block_until_ready(call(x, kernel)), jax.jit(function)
    )
    for name, function in (('values', apply), ('gradients', compute_all))
  }


def _convolve_here(x, kernel, *, window_strides, padding, **options):
  return depthwise.convolve(x, kernel, window_strides, padding, **options)


def main(argv: list[str]) -> None:
  """Prints a line for each layer."""
  common.begin(argv)
  print(jax.devices()[0])
  for side, channels, size, stride in LAYERS:
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (_BATCH.value, side, side, channels))
    kernel = jax.random.normal(keys[1], (size, size, 1, channels))
    options = {
      'window_strides': (stride, stride),
      'padding': 'SAME',
      'dimension_numbers': ('NHWC', 'HWIO', 'NHWC'),
      'feature_group_count': channels,
    }
    sides = [
      make_calls(convolve, x, kernel, **options)
      for convolve in (_convolve_here, jax.lax.conv_general_dilated)
    ]
    results = []
    for name in sides[0]:
      seconds = common.time_in_turn(
        {'here': sides[0][name], 'XLA': sides[1][name]}, _REPEATS.value
      )
      ours, theirs = (1000 * value for value in seconds.values())
      results.append(
        f'{name} {ours:.1f} ms here, {theirs:.1f} ms in XLA, ratio '
        f'{ours / theirs:.2f}'
      )
    print(
      f'{side}x{side}x{channels}, {size}x{size} stride {stride}: '
      + '; '.join(results),
      flush=True,
    )


if __name__ == '__main__':
  cli.run(main, __name__)
