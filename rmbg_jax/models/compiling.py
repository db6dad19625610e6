"""Chooses XLA's options for programs that run a network."""

import os

import jax


def make_options(
  *, deterministic: bool = False
) -> dict[str, bool | int] | None:
  """Returns the compiler's options, None for its own choice.

  A level of optimisation in `XLA_FLAGS` is the user's choice.

  Args:
    deterministic: Whether a GPU must give the same bits every time. A CPU does
      so by itself.
  """
  backend = jax.default_backend()
  if backend == 'cpu':
    if 'xla_backend_optimization_level' in os.environ.get('XLA_FLAGS', ''):
      return None
    # Compiled in four fifths of the time, and as fast (docs/results.md): the
    # loops that matter are written in libraries or simple.
    return {'xla_backend_optimization_level': 1}
  # Otherwise a GPU may add in another order in each run.
  if deterministic and backend == 'gpu':
    return {'xla_gpu_deterministic_ops': True}
  return None
