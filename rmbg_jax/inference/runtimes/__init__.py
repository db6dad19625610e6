"""Computes networks: with OpenVINO on CPUs, with JAX on accelerators.

A runtime takes photos of one size and returns logits. Its module is imported
only where it is used, and with it OpenVINO or JAX.
"""

import dataclasses
import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from data_pipelines.io import errors, parallel
from rmbg_jax import choices
from rmbg_jax import runtime as process
from rmbg_jax.weights import foreign_onnx, load

# Of several views the logits are averaged, which leaves less half-transparent
# than averaging probabilities; a view counts as no surer than .999.
SURE = 6.9
# For probabilities that become logits: the smallest one, since the logit of 0
# is infinite, and how far from .5 a value may be: others are no probabilities.
LEAST, FARTHEST = 1e-6, 0.6
# Packages by which JAX finds accelerators.
_PLUGINS = (
  'jax_cuda12_plugin',
  'jax_cuda13_plugin',
  'jax_plugins',
  'jax_rocm60_plugin',
  'jax_rocm7_plugin',
  'libtpu',
)


class CannotRunError(errors.UserError):
  """Reports a foreign network that OpenVINO cannot run."""


@dataclasses.dataclass(frozen=True)
class View:
  """A look at a photo.

  Attributes:
    network: Index of the network that looks.
    size: (height, width) of what it sees, in pixels.
    mirrored: Whether it sees the photo mirrored.
  """

  network: int
  size: tuple[int, int]
  mirrored: bool


def list_views(
  networks: Sequence[load.LoadedModel],
  *,
  scales: Sequence[float] | None = None,
  flip: bool | None = None,
) -> list[View]:
  """Returns how networks look at a photo.

  Args:
    networks: A network and its partners.
    scales: Multiples of each one's input size. Where neither this nor `flip` is
      given, both are what each checkpoint asks for.
    flip: Mirrors every second of the scales; a single scale counts twice.

  Raises:
    UserError: if a scale is out of range.
  """
  views = []
  for index, network in enumerate(networks):
    sides, mirror = scales, flip
    if scales is None and flip is None:
      sides = network.prediction.get('scales')
      mirror = network.prediction.get('flip')
    sides = tuple(sides or (1.0,))
    if mirror and len(sides) == 1:
      sides = (*sides, *sides)
    size = network.preprocessing.size
    views += [
      View(index, _scale_size(size, scale), bool(mirror and number % 2))
      for number, scale in enumerate(sides)
    ]
  return views


def _scale_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
  if not 0 < scale <= choices.MAX_SCALE:
    raise errors.UserError(
      f'scales must be above 0 and at most {choices.MAX_SCALE}, got {scale}.'
    )
  if scale == 1:
    return size
  # All encoders take multiples of 32.
  height, width = (max(32, round(side * scale / 32) * 32) for side in size)
  return height, width


@runtime_checkable
class Runtime(Protocol):
  """Computes logits of photos.

  Attributes:
    name: 'jax', 'openvino' or 'onnxruntime'.
    precision: Type of the computation, 'float32' or 'bfloat16'.
    batch_size: Most photos in a call.
  """

  name: str
  precision: str
  batch_size: int

  def compute_logits(
    self, photos: UInt8[np.ndarray, 'b h w 3']
  ) -> Float[np.ndarray, 'b h w']:
    """Returns the mean of all views' logits, of up to `batch_size` photos.

    May be called from several threads.
    """
    ...


# Computes a refiner, from several threads too: of windows' colours (RGB in
# [0, 255]) and coarse logits, the refined logits, in units of `refiner.LIMIT`.
WindowRuntime = Callable[
  [UInt8[np.ndarray, 'n h w 3'], Float[np.ndarray, 'n h w']],
  Float[np.ndarray, 'n h w'],
]


def make_runtime(
  networks: Sequence[load.LoadedModel],
  views: Sequence[View],
  *,
  runtime: str = 'auto',
  precision: str = 'auto',
  batch_size: int = 1,
  threads: int = 0,
) -> Runtime:
  """Prepares networks for photos of the largest view's size.

  Args:
    networks: Networks that look at photos.
    views: How they look; the logits are averaged.
    runtime: One of `choices.RUNTIMES`; 'auto' is JAX where it has an
      accelerator, otherwise OpenVINO. Of an `OnnxNetwork` it is OpenVINO, or
      onnxruntime where OpenVINO lacks an operation.
    precision: One of `choices.PRECISIONS`; 'auto' is float32 in JAX, and in
      OpenVINO bfloat16 where the processor computes in it and all networks are
      known to give the same masks (docs/results.md).
    batch_size: Photos that are computed together.
    threads: Threads of the network on a CPU; 0 for one per core that this
      process may use.

  Raises:
    UserError: if a choice is not possible here.
  """
  _check_options(runtime, precision, threads)
  foreign = [
    network.network
    for network in networks
    if isinstance(network.network, foreign_onnx.OnnxNetwork)
  ]
  wanted = runtime
  if runtime == 'auto':
    runtime = 'openvino' if foreign else choose_runtime()
  if runtime == 'jax':
    if foreign:
      foreign[0].refuse()  # Raises: JAX cannot compute it.
    from rmbg_jax.inference.runtimes import jax_runtime

    return jax_runtime.JaxRuntime(
      networks, views, precision=precision, batch_size=batch_size
    )
  try:
    from rmbg_jax.inference.runtimes import openvino_runtime
  except ImportError as error:
    raise errors.UserError(
      f'runtime=openvino: it cannot be used here ({error}). Install it (pip '
      'install openvino), or pass --runtime=jax.'
    ) from error
  threads = threads or parallel.count_cores()
  try:
    return openvino_runtime.OpenVinoRuntime(
      networks,
      views,
      precision=precision,
      batch_size=batch_size,
      threads=threads,
    )
  except CannotRunError as error:
    # What was asked for by name is not replaced by onnxruntime in float32.
    if wanted != 'auto' or precision == 'bfloat16':
      raise
    try:
      from rmbg_jax.inference.runtimes import onnx_runtime
    except ImportError:
      raise errors.UserError(
        f'{error} onnxruntime may run it: '
        f'{errors.install_command("onnxruntime")}.'
      ) from error
    return onnx_runtime.OnnxRuntime(
      networks[0], foreign[0], views, batch_size=batch_size, threads=threads
    )


def make_window_runtime(
  loaded: load.LoadedModel,
  *,
  side: int,
  runtime: str,
  precision: str,
  threads: int = 0,
) -> WindowRuntime:
  """Prepares a refiner for windows of side x side pixels.

  Args:
    loaded: The refiner.
    side: Height and width of a window, a multiple of 16.
    runtime: 'openvino' or 'jax'.
    precision: 'float32', 'bfloat16', or 'auto' as of `make_runtime`.
    threads: Threads on a CPU; 0 for one per core that this process may use.
  """
  if runtime == 'jax':
    from rmbg_jax.inference.runtimes import jax_refiner

    if precision == 'auto':
      precision = 'float32'
    return jax_refiner.JaxRefiner(loaded, side=side, precision=precision)
  from rmbg_jax.inference.runtimes import openvino_refiner

  return openvino_refiner.OpenVinoRefiner(
    loaded,
    side=side,
    precision=precision,
    threads=threads or parallel.count_cores(),
  )


def _check_options(runtime: str, precision: str, threads: int) -> None:
  for name, value, known in (
    ('runtime', runtime, choices.RUNTIMES),
    ('precision', precision, choices.PRECISIONS),
  ):
    if value not in known:
      raise errors.UserError(
        f'{name}={value!r}: choose one of {", ".join(known)}.'
      )
  if threads < 0:
    raise errors.UserError(f'threads={threads}: pass 0 or more.')


def start_process(runtime: str) -> None:
  """Sets a command's process up for one of `choices.RUNTIMES`."""
  name = choose_runtime() if runtime == 'auto' else runtime
  process.start(uses_jax=name == 'jax')


def choose_runtime() -> str:
  """Returns 'jax' where JAX has an accelerator, otherwise 'openvino'.

  JAX is imported only if a package for an accelerator is installed.
  """
  # An installation may leave out OpenVINO.
  if importlib.util.find_spec('openvino') is None:
    return 'jax'
  platforms = os.environ.get('JAX_PLATFORMS', '')
  if platforms == 'cpu' or not (
    platforms or any(map(importlib.util.find_spec, _PLUGINS))
  ):
    return 'openvino'
  import jax

  # For an error in words; `default_backend` would raise JAX's own.
  process.check_devices()
  return 'openvino' if jax.default_backend() == 'cpu' else 'jax'
