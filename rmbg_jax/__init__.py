"""Removes the background from photographs with a U-Net in JAX/Flax.

Importing the package starts no device and imports no JAX: the public
names are loaded when they are first used.
"""

import importlib

__version__ = '0.1.0'
__all__ = ['BackgroundRemover', 'list_checkpoints', 'load_model']

_LOCATIONS = {
  'BackgroundRemover': 'rmbg_jax.inference.remover',
  'list_checkpoints': 'rmbg_jax.weights.catalogue',
  'load_model': 'rmbg_jax.weights.load',
}


def __getattr__(name):
  if name in _LOCATIONS:
    return getattr(importlib.import_module(_LOCATIONS[name]), name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
