"""Makes a table of a network: its parts, their outputs and parameters."""

import flax.linen as nn
import jax
import jax.numpy as jnp

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
  parts = []

  def record(call, args, kwargs, context):
    outputs = call(*args, **kwargs)
    path = context.module.path
    # The encoder is listed block by block, everything else as a whole.
    depth = 2 if path[:1] == ('encoder',) else 1
    if context.method_name == '__call__' and len(path) == depth:
      parts.append(('/'.join(path), outputs.shape))
    return outputs

  # Flax calls `record` in place of each method while shapes are traced.
  with nn.intercept_methods(record):
    variables = jax.eval_shape(
      lambda: model.init(
        jax.random.key(0), jnp.zeros((1, *size, model.network.channels))
      )
    )
  header = ('Part', 'Output', 'Parameters', 'Statistics')
  rows = [
    (
      part,
      'x'.join(str(side) for side in shape[1:]),
      f'{_count(variables["params"], part):,}',
      f'{_count(variables["batch_stats"], part):,}',
    )
    for part, shape in parts
  ]
  trainable = _count(variables['params'])
  other = _count(variables['batch_stats'])
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


def _count(tree, part=''):
  for name in part.split('/') if part else ():
    tree = tree.get(name, {})  # Not all parts have batch statistics.
  return sum(leaf.size for leaf in jax.tree.leaves(tree))
