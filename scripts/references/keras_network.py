"""The original network in Keras, with random weights."""

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
    shape = weights[0].shape
    if len(weights) == 4:  # gamma, beta, moving mean, moving variance.
      new = [rng.uniform(0.5, 1, shape), *rng.normal(0, 0.2, (2, *shape))]
      new.append(rng.uniform(0.5, 1.5, shape))
    else:
      new = [rng.normal(0, np.prod(shape[:-1]) ** -0.5, shape)]
      new += [rng.normal(0, 0.1, bias.shape) for bias in weights[1:]]
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
