"""Times depthwise convolution and its gradients here and in XLA, on a CPU.

```bash
python -m scripts.benchmarks.depthwise --batch=8
```

The layers are EfficientNet-Lite0's at 192x192. The two take turns, call by
call. Printed are the medians of values and both gradients.
"""

from pathlib import Path

import jax
from absl import flags

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


def _make_call(convolve, x, kernel, stride):
  @jax.jit
  def compute_all(x, kernel):
    y, pull = jax.vjp(
      lambda x, kernel: convolve(
        x,
        kernel,
        (stride, stride),
        'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        feature_group_count=x.shape[-1],
      ),
      x,
      kernel,
    )
    return y, pull(y)

  return lambda: jax.block_until_ready(compute_all(x, kernel))


def measure(folder: Path) -> None:
  """Prints a line for each layer."""
  del folder
  common.print_head('features, kernel, stride', 'here', "XLA's own", 'ratio')
  for side, channels, size, stride in LAYERS:
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (_BATCH.value, side, side, channels))
    kernel = jax.random.normal(keys[1], (size, size, 1, channels))
    calls = {
      'here': _make_call(depthwise.convolve, x, kernel, stride),
      'XLA': _make_call(jax.lax.conv_general_dilated, x, kernel, stride),
    }
    (here, _), (xla, _) = common.time_in_turn(calls, _REPEATS.value).values()
    common.print_row(
      f'{side}x{side}x{channels}, {size}x{size}, {stride}',
      f'{1000 * here:.1f} ms',
      f'{1000 * xla:.1f} ms',
      f'{here / xla:.2f}',
    )


if __name__ == '__main__':
  common.run(measure)
