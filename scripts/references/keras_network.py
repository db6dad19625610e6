"""The original network and its encoders in Keras, with random weights."""

import types
from typing import Any

import numpy as np

Model = Any  # A `keras.Model` of whichever Keras is passed.


def build_original(
  keras: types.ModuleType,
  *,
  size: tuple[int, int],
  bridge: int = 1024,
  decoder: tuple[int, ...] = (512, 256, 128, 64),
) -> Model:
  """Builds the Keras project's network, its four outputs concatenated.

  Args:
    keras: `keras` or `tf_keras`.
    size: (height, width) of the input.
    bridge: Filters of the bridge.
    decoder: Filters of each decoder block.
  """
  layers = keras.layers
  inputs = layers.Input((*size, 3))
  resnet = keras.applications.ResNet50(
    include_top=False, weights=None, input_tensor=inputs
  )

  def norm(x):
    return layers.BatchNormalization()(x)

  def relu(x):
    return layers.Activation('relu')(x)

  def residual(x, filters):
    y = relu(norm(layers.Conv2D(filters, 3, padding='same')(x)))
    y = norm(layers.Conv2D(filters, 3, padding='same')(y))
    shortcut = norm(layers.Conv2D(filters, 1, padding='same')(x))
    return relu(y + shortcut)

  x = resnet.get_layer('conv4_block6_out').output
  branches = [
    relu(norm(layers.Conv2D(bridge, 3, dilation_rate=r, padding='same')(x)))
    for r in (3, 6, 9)
  ]
  x = layers.Concatenate()(branches)
  x = relu(norm(layers.Conv2D(bridge, 1, padding='same')(x)))
  skips = ['conv3_block4_out', 'conv2_block3_out', 'conv1_relu']
  skips = [resnet.get_layer(name).output for name in skips] + [inputs]
  blocks = []
  for filters, skip in zip(decoder, skips, strict=True):
    x = layers.UpSampling2D(2, interpolation='bilinear')(x)
    x = residual(layers.Concatenate()([x, skip]), filters)
    blocks.append(x)
  outputs = []
  for factor, x in zip((8, 4, 2, 1), blocks, strict=True):
    if factor > 1:
      x = layers.UpSampling2D(factor, interpolation='bilinear')(x)
    outputs.append(layers.Conv2D(1, 1, activation='sigmoid')(x))
  return keras.Model(inputs, layers.Concatenate()(outputs))


def randomize(
  keras: types.ModuleType,
  model: Model,
  images: np.ndarray,
  rng: np.random.Generator,
) -> None:
  """Gives a model random weights and batch statistics that keep it alive.

  Heads (convolutions with a sigmoid) are scaled on `images` so that their
  outputs are neither 0 nor 1 nor all alike.
  """
  for layer in model.layers:
    weights = layer.get_weights()
    if not weights:
      continue
    if len(weights) == 4:  # gamma, beta, moving mean, moving variance.
      shape = weights[0].shape
      layer.set_weights(
        [
          rng.uniform(0.5, 1, shape),
          rng.normal(0, 0.2, shape),
          rng.normal(0, 0.2, shape),
          rng.uniform(0.5, 1.5, shape),
        ]
      )
    else:
      kernel = weights[0]
      fan_in = np.prod(kernel.shape[:-1])
      new = [rng.normal(0, fan_in**-0.5, kernel.shape)]
      if len(weights) == 2:
        new.append(rng.normal(0, 0.1, weights[1].shape))
      layer.set_weights(new)
  heads = [
    layer
    for layer in model.layers
    if getattr(layer, 'activation', None) is keras.activations.sigmoid
  ]
  if not heads:
    return
  features = keras.Model(model.inputs, [head.input for head in heads])
  for head, x in zip(heads, features.predict(images, verbose=0), strict=True):
    kernel, _ = head.get_weights()
    logits = x @ kernel[0, 0]
    scale = 1.5 / logits.std()
    head.set_weights([kernel * scale, np.array([-logits.mean() * scale])])


def build_torchvision_resnet(keras: types.ModuleType) -> Model:
  """Builds torchvision's ResNet50 of Keras layers; features conv1 to conv4.

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


def torchvision_state_dict(model: Model) -> dict[str, np.ndarray]:
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
