"""What visitors may ask of the service, and within which limits."""

import dataclasses
import re
from pathlib import Path

from data_pipelines.io import errors, images
from rmbg_jax.inference import rendering

# What is on offer, with its name on the page.
BACKGROUNDS = {
  'transparent': 'Transparent',
  'colour': 'Colour',
  'blur': 'Blurred',
  'picture': 'Own picture',
}
EDGES = {
  'none': 'As the network gives them',
  'learned': 'Sharpened by a small network',
  'guided': "Along the photo's edges",
  'matting': 'Matting (seconds a photo)',
}
# A cutout is a composite where there is a background.
KINDS = {
  'cutout': 'Photo cut out',
  'foreground': 'Colours without transparency',
  'trimap': 'Trimap',
  'overlay': 'Overlay, to judge the mask',
}
# Most bytes of a body beside its files.
OTHER_BYTES = 1_000_000
_MEGABYTE = 1_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
  """Limits on one request.

  Attributes:
    pixels: Most pixels of a picture; more are refused before decoding.
    megabytes: Largest size of a file, in units of 10^6 bytes.
    files: Photos at once.
  """

  pixels: int = 50_000_000
  megabytes: int = 30
  files: int = 20

  @property
  def bytes(self) -> int:
    """The largest file."""
    return self.megabytes * _MEGABYTE

  @property
  def call_bytes(self) -> int:
    """The largest body of a call: two files, and the rest."""
    return 2 * self.bytes + OTHER_BYTES

  def find_excess(self, size: int) -> str:
    """Returns what is wrong with a file of so many bytes, '' for nothing."""
    if size <= self.bytes:
      return ''
    return (
      f'{size / _MEGABYTE:.1f} MB are more than the limit of {self.megabytes} '
      'MB. Reduce the photo.'
    )


@dataclasses.dataclass(frozen=True)
class Options:
  """Options for cutting out photos, in the order of the page's.

  Attributes:
    background: One of `BACKGROUNDS`.
    colour: '#rrggbb', of the background 'colour'.
    picture: Path of an image file, of the background 'picture'.
    edges: One of `EDGES`.
    checkpoint: One of those that the service offers.
    kind: One of `KINDS`; only the first has a background.
  """

  background: str
  colour: str
  picture: str | None
  edges: str
  checkpoint: str
  kind: str

  def make_style(self, limits: Limits) -> tuple[str, rendering.Style]:
    """Returns one of `choices.KINDS`, and its style.

    Raises:
      UserError: naming what is not possible.
    """
    for name, offered in (('kind', KINDS), ('background', BACKGROUNDS)):
      value = getattr(self, name)
      if value not in offered:
        raise errors.UserError(
          f'{name}={value}: choose one of {", ".join(offered)}.'
        )
    if self.background == 'transparent':
      return self.kind, rendering.Style()
    if self.kind != 'cutout':
      raise errors.UserError(
        f'background={self.background} changes nothing in {self.kind}. Choose '
        'transparent, or the kind cutout.'
      )
    if self.background == 'blur':
      return 'composite', rendering.Style(background='blur')
    if self.background == 'picture':
      return 'composite', self._read_picture(limits)
    # `rendering.Style` would take other texts for paths.
    if not re.fullmatch('#[0-9a-fA-F]{6}', self.colour):
      raise errors.UserError(f'colour={self.colour}: pass #rrggbb.')
    return 'composite', rendering.Style(background=self.colour)

  def _read_picture(self, limits: Limits) -> rendering.Style:
    if not self.picture:
      raise errors.UserError('There is no picture for the background. Add one.')
    path = Path(self.picture)
    try:
      height, width = images.read_size(path)
      if height * width > limits.pixels:
        raise errors.TooManyPixelsError(
          f'{width}x{height} are more pixels than the limit of '
          f'{limits.pixels}. Reduce it.'
        )
      return rendering.Style(background=self.picture)  # Reads it.
    except errors.UserError as error:
      raise type(error)(
        f'The background {path.name}: {without_path(str(error), path)}'
      ) from error


def without_path(error: str, path: Path) -> str:
  """Returns a message without the server's paths."""
  return error.removeprefix(f'{path}: ').replace(str(path), path.name)
