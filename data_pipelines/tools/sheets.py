"""Puts many small pictures on one sheet."""

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageOps

GAP = 4  # Pixels between pictures.


def make_sheet(
  rows: Sequence[Sequence[Image.Image]], *, cell: int, columns: int
) -> Image.Image:
  """Returns rows of images, each fitted into a cell; `columns` side by side.

  A line is no higher than the images in it. All rows are of the same length.
  """
  parts = len(rows[0])
  fitted = [
    [ImageOps.contain(image, (cell, cell)) for image in row] for row in rows
  ]
  lines = [fitted[i : i + columns] for i in range(0, len(fitted), columns)]
  heights = [
    max(image.height for row in line for image in row) for line in lines
  ]
  # A gap behind each picture but the last, three more between columns.
  width = columns * parts * (cell + GAP) + (columns - 1) * 3 * GAP - GAP
  sheet = Image.new(
    'RGB', (width, sum(heights) + GAP * (len(lines) - 1)), 'white'
  )
  top = 0
  for line, height in zip(lines, heights, strict=True):
    for column, row in enumerate(line):
      for part, image in enumerate(row):
        left = column * (parts * (cell + GAP) + 3 * GAP) + part * (cell + GAP)
        sheet.paste(
          image,
          (
            left + (cell - image.width) // 2,
            top + (height - image.height) // 2,
          ),
        )
    top += height + GAP
  return sheet


def draw_words(words: Sequence[str], *, cell: int) -> Image.Image:
  """Returns a cell with text, a line or more for each word."""
  picture = Image.new('RGB', (cell, cell), 'white')
  letters = cell // 7  # About, in Pillow's own font.
  lines = [line for word in words for line in textwrap.wrap(word, letters)]
  ImageDraw.Draw(picture).multiline_text((2, 2), '\n'.join(lines), 'black')
  return picture
