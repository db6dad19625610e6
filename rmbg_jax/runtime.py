"""What a command line sets up before JAX is used."""

import os

import jax
from absl import logging

from rmbg_jax.pretrained import download


def start() -> None:
  """Quietens libraries and keeps compiled programs for the next process.

  Respects `JAX_COMPILATION_CACHE_DIR` where the user has set it.
  """
  logging.set_verbosity(logging.WARNING)  # Orbax and JAX are talkative.
  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    cache = download.cache_dir() / 'xla'
    jax.config.update('jax_compilation_cache_dir', str(cache))
