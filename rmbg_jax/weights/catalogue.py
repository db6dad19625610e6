"""Lists the checkpoints that have names, with size, terms and checksum.

Nothing is downloaded for it, and no network is loaded.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_pipelines.io import errors, files
from data_pipelines.io.types import JsonObject
from rmbg_jax import models
from rmbg_jax.models import unet
from rmbg_jax.models.preprocessing import Preprocessing
from rmbg_jax.weights import cache, hub, onnx_published, release

_NOT_STATED = 'none stated'
# Terms of the shipped weights' training data, as its publishers state them;
# docs/model_card.md names them.
_DATA_TERMS = {
  'butterfly': 'MIT',
  'caltech101': 'CC BY 4.0 by its publisher',
  'ccp': 'Apache-2.0, citation asked',
  'davis': 'CC BY-NC 4.0 by its publisher',
  'eg1800': 'Apache-2.0 for the repository; photos from Flickr',
  'feralcats': '"Public Domain"',
  'imagenet1000': "ImageNet's terms: non-commercial research",
  'pets128': 'CC BY-SA 4.0 by its publisher',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
  """A network that can be asked for by name.

  Attributes:
    name: Name that `--checkpoint` and `load_model` take.
    origin: 'shipped', 'cached' or 'downloadable'.
    location: The file's path, or the address that it is downloaded from.
    size: Size of the file in bytes; of a file that was never here, about.
    checksum: 'sha256:HEX' or 'md5:HEX'.
    architecture: Description of the network in words.
    parameters: Number of them, batch statistics included, if it is known.
    input_size: (height, width) in pixels that photos are stretched to.
    training_data: The terms of each source, if they are stated.
    terms: Terms of the weights.
    scores: Scores by set, such as {'val': {'iou': .85, 'mae': .04}}.
    seconds: What the network takes for a photo on two cores, if measured.
    is_tried: Whether the project has ever run the file.
  """

  name: str
  origin: str
  location: str
  size: int
  checksum: str
  architecture: str
  parameters: int | None
  input_size: tuple[int, int]
  training_data: Mapping[str, str]
  terms: str
  scores: Mapping[str, Mapping[str, float]]
  seconds: float | None = None
  is_tried: bool = True


# Seconds for a photo on two cores, of the network alone (docs/results.md).
_SECONDS = {'released': 0.047, 'small': 0.008, 'lite': 0.021, 'u2netp': 0.19}


def list_checkpoints() -> list[Checkpoint]:
  """Returns the checkpoints that have names.

  First those that come with the project, the default before all; then those
  that are published elsewhere; then the releases in the cache of the hub.
  """
  found = []
  for name in release.RELEASED:
    path = release.find_released(name)
    found.append(_describe_release(path, name=name, origin='shipped'))
  found += [_describe_published(name) for name in onnx_published.PUBLISHED]
  # By commit: a branch of the hub may move on.
  for address, path in hub.list_cached():
    try:
      described = _describe_release(path, name=str(address), origin='cached')
    # Most files there are of other projects; of some, only the link is left.
    except (errors.UserError, OSError):
      continue
    found.append(described)
  return found


def format_checkpoint(checkpoint: Checkpoint) -> str:
  """Returns all facts about a checkpoint, as lines of text."""
  lines = [checkpoint.name]
  if checkpoint.name in release.RELEASED:
    together = ' and '.join(release.RELEASED)
    lines[0] += f' (the default, released, is {together} together)'
  lines.append(f'  {"from":<12}{checkpoint.origin}, {checkpoint.location}')
  for key, value in _list_facts(checkpoint).items():
    lines.append(f'  {key.lower():<12}{value}')
  return '\n'.join(lines)


def format_table(checkpoints: Sequence[Checkpoint]) -> str:
  """Returns a table in Markdown to choose by.

  Scores are on `val`; seconds are those of the network for a photo, on two
  cores.
  """
  default = release.SCORES['all']
  lines = [
    '| `--checkpoint=` | file | input | IoU / MAE | s a photo | terms |',
    '|---|---:|---|---|---:|---|',
    f'| `released`, the default: {" and ".join(release.RELEASED)} | | | '
    f'{default["iou"]:.3f} / {default["mae"]:.3f} | '
    f'{_SECONDS["released"]:.2g} | as these |',
  ]
  for one in checkpoints:
    score = one.scores.get('val')
    unknown = '' if one.is_tried else 'not tried'
    megabytes = one.size / 1e6
    cells = (
      f'`{one.name}`',
      f'{megabytes:.{0 if megabytes > 10 else 1}f} MB',
      'x'.join(map(str, one.input_size)),
      f'{score["iou"]:.3f} / {score["mae"]:.3f}' if score else unknown,
      f'{one.seconds:.2g}' if one.seconds else unknown,
      'research: the model card'
      if one.origin == 'shipped'
      else one.terms.partition(';')[0],
    )
    lines.append(f'| {" | ".join(cells)} |')
  return '\n'.join(lines)


def format_all(checkpoints: Sequence[Checkpoint]) -> str:
  """Returns the table and all facts about each, for a terminal."""
  return '\n\n'.join(
    [format_table(checkpoints), *map(format_checkpoint, checkpoints), '']
  )


def format_page(checkpoints: Sequence[Checkpoint]) -> str:
  """Returns the table and the facts about each, in Markdown.

  Where they are on this machine is left out: others may read it.
  """
  parts = [f'{format_table(checkpoints)}\n']
  for one in checkpoints:
    parts.append(f'**{one.name}** ({one.origin})\n')
    parts += [f'- {key}: {value}' for key, value in _list_facts(one).items()]
    parts[-1] += '\n'
  return '\n'.join(parts)


def _list_facts(checkpoint: Checkpoint) -> dict[str, str]:
  """Returns what can be said of a checkpoint on any machine."""
  height, width = checkpoint.input_size
  architecture = checkpoint.architecture
  if checkpoint.parameters is not None:
    architecture += f'; {checkpoint.parameters / 1e6:.1f} M parameters'
  data = ', '.join(
    f'{name} ({terms})' for name, terms in checkpoint.training_data.items()
  )
  scores = '; '.join(
    f'{name}: IoU {score["iou"]:.3f}, MAE {score["mae"]:.3f}'
    for name, score in checkpoint.scores.items()
  )
  unknown = 'not measured' if checkpoint.is_tried else 'not tried'
  return {
    'File': f'{checkpoint.size / 1e6:.1f} MB, {checkpoint.checksum}',
    'Network': f'{architecture}, input {height}x{width}',
    'Trained on': data or 'not stated',
    'Terms': checkpoint.terms,
    'Scores': scores or unknown,
    'A photo': f'{checkpoint.seconds:.2g} s of the network on two cores'
    if checkpoint.seconds is not None
    else unknown,
  }


def _describe_release(path: Path, *, name: str, origin: str) -> Checkpoint:
  described, parameters = release.read_header(path)
  description = described[0]
  photos = Preprocessing.from_dict(description['preprocessing'])
  scores = description.get('scores', {})
  return Checkpoint(
    name=name,
    origin=origin,
    location=str(path),
    size=path.stat().st_size,
    checksum=f'sha256:{files.hash_file(path)}',
    architecture=' and '.join(
      _describe_architecture(one['architecture']) for one in described
    ),
    parameters=parameters,
    input_size=photos.size,
    training_data={
      source: _DATA_TERMS.get(source, _NOT_STATED)
      for source in description.get('training_data') or ()
    },
    terms=description.get('terms')
    or description.get('license')
    or 'not stated: ask the maker of the file',
    # `all` are the rows of the training's own data that it was not trained on.
    scores={'val': {key: float(scores['all'][key]) for key in ('iou', 'mae')}}
    if 'all' in scores
    else {},
    seconds=_SECONDS.get(name),
  )


def _describe_published(name: str) -> Checkpoint:
  one = onnx_published.PUBLISHED[name]
  present = cache.is_present(one.url)
  return Checkpoint(
    name=name,
    origin='cached' if present else 'downloadable',
    location=os.fspath(cache.local_path(one.url)) if present else one.url,
    size=round(one.megabytes * 1e6),
    checksum=one.checksum,
    architecture=one.architecture
    if one.is_u2net
    else f'{one.architecture} ({one.origin})',
    parameters=one.parameters,
    input_size=one.preprocessing.size,
    training_data={one.data: _NOT_STATED},
    terms=f'{one.terms}; cite {one.citation}' if one.citation else one.terms,
    scores=one.scores,
    seconds=_SECONDS.get(name),
    is_tried=bool(one.scores),
  )


def _describe_architecture(architecture: JsonObject) -> str:
  network = models.create_network(architecture)
  if not isinstance(network, unet.UNet):
    return architecture['name']
  filters = '-'.join(map(str, network.decoder_filters))
  return (
    f'U-Net, encoder {network.encoder_name}, bridge {network.bridge_filters}, '
    f'decoder {filters}'
  )
