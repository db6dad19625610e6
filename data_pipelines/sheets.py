"""Many small pictures on one, to look at."""

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageOps

GAP = 4  # Pixels between pictures.


def make_sheet(
  rows: Sequence[Sequence[Image.Image]], *, cell: int, columns: int
) -> Image.Image:
  """Returns rows of images, each fitted into a cell; `columns` side by side.

  Args:
    rows: at least one; all of the same length.
    cell: height and width of a cell in pixels.
    columns: rows that stand side by side.
  """
  parts = len(rows[0])
  lines = -(-len(rows) // columns)
  width = columns * parts * (cell + GAP) + (columns - 1) * 3 * GAP - GAP
  sheet = Image.new('RGB', (width, lines * (cell + GAP) - GAP), 'white')
  for index, row in enumerate(rows):
    line, column = divmod(index, columns)
    for part, image in enumerate(row):
      fitted = ImageOps.contain(image, (cell, cell))
      left = column * (parts * (cell + GAP) + 3 * GAP) + part * (cell + GAP)
      sheet.paste(
        fitted,
        (
          left + (cell - fitted.width) // 2,
          line * (cell + GAP) + (cell - fitted.height) // 2,
        ),
      )
  return sheet


def draw_words(words: Sequence[str], *, cell: int) -> Image.Image:
  """Returns a cell with text, a line or more for each word."""
  picture = Image.new('RGB', (cell, cell), 'white')
  letters = cell // 7  # About, in Pillow's own font.
  lines = [line for word in words for line in textwrap.wrap(word, letters)]
  ImageDraw.Draw(picture).multiline_text((2, 2), '\n'.join(lines), 'black')
  return picture
