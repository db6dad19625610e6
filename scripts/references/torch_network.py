"""A network of this project in PyTorch, for training and for parity."""

import torch
from torch import nn
from torch.nn import functional

from rmbg_jax.models import layers
from rmbg_jax.models.graph import Graph


class Network(nn.Module):
  """The walk of `models/graph.py`, operation by operation.

  Takes preprocessed images (b, 3, h, w) and returns the logits, as the Flax
  network does, channels first.
  """

  def __init__(self, graph: Graph, variables: layers.Variables):
    """Takes over a network's weights and batch statistics.

    Args:
      graph: Operations of the network.
      variables: Its `params` and `batch_stats`.
    """
    super().__init__()
    flat = layers.flatten(variables)
    tensors = {key: torch.tensor(value) for key, value in flat.items()}
    self.nodes = list(graph.nodes.values())
    self.outputs = graph.outputs
    self.layers = nn.ModuleDict()
    for node in self.nodes:
      if node.op == 'conv':
        self.layers[_key(node)] = _make_layers(node, tensors)

  def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
    """Returns the logits d1 to d4."""
    results = {self.nodes[0].name: images}
    for node in self.nodes[1:]:
      results[node.name] = self._compute(
        node, [results[name] for name in node.inputs]
      )
    return [results[name] for name in self.outputs]

  def _compute(self, node, inputs):
    x = inputs[0]
    if node.op == 'conv':
      return self.layers[_key(node)](x)
    if node.op == 'relu':
      return functional.relu(x)
    if node.op == 'add':
      return x + inputs[1]
    if node.op == 'concat':
      return torch.cat(inputs, dim=1)
    if node.op == 'resize':
      return functional.interpolate(x, size=node.shape[:2], mode='bilinear')
    (top, bottom), (left, right) = node.padding
    padded = functional.pad(x, (left, right, top, bottom), value=-torch.inf)
    return functional.max_pool2d(padded, node.kernel, node.stride)


def _key(node):
  return node.name.replace('/', '_')  # PyTorch has no slashes in names.


def _make_layers(node, tensors):
  kernel = tensors[f'params/{node.name}/kernel'].permute(3, 2, 0, 1)
  bias = tensors.get(f'params/{node.name}/bias')
  filters, channels, side, _ = kernel.shape
  conv = nn.Conv2d(
    channels,
    filters,
    side,
    stride=node.stride,
    padding=node.dilation * (side // 2),
    dilation=node.dilation,
    bias=bias is not None,
  )
  conv.load_state_dict(
    {'weight': kernel} | ({} if bias is None else {'bias': bias})
  )
  if not node.norm:
    return conv
  norm = nn.BatchNorm2d(filters, eps=node.epsilon, momentum=0.01)
  params, stats = f'params/{node.norm}', f'batch_stats/{node.norm}'
  norm.load_state_dict(
    {
      'weight': tensors[f'{params}/scale'],
      'bias': tensors[f'{params}/bias'],
      'running_mean': tensors[f'{stats}/mean'],
      'running_var': tensors[f'{stats}/var'],
    },
    strict=False,
  )
  return nn.Sequential(conv, norm)
