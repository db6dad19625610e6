"""Makes a table of a network: its parts, their outputs and parameters."""

import collections
import math

from rmbg_jax.models import graph
from rmbg_jax.models.flax_network import FlaxNetwork


def summarize(model: FlaxNetwork, *, size: tuple[int, int]) -> str:
  """Returns a table of the network's parts, without computing anything.

  Args:
    model: An image-to-logits network of this project.
    size: (height, width) of the input in pixels.

  Returns:
    A row per part (output shape for one image, number of parameters and of
    batch statistics) and the totals as Keras counts them: the trainable ones
    are the parameters, the others the batch statistics.
  """
  recorded = graph.Graph(model.network, size=size)
  counts = {
    'params': collections.Counter(),
    'batch_stats': collections.Counter(),
  }
  for key, shape in recorded.list_shapes().items():
    kind, _, name = key.partition('/')
    counts[kind][_find_part(name)] += math.prod(shape)
  shapes = {}
  for node in recorded.nodes.values():
    for name in (node.name, node.norm):
      # The last node of a part has its result.
      shapes[_find_part(name)] = node.shape
  header = ('Part', 'Output', 'Parameters', 'Statistics')
  rows = [
    (
      part,
      'x'.join(map(str, shape)),
      f'{counts["params"][part]:,}',
      f'{counts["batch_stats"][part]:,}',
    )
    for part, shape in shapes.items()
    if part in counts['params']
  ]
  trainable, other = (counter.total() for counter in counts.values())
  widths = [max(len(row[i]) for row in [header, *rows]) for i in range(4)]
  lines = [
    f'{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}'
    for a, b, c, d in [header, *rows]
  ]
  rule = '-' * len(lines[0])
  title = f'{type(model.network).__name__}, input {size[0]}x{size[1]}x3'
  totals = [
    f'Total: {trainable + other:,}',
    f'Trainable: {trainable:,}',
    f'Non-trainable: {other:,}',
  ]
  return '\n'.join([title, rule, lines[0], rule, *lines[1:], rule, *totals])


def _find_part(name: str) -> str:
  """Returns the part that a node or variable belongs to."""
  path = name.split('/')
  # The encoder is listed block by block, everything else as a whole.
  return '/'.join(path[: 2 if path[0] == 'encoder' else 1])
