"""Cuts out a single photo, in memory or into a file."""

from collections.abc import Callable
from pathlib import Path

from data_pipelines.io import files, images
from rmbg_jax.batch import session
from rmbg_jax.inference import photos


def compute(
  read: Callable[[], images.Source], request: session.Request
) -> tuple[bytes, tuple[str, ...]]:
  """Returns the file of a photo's one result, and notes on the photo.

  Args:
    read: Returns the photo.
    request: What to make, of one kind.

  Raises:
    UserError: if the photo or the checkpoint cannot be read.
  """
  task = request.task
  photo = photos.read_photo(read(), max_pixels=task.max_pixels)
  remover = request.load(batch_size=1)
  probs = remover.predict(remover.resize([photo.seen]))[0]
  alpha = remover.refine(probs, photo)
  (kind,) = task.kinds
  return task.style.render(photo, alpha, (kind,))[kind], photo.notes


def write(source: str, output: Path, request: session.Request) -> None:
  """Writes the file of a photo's one result, and prints its notes."""
  content, notes = compute(lambda: source, request)
  with files.write_atomically(output) as partial:
    partial.write_bytes(content)
  print(output)
  for note in notes:
    print(f'{source}: {note}.')
