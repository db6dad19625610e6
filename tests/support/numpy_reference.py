"""A network of this project in NumPy, in float64: slow, plain, independent."""

import numpy as np
from flax import traverse_util


def compute_outputs(graph, variables, images):
  """Computes a network as in training, with the statistics of the batch.

  Args:
    graph: of the network, a `models.graph.Graph`.
    variables: its `params` and `batch_stats`.
    images: preprocessed, (b, h, w, 3).

  Returns:
    (logits d1 to d4, the mean of each convolution's result that a normalisation
    follows, by its name).
  """
  tensors = traverse_util.flatten_dict(variables, sep='/')
  tensors = {key: np.asarray(v, np.float64) for key, v in tensors.items()}
  nodes = list(graph.nodes.values())
  results, means = {nodes[0].name: np.asarray(images, np.float64)}, {}
  for node in nodes[1:]:
    x, *rest = (results[name] for name in node.inputs)
    if node.op == 'conv':
      x = _convolve(x, tensors, node)
      if node.norm:
        means[node.norm] = x.mean((0, 1, 2))
        x = _normalize(x, tensors, node)
    elif node.op == 'relu':
      x = np.maximum(x, 0)
    elif node.op == 'add':
      x = x + rest[0]
    elif node.op == 'concat':
      x = np.concatenate([x, *rest], axis=-1)
    elif node.op == 'resize':
      x = _enlarge(_enlarge(x, node.shape[0], axis=1), node.shape[1], axis=2)
    elif node.op == 'pool':
      padded = np.pad(
        x, ((0, 0), *node.padding, (0, 0)), constant_values=-np.inf
      )
      shifted = _shift(padded, (node.kernel,) * 2, node)
      x = np.max(list(shifted.values()), axis=0)
    else:
      raise AssertionError(node.op)
    results[node.name] = x
  return [results[name] for name in graph.outputs], means


def _convolve(x, tensors, node):
  kernel = tensors[f'params/{node.name}/kernel']
  reach = node.dilation * (kernel.shape[0] // 2)
  padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
  shifted = _shift(padded, kernel.shape[:2], node)
  result = sum(view @ kernel[at] for at, view in shifted.items())
  return result + tensors.get(f'params/{node.name}/bias', 0)


def _normalize(x, tensors, node):
  params = f'params/{node.norm}'
  gain = tensors[f'{params}/scale'] / np.sqrt(x.var((0, 1, 2)) + node.epsilon)
  return (x - x.mean((0, 1, 2))) * gain + tensors[f'{params}/bias']


def _shift(padded, window, node):
  """What lies under each place of a window, for every place of the result."""
  height, width = node.shape[:2]
  return {
    (row, column): padded[
      :,
      row * node.dilation :: node.stride,
      column * node.dilation :: node.stride,
    ][:, :height, :width]
    for row in range(window[0])
    for column in range(window[1])
  }


def _enlarge(x, size, *, axis):
  """Linear between the centres of pixels, constant beyond the last ones."""
  old = x.shape[axis]
  centres = (np.arange(size) + 0.5) * old / size - 0.5
  centres = np.clip(centres, 0, old - 1)
  below = np.floor(centres).astype(int)
  above = np.minimum(below + 1, old - 1)
  share = (centres - below).reshape([-1 if a == axis else 1 for a in range(4)])
  return np.take(x, below, axis) * (1 - share) + np.take(x, above, axis) * share
