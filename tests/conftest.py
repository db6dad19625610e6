"""Settings for all tests."""

import gc
import importlib.metadata
import os
from pathlib import Path

# Commands of the tests find the project where it is not installed, too.
ROOT = Path(__file__).resolve().parent.parent
os.environ['PYTHONPATH'] = os.pathsep.join(
  filter(None, (str(ROOT), os.environ.get('PYTHONPATH')))
)

# Before anything imports TensorFlow: no start-up messages, no GPU.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')

# Half of the time of these tests is compilation. With all optimisations, as for
# users, test_evaluate.py computes networks, and check_installs.py trains one.
_XLA_FLAGS = '--xla_backend_optimization_level=0'
if importlib.metadata.version('jaxlib').startswith('0.10.'):
  # Later ones end the process for a flag that they do not know any more.
  _XLA_FLAGS += ' --xla_cpu_use_fusion_emitters=false'
  # Both cores are at work already: a program in parts takes a quarter longer.
  _XLA_FLAGS += ' --xla_cpu_parallel_codegen_split_count=1'
os.environ.setdefault('XLA_FLAGS', _XLA_FLAGS)

# Numba would compile all of pymatting, for a minute, for two small pictures.
os.environ.setdefault('NUMBA_DISABLE_JIT', '1')

# The same programs are compiled by many tests, their processes and the next
# run: once is enough. A program's key has its text, its flags, XLA's version.
os.environ.setdefault(
  'JAX_COMPILATION_CACHE_DIR', str(ROOT / '.pytest_cache/programs')
)
# The small ones too: every process needs the same hundred.
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')

# Traced programs are millions of objects and no garbage: to look through them
# as often as Python does takes a seventh of the time.
gc.set_threshold(200_000, 50, 1000)

import jax
import pytest
from absl import flags
from PIL import Image

from rmbg_jax.inference.runtimes import openvino_runtime

jax.config.update('jax_num_cpu_devices', 4)
jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_numpy_rank_promotion', 'raise')
# Grain reads flags, which only absl's app.run parses.
if not flags.FLAGS.is_parsed():
  flags.FLAGS.mark_as_parsed()

# Tests compare exact numbers, on any processor. The commands that they run in
# other processes choose for themselves.
openvino_runtime.choose_precision = lambda *_: 'float32'

# With --warnings-as-errors, what is let through all the same, and why.
ALLOWED_WARNINGS = (
  # Keras advises its newer format; the old one is what users have.
  'ignore:You are saving your model as an HDF5 file:UserWarning',
  # Keras 3 on NumPy 2.
  'ignore:__array__ implementation:DeprecationWarning',
  # A server in a thread may be at an answer when its test is over.
  'ignore:unclosed <socket:ResourceWarning',
  # Gradio makes one for each page, and leaves it.
  'ignore:unclosed event loop:ResourceWarning',
  # Ray forks to start a node; the child runs another program at once.
  r'ignore:os.fork\(\) was called:RuntimeWarning',
  # ml_collections reads a configuration by it.
  r'ignore:the load_module\(\) method is deprecated:DeprecationWarning',
  # Ray Data sets what it deprecates itself.
  'ignore::DeprecationWarning:ray',
  # After an error, Orbax closes the event loop that TensorStore's threads have
  # yet to answer.
  r'ignore:(?s)Exception ignored in. None.*Event loop is closed'
  ':pytest.PytestUnraisableExceptionWarning',
  # Raised inside TensorFlow and tf_keras themselves.
  'ignore::DeprecationWarning:tensorflow',
  'ignore::DeprecationWarning:tf_keras',
)


# The files that take longest, in that order.
LONGEST = (
  'test_cluster.py',
  'test_interruptions.py',
  'test_docs.py',
  'test_distributed.py',
  'test_notebooks.py',
  'test_u2net.py',
  'test_app.py',
  'test_export.py',
  'test_frozen_stages.py',
  'test_keras_h5.py',
  'test_runtimes.py',
  'test_command_lines.py',
  'test_training_loop.py',
  'test_models.py',
  'test_train.py',
  'test_hub.py',
  'test_memory.py',
  'test_refiner.py',
  'test_efficientnet.py',
)


def pytest_collection_modifyitems(items):
  """Puts the longest files first; the others stay in their order."""
  items.sort(
    key=lambda item: (
      LONGEST.index(item.path.name)
      if item.path.name in LONGEST
      else len(LONGEST)
    )
  )


def pytest_addoption(parser):
  parser.addoption(
    '--warnings-as-errors',
    action='store_true',
    help='Fail on warnings. For CI: not by default, or a new release of a '
    'library would turn a working checkout red.',
  )


def pytest_configure(config):
  if config.getoption('--warnings-as-errors'):
    config.addinivalue_line('filterwarnings', 'error')
    for allowed in ALLOWED_WARNINGS:
      config.addinivalue_line('filterwarnings', allowed)


@pytest.fixture(autouse=True)
def _same_limit_of_pixels():
  """Restores Pillow's limit, which commands change for their process."""
  limit = Image.MAX_IMAGE_PIXELS
  yield
  Image.MAX_IMAGE_PIXELS = limit


@pytest.fixture
def rng():
  import numpy as np

  return np.random.default_rng(0)
