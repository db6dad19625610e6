"""The layer `preprocess` of exported Keras files.

Users of the Keras project's model feed it BGR / 255. A fixed 1x1
convolution behind the input turns that into the input of the training.
"""

import numpy as np
from jaxtyping import Float

from data_pipelines.io import errors
from data_pipelines.io.types import JsonObject
from rmbg_jax.models.preprocessing import Preprocessing, make_preprocessing

LAYER = 'preprocess'


def make_layer(
  preprocessing: Preprocessing,
) -> tuple[Float[np.ndarray, '1 1 3 3'], Float[np.ndarray, '3']]:
  """Returns the kernel and the bias of the layer, float32.

  Raises:
    UserError: if no convolution does this preprocessing.
  """
  if preprocessing.scale == 'maximum':
    raise errors.UserError(
      "The preprocessing divides by each image's maximum, which no layer of "
      'the Keras file does. Export to .onnx or .stablehlo.'
    )
  std = np.asarray(preprocessing.std)
  # 255, since the input is divided by it already.
  kernel = np.diag(255 / (preprocessing.scale * std))
  if preprocessing.channels == 'rgb':
    kernel = kernel[::-1]  # Row i is of input channel i: blue comes first.
  bias = -np.asarray(preprocessing.mean) / std
  return kernel[None, None].astype(np.float32), bias.astype(np.float32)


def read_layer(
  kernel: np.ndarray | None,
  bias: np.ndarray | None,
  *,
  size: tuple[int, int],
  stated: JsonObject | None,
) -> Preprocessing:
  """Returns the preprocessing that a layer of a file does.

  Args:
    kernel: The layer's kernel; None without one, which is BGR / 255.
    bias: The layer's bias, None too.
    size: (height, width) of the input in pixels.
    stated: What the file says of it, which counts if the layer does that.
      Otherwise the scale is 255.

  Raises:
    UserError: if the layer mixes colours, or what is stated is impossible.
  """
  if kernel is None or bias is None:
    return make_preprocessing('original', size=size)
  if stated:
    preprocessing = Preprocessing.from_dict({**stated, 'size': list(size)})
    expected = make_layer(preprocessing)
    if all(map(np.array_equal, (kernel, bias), expected)):
      return preprocessing
  # Keras saved the file again, without what it had said of itself.
  matrix = kernel.reshape(-1, 3).astype(np.float64)
  channels = 'bgr'
  # Rows in the other order: the kernel reverses the channels.
  if matrix[0, 0] == 0:
    channels, matrix = 'rgb', matrix[::-1]
  gain = np.diag(matrix)
  if matrix.shape != (3, 3) or np.any(matrix != np.diag(gain)) or not all(gain):
    raise errors.UserError(
      f'The layer {LAYER} mixes colours: its kernel is {matrix.tolist()}. It '
      'must stay as it was exported; freeze it when training.'
    )
  return Preprocessing(
    size=size,
    channels=channels,
    scale=255.0,
    mean=tuple((-bias / gain).tolist()),
    std=tuple((1 / gain).tolist()),
  )
