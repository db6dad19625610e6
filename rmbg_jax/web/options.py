"""What visitors may ask of the service, and within which limits."""

import dataclasses
import re
from pathlib import Path

from data_pipelines.io import errors, images
from rmbg_jax.inference import rendering

BACKGROUNDS = ('transparent', 'colour', 'blur', 'picture')
# Kinds on offer; 'cutout' is a composite where there is a background.
KINDS = ('cutout', 'foreground', 'trimap', 'overlay')
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

  def describe_excess(self, size: int) -> str:
    """Returns what is wrong with a file of so many bytes."""
    return (
      f'{size / _MEGABYTE:.1f} MB are more than the limit of {self.megabytes} '
      'MB. Reduce the photo.'
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """Options for cutting out photos.

  Attributes:
    checkpoint: One of those that the service offers.
    background: One of `BACKGROUNDS`.
    colour: '#rrggbb', of the background 'colour'.
    picture: An image file, of the background 'picture'.
    edges: One of `choices.REFINEMENTS`.
    kind: One of `KINDS`; only the first has a background.
  """

  checkpoint: str
  background: str = 'transparent'
  colour: str = '#ffffff'
  picture: Path | None = None
  edges: str = 'none'
  kind: str = 'cutout'

  def make_style(self, limits: Limits) -> tuple[str, rendering.Style]:
    """Returns one of `choices.KINDS`, and its style.

    Raises:
      UserError: naming what is not possible.
    """
    if self.kind not in KINDS:
      raise errors.UserError(
        f'kind={self.kind}: choose one of {", ".join(KINDS)}.'
      )
    background = self._find_background(limits)
    if background and self.kind != 'cutout':
      raise errors.UserError(
        f'background={self.background} changes nothing in {self.kind}. Choose '
        'transparent, or the kind cutout.'
      )
    kind = 'composite' if background else self.kind
    return kind, rendering.Style(background=background)

  def _find_background(self, limits: Limits) -> str:
    """Returns the background as `rendering.Style` takes it.

    Only uploaded files may become one.
    """
    if self.background not in BACKGROUNDS:
      raise errors.UserError(
        f'background={self.background}: choose one of {", ".join(BACKGROUNDS)}.'
      )
    if self.background == 'transparent':
      return ''
    if self.background == 'blur':
      return 'blur'
    if self.background == 'colour':
      # `rendering.Style` would take other texts for paths.
      if not re.fullmatch('#[0-9a-fA-F]{6}', self.colour):
        raise errors.UserError(f'colour={self.colour}: pass #rrggbb.')
      return self.colour
    if self.picture is None:
      raise errors.UserError('There is no picture for the background. Add one.')
    try:
      height, width = images.read_size(self.picture)
      if height * width > limits.pixels:
        raise errors.TooManyPixelsError(
          f'{width}x{height} are more pixels than the limit of '
          f'{limits.pixels}. Reduce it.'
        )
      rendering.Style(background=str(self.picture))  # Reads it.
    except errors.UserError as error:
      raise type(error)(
        f'The background {self.picture.name}: '
        f'{without_path(str(error), self.picture)}'
      ) from error
    return str(self.picture)


def without_path(error: str, path: Path) -> str:
  """Returns a message without the server's paths."""
  return error.removeprefix(f'{path}: ').replace(str(path), path.name)
