"""Tells apart the forms of TIFFs."""

from collections.abc import Mapping
from typing import Any

from PIL import Image

from data_pipelines.io.errors import UserError

# Tags.
BITS, COMPRESSION, PHOTOMETRIC = 258, 259, 262
SAMPLES, PLANES = 277, 284
EXTRA_SAMPLES, SAMPLE_FORMAT = 338, 339


def read_tags(image: Image.Image) -> Mapping[int, Any]:  # TIFF has many types.
  """Returns the tags of an opened TIFF."""
  return image.tag_v2  # ty: ignore[missing-attribute] A TIFF has them.


def is_white_zero(image: Image.Image) -> bool:
  """Returns whether an opened file is a TIFF in which 0 is white."""
  return image.format == 'TIFF' and read_tags(image).get(PHOTOMETRIC) == 0


def check(image: Image.Image) -> None:
  """Refuses the forms that Pillow silently decodes to other values."""
  tags = read_tags(image)
  bits = tags.get(BITS, (1,))
  if (
    len(bits) > 1
    and max(bits) > 8
    and tags.get(PLANES) == 2
    and tags.get(COMPRESSION, 1) == 1
  ):
    raise UserError(
      f'its {max(bits)} bits are stored uncompressed, one plane per channel, '
      'which cannot be read; store the channels interleaved, or as PNG'
    )
  if image.mode == 'F' and is_white_zero(image):
    raise UserError('it has floats in which 0 is white; store 0 as black')
