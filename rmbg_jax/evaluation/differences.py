"""Shows the photos on which systems differ most, in one picture."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tqdm
from jaxtyping import Float
from PIL import Image

from data_pipelines.io import errors, files
from data_pipelines.io.types import JsonObject
from data_pipelines.tools import sheets
from rmbg_jax.evaluation import gallery
from rmbg_jax.evaluation import results as results_lib
from rmbg_jax.inference import remover as remover_lib
from rmbg_jax.inference import rendering
from rmbg_jax.weights import load

_SIDE = 256  # Pixels of a picture's longest side.
_HEADER = (0, 0, _SIDE, 16)  # Part of a cell that a line of text takes.
_BEHIND = (0, 177, 64)  # Cut-outs lie on green.


def _shrink(alpha: Float[np.ndarray, 'h w'] | Image.Image) -> bytes:
  """Returns alpha in [0, 1], or a grey image, as a small PNG file's content."""
  if isinstance(alpha, np.ndarray):
    alpha = Image.fromarray(rendering.to_mask(alpha))
  small = alpha.convert('L')
  small.thumbnail((_SIDE, _SIDE))
  buffer = io.BytesIO()
  small.save(buffer, 'png')
  return buffer.getvalue()


def _save_differences(
  photos: Mapping[str, tuple[str, str]],
  masks: Mapping[str, Mapping[str, bytes]],
  path: Path,
  *,
  count: int,
) -> None:
  """Writes the photos on which systems differ most, the first one above.

  The difference is the largest alpha minus the smallest, averaged over the
  photo. Photos that a system has no mask of are left out; '' stands for no
  truth.
  """
  common = [n for n in photos if all(n in own for own in masks.values())]
  if not common:
    raise errors.UserError(
      f'{path}: no photo has a mask of each of {", ".join(masks)}.'
    )
  changes = {
    name: _measure([own[name] for own in masks.values()]) for name in common
  }
  shown = sorted(common, key=lambda name: -changes[name])[:count]
  with_truth = all(photos[name][1] for name in shown)
  titles = ['', 'photo', *(['truth'] if with_truth else []), *masks]
  rows = [
    [sheets.draw_words([title], cell=_SIDE).crop(_HEADER) for title in titles]
  ]
  for name in shown:
    photo_path, truth_path = photos[name]
    photo = _fit(gallery.read_photo(photo_path))
    drawn = [own[name] for own in masks.values()]
    cut_outs = [_lay(photo, Image.open(io.BytesIO(mask))) for mask in drawn]
    if with_truth:
      cut_outs.insert(0, _lay(photo, _fit(gallery.read_truth(truth_path))))
    words = [*Path(name).parts[-2:], f'differs by {changes[name]:.3f}']
    cell = sheets.draw_words(words, cell=_SIDE)
    cell = cell.crop((0, 0, _SIDE, max(photo.height, _SIDE // 4)))
    rows.append([cell, photo, *cut_outs])
  sheet = sheets.make_sheet(rows, cell=_SIDE, columns=1)
  with files.write_atomically(path) as partial:
    sheet.save(partial, 'jpeg', quality=90)


def save_for_results(
  results: Sequence[results_lib.Results], path: Path, *, count: int
) -> None:
  """Writes the picture for several systems' results on one data set.

  Where no photo has results of all, nothing is written.
  """
  masks: dict[str, dict[str, bytes]] = {}
  photos: dict[str, tuple[str, str]] = {}
  for part in results:
    scales = gallery.find_scales(part.images)
    own = masks[part.system] = {}
    for image in part.images:
      found = gallery.read_prediction(image['prediction'], scales)
      if found is not None:
        own[image['name']] = _shrink(found)
        photos[image['name']] = image['photo'], image['truth']
  if any(all(name in own for own in masks.values()) for name in photos):
    _save_differences(photos, masks, path, count=count)


def compare_checkpoints(
  checkpoints: Mapping[str, str],
  photos: Sequence[Path],
  path: Path,
  *,
  count: int,
  options: JsonObject,
) -> list[str]:
  """Writes the picture for checkpoints, which are run one at a time.

  Args:
    checkpoints: What `load_model` takes, by the name to show.
    photos: Photos to run them on.
    path: Path of the JPEG file.
    count: Photos to show, at most.
    options: Options of `BackgroundRemover`.

  Returns:
    What is wrong with photos that could not be read, a line for each.

  Raises:
    UserError: if a checkpoint cannot be loaded, or no photo can be read.
  """
  # Load all before any is run, so that none is refused at the end.
  loaded = {name: load.load_model(one) for name, one in checkpoints.items()}
  masks: dict[str, dict[str, bytes]] = {}
  failed: dict[str, None] = {}
  for name, network in loaded.items():
    remover = remover_lib.BackgroundRemover(network, **options)
    own = masks[name] = {}
    for photo in tqdm.tqdm(photos, desc=name, unit='photo'):
      try:
        own[str(photo)] = _shrink(remover.alpha(photo))
      except (OSError, ValueError) as error:
        failed[str(error)] = None  # Once, however many networks fail at it.
  shown = {str(photo): (str(photo), '') for photo in photos}
  _save_differences(shown, masks, path, count=count)
  return list(failed)


def _measure(masks: Sequence[bytes]) -> float:
  opened = [Image.open(io.BytesIO(mask)) for mask in masks]
  alphas = [
    np.asarray(mask.resize(opened[0].size), np.float32) / 255 for mask in opened
  ]
  return float(np.mean(np.max(alphas, axis=0) - np.min(alphas, axis=0)))


def _fit(image: Image.Image | None) -> Image.Image:
  if image is None:
    return sheets.draw_words(['cannot be read'], cell=_SIDE)
  image = image.copy()
  image.thumbnail((_SIDE, _SIDE))
  return image


def _lay(photo: Image.Image, mask: Image.Image) -> Image.Image:
  behind = Image.new('RGB', photo.size, _BEHIND)
  return Image.composite(photo, behind, mask.convert('L').resize(photo.size))
