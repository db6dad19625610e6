"""Declares the part of a `BackgroundRemover` that many photos need."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from rmbg_jax.inference import photos as photos_lib


@runtime_checkable
class Predictor(Protocol):
  """A `BackgroundRemover`.

  Attributes:
    batch_size: Photos that go through the network together.
    runtime: What computes the network, such as 'openvino, bfloat16'.
  """

  batch_size: int
  runtime: str

  def resize(
    self, photos: Sequence[Image.Image]
  ) -> UInt8[np.ndarray, 'b h w 3']:
    """Returns RGB photos at the size of `predict`'s input."""
    ...

  def predict(
    self, batch: UInt8[np.ndarray, 'b h w 3']
  ) -> Float[np.ndarray, 'b h w']:
    """Returns probabilities in [0, 1] for up to a batch of resized photos."""
    ...

  def refine(
    self, probs: Float[np.ndarray, 'h w'], photo: photos_lib.Photo
  ) -> Float[np.ndarray, 'h2 w2']:
    """Returns alpha in [0, 1] at the photo's size, from `predict`'s answer."""
    ...
