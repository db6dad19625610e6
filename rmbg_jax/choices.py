"""Lists the values that options take. Imports little: flags need it first."""

from typing import Literal, get_args

# Kinds of results.
Kind = Literal[
  'mask',
  'cutout',
  'side_by_side',
  'composite',
  'foreground',
  'trimap',
  'overlay',
]
KINDS: tuple[Kind, ...] = get_args(Kind)
FORMATS = ('png', 'webp', 'jpeg')
CLIP_FORMATS = ('prores', 'vp9', 'png')

# Ways to alpha at the photo's size.
Refinement = Literal['none', 'learned', 'guided', 'matting']
REFINEMENTS: tuple[Refinement, ...] = get_args(Refinement)

RUNTIMES = ('auto', 'jax', 'openvino')
PRECISIONS = ('auto', 'float32', 'bfloat16')

MAX_PIXELS = 100_000_000  # Larger photos take gigabytes once decoded.
# Times the network's input size. Memory grows with the square.
MAX_SCALE = 4
