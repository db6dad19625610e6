"""Networks whose alpha is known, and photos for them."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageCms

from data_pipelines.io import images
from rmbg_jax.models import preprocessing
from rmbg_jax.training import setup
from rmbg_jax.weights import release
from tests.support import helpers


def save_release(path, channels, **facts):
  """A network whose alpha is known: it sees how much a colour exceeds another.

  Its logit is 40 * max(0, a - b) - 10 for the channels a and b of BGR. The
  facts are put into its description.
  """
  architecture, model = setup.create_model(helpers.make_config(''))
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
  )
  variables = jax.tree.map(lambda one: np.zeros(one.shape, np.float32), shapes)
  block = variables['params']['decoder4']['residual']
  stats = variables['batch_stats']['decoder4']['residual']
  image = block['conv0']['kernel'][0, 0, -3:, 0]  # Of its inputs the last.
  image[list(channels)] = 1, -1
  block['bn0']['scale'][:] = 1
  stats['bn0']['var'][:] = 1
  head = variables['params']['head4']['conv']
  head['kernel'][0, 0, 0, 0] = 40
  head['bias'][:] = -10
  made = preprocessing.make_preprocessing('original', size=(64, 64))
  release.save_release(
    path,
    variables,
    {'architecture': architecture, 'preprocessing': made.to_dict()} | facts,
  )


def compute_probs(photo, channels):
  """What the network of these channels gives for an RGB photo."""
  image = (
    np.asarray(images.resize_image(photo, size=(64, 64)), np.float32) / 255
  )
  image = image[..., ::-1]
  # The batch normalisation's epsilon is 1e-3.
  excess = (image[..., channels[0]] - image[..., channels[1]]) / np.sqrt(1.001)
  logits = 40 * np.maximum(excess, 0) - 10
  return (1 / (1 + np.exp(-logits))).astype(np.float32)


def draw(size=(150, 100), *, box=(40, 30, 100, 70)):
  """A red box before blue."""
  photo = Image.new('RGB', size, (10, 20, 200))
  photo.paste((220, 20, 30), box)
  return photo


def save_photos(photos):
  """Writes photos of many kinds to a folder, the box always somewhere else."""
  profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
  draw().save(photos / 'a plain photo.png', icc_profile=profile)
  draw(box=(0, 0, 60, 60)).save(photos / 'b.jpg')
  exif = Image.Exif()
  exif[0x0112] = 6  # To be turned by a quarter.
  draw((120, 80), box=(70, 0, 120, 40)).save(photos / 'c.jpg', exif=exif)
  draw(box=(20, 20, 60, 90)).convert('CMYK').save(photos / 'd.jpg')
  clear = draw((90, 90), box=(10, 10, 80, 80)).convert('RGBA')
  clear.paste((0, 0, 0, 0), (0, 0, 45, 45))
  clear.save(photos / 'e.png')
  draw(box=(90, 10, 140, 90)).quantize(8).save(photos / 'f.gif')
  draw(box=(5, 50, 145, 95)).save(photos / 'g.tif')
  draw(box=(50, 5, 90, 95)).save(photos / 'h.webp', lossless=True)
  draw((300, 200), box=(5, 5, 30, 195)).save(photos / 'i.bmp')
  draw().convert('L').save(photos / 'ü j.png')
