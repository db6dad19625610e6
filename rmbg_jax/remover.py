"""The Python interface: load a network once, then cut out photos.

```python
from rmbg_jax import BackgroundRemover

remover = BackgroundRemover.from_checkpoint('runs/demo')
remover.remove('photo.jpg').save('cutout.png')
```
"""

import os
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image, ImageOps

from data_pipelines import images as images_lib
from rmbg_jax.pretrained import load

# A path, the content of an image file, a PIL image, or an RGB array (h, w, 3)
# of uint8 in [0, 255].
ImageLike = str | os.PathLike | bytes | Image.Image | np.ndarray


class BackgroundRemover:
  """Computes alpha mattes and cut-outs at the photos' own size.

  The network is compiled once, for one batch size; smaller batches are padded.
  Methods may be called from several threads.
  """

  def __init__(
    self,
    loaded: load.LoadedModel,
    *,
    batch_size: int = 1,
    stretch: bool = False,
  ):
    """Prepares a loaded network.

    Args:
      loaded: as `load_model` returns it.
      batch_size: photos that go through the network together.
      stretch: whether every mask is stretched to [0, 1], its own minimum and
        maximum, as the authors of U2-Net do. Where there is no foreground, that
        invents one.
    """
    self.batch_size = batch_size
    self._size = loaded.preprocessing.size
    self._variables = jax.device_put(loaded.variables)

    def compute_probs(variables, images):
      inputs = loaded.preprocessing.normalize(images)
      # The other outputs are not used, so the compiler drops their heads.
      logits = loaded.model.apply(variables, inputs, train=False)[-1]
      probs = jax.nn.sigmoid(logits)[..., 0]
      return stretch_range(probs) if stretch else probs

    self._compute_probs = jax.jit(compute_probs)

  @classmethod
  def from_checkpoint(
    cls,
    path: str | os.PathLike,
    *,
    batch_size: int = 1,
    stretch: bool = False,
  ) -> 'BackgroundRemover':
    """Loads whatever `load_model` takes.

    Raises:
      FileNotFoundError: if there is nothing at the path.
      ValueError: if it is none of these, or damaged.
    """
    return cls(load.load_model(path), batch_size=batch_size, stretch=stretch)

  def alpha(self, image: ImageLike) -> Float[np.ndarray, 'h w']:
    """Returns the foreground's share of each pixel, in [0, 1].

    Raises:
      FileNotFoundError: if a path does not exist.
      ValueError: if the image cannot be read.
    """
    return self.alphas([open_photo(image)])[0]

  def alphas(
    self, photos: Sequence[Image.Image]
  ) -> list[Float[np.ndarray, 'h w']]:
    """Returns the alpha of each of up to `batch_size` RGB photos."""
    inputs = self.resize(photos)
    return [
      self.enlarge(probs, photo.size)
      for probs, photo in zip(self.predict(inputs), photos, strict=False)
    ]

  def remove(self, image: ImageLike) -> Image.Image:
    """Returns the cut-out: an RGBA image of the photo's own size.

    Raises:
      FileNotFoundError: if a path does not exist.
      ValueError: if the image cannot be read.
    """
    photo = open_photo(image)
    return cut_out(photo, self.alphas([photo])[0])

  def resize(
    self, photos: Sequence[Image.Image]
  ) -> UInt8[np.ndarray, 'b h w 3']:
    """Returns RGB photos as a batch of the network's input size."""
    if len(photos) > self.batch_size:
      raise ValueError(
        f'{len(photos)} photos are more than the batch_size '
        f'(={self.batch_size}) the remover was made with.'
      )
    batch = np.zeros((self.batch_size, *self._size, 3), np.uint8)
    for index, photo in enumerate(photos):
      batch[index] = images_lib.resize_image(photo, size=self._size)
    return batch

  def predict(
    self, batch: UInt8[np.ndarray, 'b h w 3']
  ) -> Float[np.ndarray, 'b h w']:
    """Returns probabilities in [0, 1] at the network's input size."""
    return np.asarray(self._compute_probs(self._variables, batch))

  @staticmethod
  def enlarge(
    probs: Float[np.ndarray, 'h w'], size: tuple[int, int]
  ) -> Float[np.ndarray, 'h2 w2']:
    """Returns probabilities at a photo's (width, height), bilinear."""
    resized = Image.fromarray(probs).resize(size, Image.Resampling.BILINEAR)
    return np.clip(np.asarray(resized), 0, 1)


def stretch_range(probs: Float[Array, 'b h w']) -> Float[Array, 'b h w']:
  """Maps each mask's minimum to 0 and its maximum to 1."""
  low = jnp.min(probs, axis=(1, 2), keepdims=True)
  high = jnp.max(probs, axis=(1, 2), keepdims=True)
  return (probs - low) / jnp.maximum(high - low, 1e-6)


def open_photo(image: ImageLike) -> Image.Image:
  """Returns any kind of image as an upright RGB image.

  Raises:
    FileNotFoundError: if a path does not exist.
    ValueError: if it is not an image, or an array of another form.
  """
  if isinstance(image, np.ndarray):
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
      raise ValueError(
        'Expected an RGB array (h, w, 3) of uint8, got '
        f'{image.shape} of {image.dtype}.'
      )
    return Image.fromarray(image)
  if isinstance(image, Image.Image):
    return images_lib.to_rgb(ImageOps.exif_transpose(image))
  return images_lib.to_rgb(images_lib.open_image(image))


def to_mask(alpha: Float[np.ndarray, 'h w']) -> Image.Image:
  """Returns alpha as an 8-bit grey image."""
  return Image.fromarray(np.round(alpha * 255).astype(np.uint8))


def cut_out(photo: Image.Image, alpha: Float[np.ndarray, 'h w']) -> Image.Image:
  """Returns the photo with alpha as its transparency."""
  result = photo.copy()
  result.putalpha(to_mask(alpha))
  return result


def side_by_side(
  photo: Image.Image, alpha: Float[np.ndarray, 'h w']
) -> Image.Image:
  """Returns the original project's picture: photo | line | photo x mask."""
  pixels = np.asarray(photo)
  line = np.full((photo.height, 10, 3), 128, np.uint8)
  masked = np.round(pixels * alpha[..., np.newaxis]).astype(np.uint8)
  return Image.fromarray(np.concatenate([pixels, line, masked], axis=1))
