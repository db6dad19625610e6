"""What is said where a device's memory is used up."""

import contextlib
from collections.abc import Iterator

import jax

from data_pipelines import errors


def is_exhausted(error: Exception) -> bool:
  """Whether an error of JAX, or of Python, says that memory is used up."""
  return isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error)


@contextlib.contextmanager
def naming_remedies(remedies: str) -> Iterator[None]:
  """Has an error of used up memory say what to change.

  Args:
    remedies: what the user can do, in a sentence.

  Raises:
    UserError: for that error, of any device; others stay what they are.
  """
  try:
    yield
  except (jax.errors.JaxRuntimeError, MemoryError) as error:
    if not is_exhausted(error):
      raise
    first = str(error).partition('\n')[0] or 'no more memory'
    raise errors.UserError(
      f'The memory of the {jax.default_backend().upper()} is used up. '
      f'{remedies} ({first})'
    ) from error
