"""Cuts out photos in Python: load a network once, then use it.

```python
from rmbg_jax import BackgroundRemover

remover = BackgroundRemover.from_checkpoint('runs/demo')
remover.remove('photo.jpg').save('cutout.png')
```
"""

import copy
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from data_pipelines.io import errors
from data_pipelines.io import images as images_lib
from rmbg_jax import choices
from rmbg_jax.inference import foreground, rendering, runtimes
from rmbg_jax.inference import photos as photos_lib
from rmbg_jax.inference import refinement as refinement_lib
from rmbg_jax.models import layers
from rmbg_jax.weights import load

if TYPE_CHECKING:
  from rmbg_jax.inference import learned

_NO_REFINEMENT = refinement_lib.Refinement()


class BackgroundRemover:
  """Computes alpha mattes and cut-outs at the photos' own size.

  The network is compiled once, by OpenVINO on a CPU, by JAX on accelerators.
  Methods may be called from several threads: nothing is changed after
  construction. A forked process cannot use it; spawn processes, and construct
  one in each.

  Attributes:
    batch_size: Photos that go through the network together.
    runtime: What computes the network, such as 'openvino, bfloat16'.
    refinement: Refinement of alpha after the network.
    max_pixels: Files with more are refused.
  """

  def __init__(
    self,
    loaded: load.LoadedModel,
    *,
    batch_size: int = 1,
    refinement: refinement_lib.Refinement = _NO_REFINEMENT,
    flip: bool | None = None,
    scales: tuple[float, ...] | None = None,
    temperature: float | None = None,
    stretch: bool = False,
    runtime: str = 'auto',
    precision: str = 'auto',
    threads: int = 0,
    max_pixels: int = choices.MAX_PIXELS,
  ):
    """Prepares a loaded network.

    Args:
      loaded: Network that `load_model` returned.
      batch_size: Photos that go through the network together; in JAX rounded
        up to a multiple of the number of local devices.
      refinement: Refinement of alpha after the network.
      flip: Mirrors every second of the scales; a single scale counts twice,
        the second time mirrored.
      scales: Multiples of the network's input size to average over. Where
        neither is given, both are what the checkpoint asks for; otherwise the
        other is False or (1.0,). The network's partners take both alike.
      temperature: Divides the logits: below 1, masks are surer. Where it is not
        given, it is what the checkpoint asks for, or 1.
      stretch: Stretch every mask from its own minimum and maximum to [0, 1], as
        the authors of U2-Net do. Where there is no foreground, that invents
        one. A checkpoint may ask for it too.
      runtime: 'openvino', 'jax', or 'auto': JAX where it has an accelerator,
        otherwise OpenVINO.
      precision: 'float32', 'bfloat16', or 'auto' (`runtimes.make_runtime`).
      threads: Threads of the network on a CPU; 0 for one per core that this
        process may use.
      max_pixels: Files with more are refused before they are decoded. More than
        the default raises Pillow's own limit, for this process, along with it.

    Raises:
      UserError: if a value is not possible, naming the parameter.
    """
    for name, value in (('batch_size', batch_size), ('max_pixels', max_pixels)):
      if value < 1:
        raise errors.UserError(f'{name}={value}: pass 1 or more.')
    if temperature is not None and not 0 < temperature < np.inf:
      raise errors.UserError(
        f'temperature={temperature}: pass a number above 0, such as 0.67.'
      )
    if scales == ():
      raise errors.UserError('scales=(): pass at least one, such as 1.0.')
    # Where Pillow's limit is None, somebody has switched it off.
    if max_pixels > choices.MAX_PIXELS and Image.MAX_IMAGE_PIXELS:
      Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    self.max_pixels = max_pixels
    self.refinement = refinement
    if loaded.network.channels != 3:
      raise errors.UserError(
        'This network refines the masks of others: pass it as --refiner, with '
        '--refine=learned, and another checkpoint.'
      )
    networks = (loaded, *loaded.partners)
    views = runtimes.list_views(networks, scales=scales, flip=flip)
    for network in networks:
      _check_finite(network.variables)
    self._size = max(view.size for view in views)  # Others are made from it.
    self._stretch = stretch or bool(loaded.prediction.get('stretch'))
    self._temperature = (
      loaded.temperature if temperature is None else temperature
    )
    self._runtime = runtimes.make_runtime(
      networks,
      views,
      runtime=runtime,
      precision=precision,
      batch_size=batch_size,
      threads=threads,
    )
    # Any: the options of `load_refiner`.
    self._refiner_options: dict[str, Any] = {
      # What was chosen, not 'auto': both networks run alike.
      'runtime': self._runtime.name,
      'precision': precision,
      'threads': threads,
    }
    self._refiner = self._load_refiner()
    self._process = os.getpid()
    self.batch_size = self._runtime.batch_size
    self.runtime = f'{self._runtime.name}, {self._runtime.precision}'

  @classmethod
  def from_checkpoint(
    cls,
    path: str | os.PathLike = load.RELEASED,
    **options: Any,  # The constructor's, which checks them.
  ) -> 'BackgroundRemover':
    """Loads a network by whatever `load_model` takes; see the constructor.

    Raises:
      MissingFileError: if there is nothing at the path.
      UserError: if it is not a checkpoint, or damaged.
    """
    return cls(load.load_model(path), **options)

  def with_refinement(
    self, refinement: refinement_lib.Refinement
  ) -> 'BackgroundRemover':
    """Returns a remover of another refinement that shares this network."""
    other = copy.copy(self)
    other.refinement = refinement
    other._refiner = other._load_refiner()
    return other

  def _load_refiner(self) -> 'learned.LearnedRefiner | None':
    if self.refinement.method != 'learned':
      return None
    from rmbg_jax.inference import learned

    return learned.load_refiner(
      self.refinement.refiner, **self._refiner_options
    )

  def alpha(self, image: photos_lib.ImageLike) -> Float[np.ndarray, 'h w']:
    """Returns the foreground's share of each pixel, in [0, 1].

    Args:
      image: A path, the content of an image file, a PIL image, or an array of
        uint8 in [0, 255], grey (h, w), RGB (h, w, 3) or RGBA (h, w, 4).

    Raises:
      MissingFileError: if a path does not exist.
      UserError: if the image cannot be read.
    """
    return self.alphas([image])[0]

  def alphas(
    self, images: Sequence[photos_lib.ImageLike]
  ) -> list[Float[np.ndarray, 'h w']]:
    """Returns the alpha of any number of images, of any sizes, in batches.

    Raises:
      UserError: if one cannot be read, or there is one without a list.
    """
    if isinstance(images, str | bytes | os.PathLike | Image.Image):
      raise errors.UserError('alphas takes a list; of one image, use alpha.')
    results = []
    for start in range(0, len(images), self.batch_size):
      photos = [
        photos_lib.read_photo(image, max_pixels=self.max_pixels)
        for image in images[start : start + self.batch_size]
      ]
      probs = self.predict(self.resize([photo.seen for photo in photos]))
      results += [
        self.refine(one, photo)
        for photo, one in zip(photos, probs, strict=True)
      ]
    return results

  def remove(
    self, image: photos_lib.ImageLike
  ) -> Image.Image | np.ndarray | bytes:
    """Returns the cut-out, RGBA of the photo's own size.

    The colours of half-transparent pixels are the foreground's own.

    Args:
      image: Image as `alpha` takes it.

    Returns:
      For an array an array (h, w, 4) of uint8, for bytes the content of a PNG
      file, for a PIL image or a path a PIL image.

    Raises:
      MissingFileError: if a path does not exist.
      UserError: if the image cannot be read.
    """
    photo = photos_lib.read_photo(image, max_pixels=self.max_pixels)
    probs = self.predict(self.resize([photo.seen]))[0]
    alpha = self.refine(probs, photo)
    if isinstance(image, bytes):
      return rendering.Style().render(photo, alpha, ('cutout',))['cutout']
    colours = foreground.estimate_foreground(
      np.asarray(photo.rgb), alpha, photo.opacity_values
    )
    rgba = rendering.add_opacity(colours, alpha)
    if isinstance(image, np.ndarray):
      return rgba
    cutout = Image.fromarray(rgba)
    if photo.icc_profile:
      cutout.info['icc_profile'] = photo.icc_profile
    return cutout

  def resize(
    self, photos: Sequence[Image.Image]
  ) -> UInt8[np.ndarray, 'b h w 3']:
    """Returns RGB photos at the size of `predict`'s input."""
    resized = [images_lib.resize_input(p, size=self._size) for p in photos]
    return np.stack([np.asarray(photo) for photo in resized])

  def predict(
    self, batch: UInt8[np.ndarray, 'b h w 3']
  ) -> Float[np.ndarray, 'b h w']:
    """Returns probabilities in [0, 1] for up to a batch of resized photos.

    Raises:
      UserError: if the device's memory is used up.
      ValueError: if there are more images than the batch size.
    """
    probs = compute_probs(self.predict_logits(batch), self._temperature)
    return _stretch_range(probs) if self._stretch else probs

  def predict_logits(
    self, batch: UInt8[np.ndarray, 'b h w 3']
  ) -> Float[np.ndarray, 'b h w']:
    """Returns logits, before the temperature, for up to a batch of photos.

    Raises:
      UserError: if the device's memory is used up.
      ValueError: if there are more images than the batch size.
      RuntimeError: in a process that was forked after this was constructed.
    """
    if os.getpid() != self._process:
      # The runtime's threads are not in the fork: it would wait for ever.
      raise RuntimeError(
        'This BackgroundRemover was made before the process was forked. Make '
        "one in each process, or start them by 'spawn'."
      )
    count = len(batch)
    if count > self.batch_size:
      raise ValueError(
        f'{count} photos are more than the batch_size (={self.batch_size}) '
        'the remover was made with.'
      )
    return self._runtime.compute_logits(batch)

  def refine(
    self, probs: Float[np.ndarray, 'h w'], photo: photos_lib.Photo
  ) -> Float[np.ndarray, 'h2 w2']:
    """Returns alpha in [0, 1] at the photo's size, from `predict`'s answer.

    Where the photo was transparent, alpha is 0.

    Raises:
      UserError: if the answer has values that are not numbers.
    """
    if not np.isfinite(probs).all():
      raise errors.UserError(
        "the network's output is not a number (NaN): its weights are damaged, "
        'or their training failed. Use another checkpoint; of a foreign .onnx, '
        'correct `sigmoid` or `output` in its JSON file.'
      )
    alpha = self.refinement.apply(probs, photo.seen, self._refiner)
    return photo.hide_transparent(alpha)


def _check_finite(variables: layers.Variables) -> None:
  """Checks the weights, since a ReLU of OpenVINO makes 0 of NaN.

  Raises:
    UserError: if any is no number.
  """
  for key, value in layers.flatten(variables).items():
    if not np.isfinite(value).all():
      raise errors.UserError(
        f'the weights {key} are not numbers (NaN): the checkpoint is damaged, '
        'or its training failed. Use another checkpoint.'
      )


def compute_probs(
  logits: Float[np.ndarray, '*s'], temperature: float
) -> Float[np.ndarray, '*s']:
  """Returns the sigmoid of logits that a temperature divides, in [0, 1]."""
  # By tanh, since exp of large numbers overflows.
  return 0.5 * np.tanh(logits * np.float32(0.5 / temperature)) + np.float32(0.5)


def _stretch_range(
  probs: Float[np.ndarray, 'b h w'],
) -> Float[np.ndarray, 'b h w']:
  """Stretches each map from its own minimum and maximum to [0, 1]."""
  low = probs.min(axis=(1, 2), keepdims=True)
  high = probs.max(axis=(1, 2), keepdims=True)
  # A map with one value everywhere has no range to divide by.
  return (probs - low) / np.maximum(high - low, 1e-8)
