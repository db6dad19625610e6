"""Describes an exported file in its own metadata."""

from typing import Any

from rmbg_jax.weights import load, release


def describe(
  loaded: load.LoadedModel, *, takes: str, gives: str
) -> dict[str, Any]:
  """Returns the JSON-compatible description of an exported network.

  In words, it says which input the file takes, and which output it gives.
  """
  return release.describe(
    loaded.description,
    loaded.preprocessing,
    interface={
      'input': takes,
      'output': gives,
      'preprocessing': 'Built in: do not normalise the input.',
    },
  )


def describe_photos(loaded: load.LoadedModel) -> dict[str, Any]:
  """Returns `describe`'s answer for a file that takes photos as they are."""
  height, width = loaded.preprocessing.size
  return describe(
    loaded,
    takes=f'photos: uint8 (b, {height}, {width}, 3), RGB in [0, 255]',
    gives=f'alpha: float32 (b, {height}, {width}) in [0, 1]',
  )
