"""Computes a foreign network with onnxruntime, where OpenVINO cannot."""

from collections.abc import Sequence

import numpy as np
import onnxruntime
from jaxtyping import Float, UInt8

from data_pipelines.io import errors
from rmbg_jax.inference import runtimes
from rmbg_jax.inference.runtimes import resampling
from rmbg_jax.weights import foreign_onnx, load

_TYPES = {'tensor(float)': np.float32, 'tensor(float16)': np.float16}


class OnnxRuntime:
  """A `Runtime` that computes one photo after the other on all threads."""

  name = 'onnxruntime'
  precision = 'float32'  # And float16, where the file has it.

  def __init__(
    self,
    loaded: load.LoadedModel,
    network: foreign_onnx.OnnxNetwork,
    views: Sequence[runtimes.View],
    *,
    batch_size: int,
    threads: int,
  ):
    """Loads the file of the network; see `make_runtime`.

    Raises:
      UserError: if it cannot be run, or makes no mask.
    """
    self.batch_size = batch_size
    self._normalize = loaded.preprocessing.normalize
    self._network = network
    self._views = views
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that wait must not spin: those that decode and encode need cores.
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    try:
      self._session = onnxruntime.InferenceSession(
        network.content or str(network.path),
        options,
        providers=['CPUExecutionProvider'],
      )
      self._entry = self._session.get_inputs()[0]
      output = network.output
      if isinstance(output, int):
        output = self._session.get_outputs()[output].name
      self._output = output
      size = max(view.size for view in views)
      # Some operations fail only when they run: now is better than later.
      self.compute_logits(np.zeros((1, *size, 3), np.uint8))
    except errors.UserError:
      raise
    except Exception as error:  # It has no class of its own above them.
      raise errors.UserError(
        f'{network.path}: neither OpenVINO nor onnxruntime can run it '
        f'({str(error).partition(chr(10))[0]}). Pass --scales=1, or export it '
        'again with plainer operations.'
      ) from error

  def compute_logits(
    self, photos: UInt8[np.ndarray, 'b h w 3']
  ) -> Float[np.ndarray, 'b h w']:
    """Returns the mean of all views' logits."""
    return np.stack(
      [
        np.mean([self._look(photo, view) for view in self._views], axis=0)
        for photo in photos
      ]
    )

  def _look(
    self, photo: UInt8[np.ndarray, 'h w 3'], view: runtimes.View
  ) -> Float[np.ndarray, 'h w']:
    size = photo.shape[:2]
    seen = photo[:, ::-1] if view.mirrored else photo
    planes = seen.transpose(2, 0, 1).astype(np.float32)
    planes = resampling.resize(planes, view.size)
    # `normalize` takes channels last, the network first.
    x = self._normalize(planes.transpose(1, 2, 0)).transpose(2, 0, 1)[None]
    x = np.ascontiguousarray(x, _TYPES[self._entry.type])
    outputs = self._session.run([self._output], {self._entry.name: x})
    y = np.asarray(outputs[0])
    self._network.check_mask(y.shape)
    y = resampling.resize(y.reshape(y.shape[-2:]), view.size)
    if not self._network.sigmoid:
      # Far outside of [0, 1] are no probabilities.
      far = np.abs(y - 0.5) > runtimes.FARTHEST
      p = np.clip(y, runtimes.LEAST, 1 - runtimes.LEAST)
      y = np.where(far, np.float32(np.nan), np.log(p / (1 - p)))
    y = y[:, ::-1] if view.mirrored else y
    if len(self._views) > 1:
      y = np.clip(y, -runtimes.SURE, runtimes.SURE)
    return resampling.resize(y, size)
