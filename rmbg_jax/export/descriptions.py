"""Describes an exported file in its own metadata."""

from typing import Any

from rmbg_jax.weights import load


def describe(
  loaded: load.LoadedModel, *, size: tuple[int, int], takes: str, gives: str
) -> dict[str, Any]:
  """Returns the JSON-compatible description of an exported checkpoint.

  Args:
    loaded: The checkpoint.
    size: (height, width) of the input, in pixels.
    takes: Input of the file in words.
    gives: Output of the file in words.
  """
  return loaded.describe(
    interface={
      'size': list(size),
      'input': takes,
      'output': gives,
      'preprocessing': 'Built in: do not normalise the input.',
    }
  )


def describe_photos(
  loaded: load.LoadedModel, *, size: tuple[int, int]
) -> dict[str, Any]:
  """Returns `describe`'s answer for a file that takes photos as they are."""
  height, width = size
  return describe(
    loaded,
    size=size,
    takes=f'photos: uint8 (b, {height}, {width}, 3), RGB in [0, 255]',
    gives=f'alpha: float32 (b, {height}, {width}) in [0, 1]',
  )
