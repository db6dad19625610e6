"""torchvision's ResNet50 in Keras, with random weights."""

import numpy as np


def build(keras):
  """Builds it of Keras layers; features conv1 to conv4.

  Explicit padding everywhere, no biases, epsilon 1e-5, stride on the 3x3.
  """
  layers = keras.layers
  inputs = layers.Input((None, None, 3))

  def conv(x, filters, kernel, stride, name):
    if kernel > 1:
      x = layers.ZeroPadding2D(kernel // 2)(x)
    return layers.Conv2D(
      filters, kernel, strides=stride, use_bias=False, name=name
    )(x)

  def norm(x, name):
    return layers.BatchNormalization(epsilon=1e-5, name=name)(x)

  def relu(x):
    return layers.Activation('relu')(x)

  x = relu(norm(conv(inputs, 64, 7, 2, 'conv1'), 'bn1'))
  features = {'conv1': x}
  x = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))
  for stage, size in enumerate((3, 4, 6), start=1):
    filters = 32 * 2**stage
    for block in range(size):
      prefix = f'layer{stage}_{block}_'
      stride = 2 if stage > 1 and block == 0 else 1
      shortcut = x
      if block == 0:
        shortcut = conv(x, 4 * filters, 1, stride, f'{prefix}downsample_0')
        shortcut = norm(shortcut, f'{prefix}downsample_1')
      x = relu(norm(conv(x, filters, 1, 1, f'{prefix}conv1'), f'{prefix}bn1'))
      x = conv(x, filters, 3, stride, f'{prefix}conv2')
      x = relu(norm(x, f'{prefix}bn2'))
      x = norm(conv(x, 4 * filters, 1, 1, f'{prefix}conv3'), f'{prefix}bn3')
      x = relu(x + shortcut)
    features[f'conv{stage + 1}'] = x
  return keras.Model(inputs, features)


def to_state_dict(model):
  """Returns the weights of that model as torchvision stores them."""
  tensors = {}
  for layer in model.layers:
    weights = layer.get_weights()
    name = layer.name.replace('_', '.')
    if len(weights) == 1:
      tensors[f'{name}.weight'] = weights[0].transpose(3, 2, 0, 1)
    elif len(weights) == 4:
      parts = ('weight', 'bias', 'running_mean', 'running_var')
      for part, value in zip(parts, weights, strict=True):
        tensors[f'{name}.{part}'] = value
      tensors[f'{name}.num_batches_tracked'] = np.array(7)
  tensors['fc.weight'] = np.zeros((10, 8), np.float32)
  tensors['layer4.0.conv1.weight'] = np.zeros((4, 4, 1, 1), np.float32)
  return {k: np.ascontiguousarray(v) for k, v in tensors.items()}
