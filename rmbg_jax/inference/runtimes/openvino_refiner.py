"""Computes a refiner's windows with OpenVINO, on a CPU."""

import threading
from concurrent import futures

import numpy as np
from jaxtyping import Float, UInt8

from rmbg_jax.inference.runtimes import openvino_runtime, resampling
from rmbg_jax.inference.runtimes.quiet_openvino import ov
from rmbg_jax.models import refiner
from rmbg_jax.weights import load

ops = ov.opset13
_Value = ov.Node | ov.Output
_BATCH = 8  # Windows that are computed together.


class OpenVinoRefiner:
  """Refines windows; may be called from several threads.

  The network's input is made in float32 in any case: the guided filter takes
  differences of nearly equal numbers.
  """

  def __init__(
    self, loaded: load.LoadedModel, *, side: int, precision: str, threads: int
  ):
    """Compiles the network for windows of side x side pixels."""
    core = ov.Core()
    if precision == 'auto':
      precision = openvino_runtime.choose_precision(core, [loaded])
    self._compiled = [
      openvino_runtime.compile_model(
        core, model, precision=type_, threads=threads, streams=threads
      )
      for model, type_ in (
        (_build_input(side), 'float32'),
        (_build_network(loaded, side), precision),
      )
    ]
    # A photo's windows are spread over the cores.
    self._pool = futures.ThreadPoolExecutor(threads, 'refiner')
    self._local = threading.local()

  def __call__(
    self,
    colours: UInt8[np.ndarray, 'n h w 3'],
    units: Float[np.ndarray, 'n h w'],
  ) -> Float[np.ndarray, 'n h w']:
    """Returns refined logits, in units of `refiner.LIMIT`."""
    starts = range(0, len(units), _BATCH)
    changes = self._pool.map(
      lambda start: self._infer(
        colours[start : start + _BATCH], units[start : start + _BATCH]
      ),
      starts,
    )
    # `units[:0]`: without windows there would be nothing to concatenate.
    return np.clip(np.concatenate([units[:0], *changes]) + units, -1, 1)

  def _infer(
    self,
    colours: UInt8[np.ndarray, 'n h w 3'],
    units: Float[np.ndarray, 'n h w'],
  ) -> Float[np.ndarray, 'n h w']:
    """Returns the changes of up to a batch of windows."""
    # A request is for one thread at a time.
    if not hasattr(self._local, 'requests'):
      self._local.requests = [
        compiled.create_infer_request() for compiled in self._compiled
      ]
    first, second = self._local.requests
    count = len(units)
    if count < _BATCH:
      missing = ((0, _BATCH - count), (0, 0), (0, 0))
      colours = np.pad(colours, (*missing, (0, 0)))
      units = np.pad(units, missing)
    blocks = first.infer([colours, units], share_inputs=True)[0]
    # A copy: the request's own memory is used again.
    return second.infer([blocks], share_inputs=True)[0][:count].copy()


def _build_input(side: int) -> ov.Model:
  """Builds the model from colours and coarse logits to the network's input.

  Both as in `refiner_jax.refine`, which has the same steps.
  """
  pixels = ov.op.Parameter(ov.Type.u8, ov.Shape([_BATCH, side, side, 3]))
  units = ov.op.Parameter(ov.Type.f32, ov.Shape([_BATCH, side, side]))
  colours = ops.transpose(ops.convert(pixels, np.float32), [0, 3, 1, 2])
  plane = ops.unsqueeze(units, ops.constant([1]))
  alpha = ops.sigmoid(_times(plane, refiner.LIMIT))
  guided = ops.clamp(
    _guide(_times(colours, 1 / 255), alpha, side),
    1 - refiner.MOST,
    refiner.MOST,
  )
  odds = ops.divide(guided, ops.subtract(np.float32(1), guided))
  planes = [
    _times(ops.subtract(colours, np.float32(127)), 1 / 128),
    plane,
    _times(ops.log(odds), 1 / refiner.LIMIT),
  ]
  # `blocks_first` is the order of `refiner_jax._join_blocks`.
  blocks = ops.space_to_depth(
    ops.concat(planes, axis=1), 'blocks_first', refiner.BLOCK
  )
  return ov.Model([blocks], [pixels, units])  # ty: ignore[no-matching-overload]


def _build_network(loaded: load.LoadedModel, side: int) -> ov.Model:
  """Builds the model from the network's input to changes of the logits."""
  half = side // refiner.BLOCK
  shape = _BATCH, refiner.Refiner.channels, half, half
  blocks = ov.op.Parameter(ov.Type.f32, ov.Shape(shape))
  changes = openvino_runtime.compute_graph(loaded, blocks, (half, half))
  pixels = ops.depth_to_space(changes, 'blocks_first', refiner.BLOCK)
  result = ops.squeeze(pixels, ops.constant([1]))
  return ov.Model([result], [blocks])  # ty: ignore[no-matching-overload]


def _guide(colours: _Value, alpha: _Value, side: int) -> _Value:
  # A matrix that averages pairs of pixels, as `refiner_jax.halve` does.
  half = np.kron(
    np.eye(side // 2, dtype=np.float32), np.full((1, 2), 0.5, np.float32)
  )
  guide, coarse = _resample(colours, half), _resample(alpha, half)
  red, green, blue = _split(guide, 3)
  others = ops.concat([green, blue], axis=1)
  products = [
    ops.multiply(guide, coarse),
    ops.multiply(red, guide),
    ops.multiply(green, others),
    ops.multiply(blue, blue),
  ]
  stack = ops.concat([guide, coarse, *products], axis=1)
  means = _average(stack, refiner.GUIDE_SIDE)
  r, g, b, a, ar, ag, ab, rr, rg, rb, gg, gb, bb = _split(means, 13)
  ar, ag, ab = (
    ops.subtract(product, ops.multiply(a, mean))
    for product, mean in ((ar, r), (ag, g), (ab, b))
  )
  rg, rb, gb = (
    ops.subtract(product, ops.multiply(*both))
    for product, both in ((rg, (r, g)), (rb, (r, b)), (gb, (g, b)))
  )
  epsilon = np.float32(refiner.GUIDE_EPSILON)
  rr, gg, bb = (
    ops.add(ops.subtract(square, ops.multiply(mean, mean)), epsilon)
    for square, mean in ((rr, r), (gg, g), (bb, b))
  )
  c_rr, c_rg, c_rb = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
  c_gg, c_gb, c_bb = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
  determinant = _dot((rr, rg, rb), (c_rr, c_rg, c_rb))
  slopes = [
    ops.divide(_dot(row, (ar, ag, ab)), determinant)
    for row in ((c_rr, c_rg, c_rb), (c_rg, c_gg, c_gb), (c_rb, c_gb, c_bb))
  ]
  offset = ops.subtract(a, _dot(slopes, (r, g, b)))
  twice = resampling.make_weights(side // 2, side)
  slopes, offset = (
    _resample(_average(x, refiner.GUIDE_SIDE), twice)
    for x in (ops.concat(slopes, axis=1), offset)
  )
  products = ops.multiply(slopes, colours)
  total = ops.reduce_sum(products, ops.constant([1]), keep_dims=True)
  return ops.add(total, offset)


def _average(x: _Value, side: int) -> _Value:
  """Returns the mean of the pixels that are in a window."""
  reach = [side // 2] * 2
  return ops.avg_pool(x, [1, 1], reach, reach, [side] * 2, exclude_pad=True)


def _resample(x: _Value, weights: Float[np.ndarray, 'new old']) -> _Value:
  """Returns x with other sides: pooling and interpolation reorder memory."""
  matrix = ops.constant(weights)
  return ops.matmul(ops.matmul(matrix, x, False, False), matrix, False, True)


def _times(x: _Value, factor: float) -> _Value:
  return ops.multiply(x, np.float32(factor))


def _split(x: _Value, count: int) -> list[ov.Output]:
  return ops.split(x, ops.constant(1), count).outputs()


def _dot(first, second) -> _Value:
  x, y, z = map(ops.multiply, first, second)
  return ops.add(ops.add(x, y), z)
