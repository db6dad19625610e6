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

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, UInt8
from PIL import Image

from data_pipelines.io import errors
from data_pipelines.io import images as images_lib
from rmbg_jax import runtime
from rmbg_jax.inference import foreground, rendering
from rmbg_jax.inference import photos as photos_lib
from rmbg_jax.inference import refinement as refinement_lib
from rmbg_jax.models import compiling
from rmbg_jax.models import program as program_lib
from rmbg_jax.weights import load, trace_cache

_NO_REFINEMENT = refinement_lib.Refinement()
# Of several views the logits are averaged, which leaves less half-transparent
# than averaging probabilities; a view counts as no surer than .999.
_SURE = 6.9


class BackgroundRemover:
  """Computes alpha mattes and cut-outs at the photos' own size.

  The network is compiled once, for one batch size; smaller batches are padded.
  All local devices share a batch. Methods may be called from several threads:
  nothing is changed after construction. A forked process cannot use it; spawn
  processes, and construct one in each.

  Attributes:
    batch_size: Photos that go through the network together.
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
    stretch: bool = False,
    max_pixels: int = photos_lib.MAX_PIXELS,
  ):
    """Prepares a loaded network.

    Args:
      loaded: Network that `load_model` returned.
      batch_size: Photos that go through the network together; rounded up to a
        multiple of the number of local devices.
      refinement: Refinement of alpha after the network.
      flip: Mirrors every second of the scales; a single scale counts twice,
        the second time mirrored.
      scales: Multiples of the network's input size to average over. Where
        neither is given, both are what the checkpoint asks for; otherwise the
        other is False or (1.0,). The network's partners take both alike.
      stretch: Stretch every mask from its own minimum and maximum to [0, 1], as
        the authors of U2-Net do. Where there is no foreground, that invents
        one.
      max_pixels: Files with more are refused before they are decoded. More than
        the default raises Pillow's own limit, for this process, along with it.

    Raises:
      UserError: if a value is not possible, naming the parameter.
    """
    for name, value in (('batch_size', batch_size), ('max_pixels', max_pixels)):
      if value < 1:
        raise errors.UserError(f'{name}={value}: pass 1 or more.')
    if scales == ():
      raise errors.UserError('scales=(): pass at least one, such as 1.0.')
    if max_pixels > photos_lib.MAX_PIXELS and Image.MAX_IMAGE_PIXELS:
      Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    self.max_pixels = max_pixels
    devices = jax.local_devices()
    self.batch_size = -(-batch_size // len(devices)) * len(devices)
    self.refinement = refinement
    networks = (loaded, *loaded.partners)
    views = [
      (index, size, mirrored)
      for index, network in enumerate(networks)
      for size, mirrored in _list_views(network, scales, flip)
    ]
    self._size = max(size for _, size, _ in views)  # Others are made from it.
    mesh = Mesh(np.asarray(devices), ('data',))
    self._by_image = NamedSharding(mesh, PartitionSpec('data'))
    programs = {
      (index, size): program_lib.Program(
        networks[index].model,
        networks[index].variables,
        size=size,
        platform=jax.default_backend(),
      )
      for index, size, _ in views
    }
    weights: list[dict] = [{} for _ in networks]
    for (index, _), program in programs.items():
      weights[index].update(program.weights)
    self._weights = jax.device_put(
      weights, NamedSharding(mesh, PartitionSpec())
    )

    def compute_probs(weights, images):
      total = jnp.zeros((), 'float32')
      for index, size, mirrored in views:
        seen = images[:, :, ::-1] if mirrored else images
        if size != images.shape[1:3]:
          seen = jax.image.resize(
            seen.astype('float32'), (images.shape[0], *size, 3), 'bilinear'
          )
        inputs = networks[index].preprocessing.normalize(seen)
        program = programs[index, size]
        logits = program.compute_logits(weights[index], inputs)[..., 0]
        logits = logits[:, :, ::-1] if mirrored else logits
        if len(views) > 1:
          logits = jnp.clip(logits, -_SURE, _SURE)
        total += jax.image.resize(logits, images.shape[:3], 'bilinear')
      probs = jax.nn.sigmoid(total / len(views))
      return _stretch_range(probs) if stretch else probs

    if len(devices) > 1:
      self._compute_probs = jax.jit(
        compute_probs, compiler_options=compiling.make_options()
      )
    else:
      shape = (self.batch_size, *self._size, 3)
      self._compute_probs = trace_cache.keep_program(
        compute_probs,
        (self._weights, jax.ShapeDtypeStruct(shape, np.uint8)),
        [(network.model, network.preprocessing) for network in networks],
        (views, stretch),
      )

  @classmethod
  def from_checkpoint(
    cls,
    path: str | os.PathLike = load.RELEASED,
    *,
    batch_size: int = 1,
    refinement: refinement_lib.Refinement = _NO_REFINEMENT,
    flip: bool | None = None,
    scales: tuple[float, ...] | None = None,
    stretch: bool = False,
    max_pixels: int = photos_lib.MAX_PIXELS,
  ) -> 'BackgroundRemover':
    """Loads a network by whatever `load_model` takes; see the constructor.

    Raises:
      MissingFileError: if there is nothing at the path.
      UserError: if it is not a checkpoint, or damaged.
    """
    return cls(
      load.load_model(path),
      batch_size=batch_size,
      refinement=refinement,
      flip=flip,
      scales=scales,
      stretch=stretch,
      max_pixels=max_pixels,
    )

  def with_refinement(
    self, refinement: refinement_lib.Refinement
  ) -> 'BackgroundRemover':
    """Returns a remover of another refinement that shares this network."""
    other = copy.copy(self)
    other.refinement = refinement
    return other

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
    """Returns the alpha of any number of images, of any sizes, in batches."""
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
      np.asarray(photo.rgb), alpha, photo.opacity and np.asarray(photo.opacity)
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
    count = len(batch)
    if count > self.batch_size:
      raise ValueError(
        f'{count} photos are more than the batch_size (={self.batch_size}) '
        'the remover was made with.'
      )
    padding = ((0, self.batch_size - count), (0, 0), (0, 0), (0, 0))
    height, width = self._size
    with runtime.naming_remedies(
      f'It is too little for {self.batch_size} photos at {height}x{width}: '
      'lower batch_size (--batch_size) or scales (--scales).'
    ):
      padded = jax.device_put(np.pad(batch, padding), self._by_image)
      return np.asarray(self._compute_probs(self._weights, padded))[:count]

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
        'or their training failed. Use another checkpoint.'
      )
    return photo.hide_transparent(self.refinement.apply(probs, photo.seen))


def open_photo(image: photos_lib.ImageLike) -> Image.Image:
  """Returns any kind of image as the upright RGB image that a network sees.

  Raises:
    MissingFileError: if a path does not exist.
    UserError: if it is not an image, or an array of another form.
  """
  return photos_lib.read_photo(image).seen


def _list_views(
  network: load.LoadedModel,
  scales: Sequence[float] | None,
  flip: bool | None,
) -> list[tuple[tuple[int, int], bool]]:
  """Returns (height, width) of each view of a photo, and if it is mirrored."""
  if scales is None and flip is None:
    wanted = network.description.get('prediction', {})
    scales, flip = wanted.get('scales'), wanted.get('flip')
  scales = tuple(scales or (1.0,))
  if flip and len(scales) == 1:
    scales = (*scales, *scales)
  return [
    (_scale_size(network.preprocessing.size, scale), bool(flip and index % 2))
    for index, scale in enumerate(scales)
  ]


def _scale_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
  if not scale > 0:
    raise errors.UserError(f'scales must be positive, got {scale}.')
  return tuple(max(16, round(side * scale / 16) * 16) for side in size)  # ty: ignore[invalid-explicit-return] Of two.


def _stretch_range(probs: Float[Array, 'b h w']) -> Float[Array, 'b h w']:
  """Stretches each map from its own minimum and maximum to [0, 1]."""
  low = probs.min(axis=(1, 2), keepdims=True)
  high = probs.max(axis=(1, 2), keepdims=True)
  return (probs - low) / jnp.maximum(high - low, 1e-8)
