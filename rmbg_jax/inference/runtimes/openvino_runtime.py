"""Computes networks with OpenVINO, on a CPU. It imports no JAX."""

import contextlib
import math
import threading
from collections.abc import Iterator, Sequence
from concurrent import futures

import numpy as np
from jaxtyping import Float, UInt8

from data_pipelines.io import errors
from rmbg_jax.inference import runtimes
from rmbg_jax.inference.runtimes import resampling
from rmbg_jax.inference.runtimes.quiet_openvino import ov
from rmbg_jax.models import graph as graph_lib
from rmbg_jax.models import layers, u2net
from rmbg_jax.models.preprocessing import Preprocessing
from rmbg_jax.weights import load
from rmbg_jax.weights.foreign_onnx import OnnxNetwork

ops = ov.opset13
_Value = ov.Node | ov.Output
_TYPES = {'float32': 'f32', 'bfloat16': 'bf16'}
_MOST_VALUES = 2**30  # Of a foreign network's layer.


class OpenVinoRuntime:
  """A `Runtime` that computes each photo of a batch on some of the cores."""

  name = 'openvino'

  def __init__(
    self,
    networks: Sequence[load.LoadedModel],
    views: Sequence[runtimes.View],
    *,
    precision: str,
    batch_size: int,
    threads: int,
  ):
    """Compiles the networks; see `make_runtime`."""
    core = ov.Core()
    if precision == 'auto':
      precision = choose_precision(core, networks)
    self.batch_size = batch_size
    # A stream for each photo of a batch, as long as each has a thread.
    streams = min(batch_size, threads)

    def compile_view(view: runtimes.View) -> ov.CompiledModel:
      network = networks[view.network]
      model = _build_model(core, network, view, views)
      with _naming(network.network):
        return compile_model(
          core, model, precision=precision, threads=threads, streams=streams
        )

    # One model for each: OpenVINO compiles a model in one thread. The largest
    # networks come last, and take longest.
    with futures.ThreadPoolExecutor(threads) as pool:
      # Reversed, so that these begin first; a mean of logits has no order.
      self._compiled = list(pool.map(compile_view, views[::-1]))
    # A processor without bfloat16 computes in float32, whatever is asked for.
    chosen = self._compiled[0].get_property('INFERENCE_PRECISION_HINT')
    self.precision = 'bfloat16' if chosen == ov.Type.bf16 else 'float32'
    self._pool = futures.ThreadPoolExecutor(streams, 'openvino')
    self._local = threading.local()

  def compute_logits(
    self, photos: UInt8[np.ndarray, 'b h w 3']
  ) -> Float[np.ndarray, 'b h w']:
    """Returns the mean of all views' logits."""
    return np.concatenate(list(self._pool.map(self._infer, photos)))

  def _infer(self, photo: np.ndarray) -> np.ndarray:
    # A request is for one thread at a time.
    if not hasattr(self._local, 'requests'):
      self._local.requests = [
        compiled.create_infer_request() for compiled in self._compiled
      ]
    photo = np.ascontiguousarray(photo[None])
    logits = [request.infer([photo])[0] for request in self._local.requests]
    return np.mean(logits, axis=0)


def compile_model(
  core: ov.Core, model: ov.Model, *, precision: str, threads: int, streams: int
) -> ov.CompiledModel:
  """Compiles a model for the CPU.

  Args:
    core: OpenVINO's core.
    model: The model.
    precision: 'float32' or 'bfloat16'.
    threads: Threads of all streams together.
    streams: Calls that are computed at the same time.
  """
  options = {
    'INFERENCE_PRECISION_HINT': _TYPES[precision],
    'INFERENCE_NUM_THREADS': threads,
    'NUM_STREAMS': streams,
    # Threads that decode and encode share the cores.
    'ENABLE_CPU_PINNING': False,
  }
  return core.compile_model(model, 'CPU', options)


def choose_precision(
  core: ov.Core, networks: Sequence[load.LoadedModel]
) -> str:
  """Returns 'bfloat16' where it is fast and keeps the masks as they are."""
  fast = core.get_property('CPU', 'INFERENCE_PRECISION_HINT') == ov.Type.bf16
  # Large numbers cancel in U2-Net, which shows in its masks; of foreign
  # networks nothing is known.
  sensitive = any(
    isinstance(n.network, u2net.U2Net | OnnxNetwork) for n in networks
  )
  return 'bfloat16' if fast and not sensitive else 'float32'


def _build_model(
  core: ov.Core,
  network: load.LoadedModel,
  view: runtimes.View,
  views: Sequence[runtimes.View],
) -> ov.Model:
  """Builds a view's model: photo uint8 (1, h, w, 3) to logits (1, h, w)."""
  size = max(view.size for view in views)
  photo = ov.op.Parameter(ov.Type.u8, ov.Shape([1, *size, 3]))
  x = ops.transpose(ops.convert(photo, np.float32), [0, 3, 1, 2])
  x = _mirror(x, size[1]) if view.mirrored else x
  x = _normalize(_resize(x, size, view.size), network.preprocessing)
  if isinstance(network.network, OnnxNetwork):
    x = _splice(core, network.network, x, view.size)
  else:
    x = compute_graph(network, x, view.size)
  x = _mirror(x, view.size[1]) if view.mirrored else x
  if len(views) > 1:
    x = ops.clamp(x, -runtimes.SURE, runtimes.SURE)
  logits = ops.squeeze(_resize(x, view.size, size), ops.constant([1]))
  # OpenVINO's stubs say that `self` is of another class.
  return ov.Model([logits], [photo])  # ty: ignore[no-matching-overload]


def compute_graph(
  network: load.LoadedModel, x: _Value, size: tuple[int, int]
) -> _Value:
  """Returns the last output (b, f, h, w) of a network of this project.

  Args:
    network: The network.
    x: Its input (b, c, h, w).
    size: (height, width) of the input.
  """
  graph = graph_lib.Graph(network.network, size=size)
  variables = layers.flatten(network.variables)
  results = {graph_lib.INPUT: x}
  for node in graph.find_needed(graph.outputs[-1])[1:]:
    inputs = [results[name] for name in node.inputs]
    if node.op in graph_lib.CONVOLUTIONS:
      weights = graph_lib.fold_conv(variables, node)
      results[node.name] = _convolve(node, inputs[0], *weights)
    else:
      height, width, _ = graph.nodes[node.inputs[0]].shape
      results[node.name] = _compute(node, inputs, (height, width))
  return results[graph.outputs[-1]]


def _splice(
  core: ov.Core, network: OnnxNetwork, x: _Value, size: tuple[int, int]
) -> _Value:
  """Returns the logits (1, 1, h, w) of a foreign network.

  Raises:
    UserError: if the file cannot be run, or makes no mask.
  """
  with _naming(network):
    model = core.read_model(network.content or network.path)
    (entry,) = model.get_parameters()
    model.reshape({entry.output(0): [1, 3, *size]})
    x = ops.convert(x, entry.get_element_type().to_dtype())
    if any(
      math.prod(value.get_shape()) > _MOST_VALUES
      for one in model.get_ops()
      for value in one.outputs()
      # Shapes that are not known yet cannot be counted.
      if value.get_partial_shape().is_static
    ):
      raise errors.UserError(
        f'{network.path}: it would need more than 4 GB for one layer at '
        f'{size[0]}x{size[1]}. Pass --scales=1, or use a smaller network.'
      )
    found = model.output(network.output)
    shape = tuple(found.get_shape())
    # The node before: the output's own only marks it.
    result = found.get_node().input_value(0)
    if result.get_node() == entry:  # It returns its input.
      result = ops.convert(x, np.float32).output(0)
    # What the file's input fed, our input feeds.
    for target in entry.output(0).get_target_inputs():
      target.replace_source_output(x.output(0))
  network.check_mask(shape)
  y = ops.reshape(
    ops.convert(result, np.float32), ops.constant([1, 1, *shape[-2:]]), False
  )
  y = _resize(y, (shape[-2], shape[-1]), size)
  if network.sigmoid:
    return y
  # Far outside of [0, 1] are no probabilities; `refine` reports what is NaN.
  far = ops.greater(
    ops.abs(ops.subtract(y, np.float32(0.5))), np.float32(runtimes.FARTHEST)
  )
  p = ops.clamp(y, runtimes.LEAST, 1 - runtimes.LEAST)
  logits = ops.log(ops.divide(p, ops.subtract(np.float32(1), p)))
  return ops.select(far, ops.constant(np.float32(np.nan)), logits)


@contextlib.contextmanager
def _naming(network: layers.Network) -> Iterator[None]:
  """Makes errors of OpenVINO over a foreign network `CannotRunError`s."""
  try:
    yield
  except (RuntimeError, ValueError, TypeError) as error:
    if not isinstance(network, OnnxNetwork) or isinstance(
      error, errors.UserError
    ):
      raise
    lines = [line for line in str(error).splitlines() if line.strip()]
    raise runtimes.CannotRunError(
      f'{network.path}: OpenVINO cannot run it at this size '
      f'({lines[-1].strip() if lines else type(error).__name__}). Pass '
      '--scales=1, or export it again with plainer operations.'
    ) from error


def _mirror(x: _Value, width: int) -> _Value:
  columns = ops.constant(np.arange(width - 1, -1, -1))
  return ops.gather(x, columns, ops.constant(3))


def _resize(x: _Value, old: tuple[int, int], new: tuple[int, int]) -> _Value:
  if old == new:
    return x
  rows, columns = map(resampling.make_weights, old, new)
  x = ops.matmul(ops.constant(rows), x, False, False)
  return ops.matmul(x, ops.constant(columns), False, True)


def _normalize(x: _Value, preprocessing: Preprocessing) -> _Value:
  """Does what `Preprocessing.normalize` does, channels first."""
  scale = preprocessing.scale
  if scale == 'maximum':
    brightest = ops.reduce_max(x, ops.constant([1, 2, 3]), keep_dims=True)
    x = ops.divide(x, ops.maximum(brightest, np.float32(1)))
    scale = 1.0
  if preprocessing.channels == 'bgr':
    x = ops.gather(x, ops.constant([2, 1, 0]), ops.constant(1))
  shape = (1, 3, 1, 1)
  mean, std = (
    np.asarray(values, np.float32).reshape(shape)
    for values in (preprocessing.mean, preprocessing.std)
  )
  gain = (1 / (scale * std)).astype(np.float32)
  return ops.subtract(ops.multiply(x, gain), mean / std)


def _convolve(
  node: graph_lib.Node,
  x: _Value,
  kernel: Float[np.ndarray, 'f c kh kw'],
  bias: Float[np.ndarray, 'f'],
) -> _Value:
  convolve = ops.convolution
  if node.op == 'depthwise':
    kernel = kernel[:, :, None]  # (groups, 1, 1, kh, kw)
    convolve = ops.group_convolution
  (top, bottom), (left, right) = node.padding
  y = convolve(
    x,
    ops.constant(kernel, shared_memory=True),  # No copy of it.
    strides=[node.stride] * 2,
    pads_begin=[top, left],
    pads_end=[bottom, right],
    dilations=[node.dilation] * 2,
  )
  return ops.add(y, bias.reshape(1, -1, 1, 1))


def _compute(
  node: graph_lib.Node, inputs: Sequence[_Value], old: tuple[int, int]
) -> _Value:
  """Returns an operation's result from inputs of (height, width) pixels."""
  x = inputs[0]
  if node.op == 'pool':
    (top, bottom), (left, right) = node.padding
    return ops.max_pool(
      x,
      [node.stride] * 2,
      [1, 1],
      [top, left],
      [bottom, right],
      [node.kernel] * 2,
    ).output(0)
  if node.op == 'resize':
    if node.shape[2] == 1:  # `interpolate` is fast for many channels alone.
      return _resize(x, old, (node.shape[0], node.shape[1]))
    return ops.interpolate(
      x,
      ops.constant(list(node.shape[:2])),
      mode='linear_onnx',
      shape_calculation_mode='sizes',
      coordinate_transformation_mode='half_pixel',
      axes=ops.constant([2, 3]),
    )
  if node.op == 'concat':
    return ops.concat(list(inputs), axis=1)
  if node.op == 'relu6':
    return ops.clamp(x, 0.0, 6.0)
  return ops.relu(x) if node.op == 'relu' else ops.add(*inputs)
