"""Defines the flags of the runtime, for several commands."""

from typing import Any

from absl import flags

from rmbg_jax import choices

RUNTIME = flags.DEFINE_enum(
  'runtime',
  'auto',
  choices.RUNTIMES,
  'What computes the network; auto: JAX where it has an accelerator, otherwise '
  'OpenVINO.',
)
PRECISION = flags.DEFINE_enum(
  'precision',
  'auto',
  choices.PRECISIONS,
  'Type of the computation; auto: bfloat16 on CPUs that compute in it, '
  'otherwise float32.',
)
THREADS = flags.DEFINE_integer(
  'threads',
  0,
  'Threads of the network on a CPU; 0: one per core that the process may use.',
  lower_bound=0,
)
TEMPERATURE = flags.DEFINE_float(
  'temperature',
  None,
  'Divisor of the logits: below 1, masks are surer. Default: what the '
  'checkpoint asks for.',
)


def make_options() -> dict[str, Any]:
  """Returns the flags as options of `BackgroundRemover`."""
  return {
    'runtime': RUNTIME.value,
    'precision': PRECISION.value,
    'threads': THREADS.value,
    'temperature': TEMPERATURE.value,
  }
