"""A second start traces nothing, and computes the same."""

import jax
import numpy as np
import pytest

from rmbg_jax.inference import remover
from rmbg_jax.models import program
from rmbg_jax.weights import load, trace_cache


@pytest.fixture
def cache(tmp_path):
  before = jax.config.jax_compilation_cache_dir
  jax.config.update('jax_compilation_cache_dir', str(tmp_path))
  yield tmp_path
  jax.config.update('jax_compilation_cache_dir', before)


def _count(calls):
  def make():
    calls.append(1)
    return b'content\nof two lines'

  return make


def test_what_is_kept_is_made_once(cache):
  calls = []
  for _ in range(3):
    assert trace_cache.keep(_count(calls), 'a', 1) == b'content\nof two lines'
  assert len(calls) == 1
  trace_cache.keep(_count(calls), 'a', 2)
  assert len(calls) == 2


def test_damaged_files_and_other_sources_are_made_anew(cache, monkeypatch):
  calls = []
  trace_cache.keep(_count(calls))
  (file,) = (cache / 'rmbg_jax').iterdir()
  for damaged in (b'', b'content', file.read_bytes()[:-1]):
    file.write_bytes(damaged)
    assert trace_cache.keep(_count(calls)) == b'content\nof two lines'
  assert len(calls) == 4
  monkeypatch.setattr(
    trace_cache, '_list_sources', lambda: [('changed.py', 1, 1)]
  )
  trace_cache.keep(_count(calls))
  assert len(calls) == 5


def test_nothing_is_kept_without_a_folder(cache):
  jax.config.update('jax_compilation_cache_dir', None)
  calls = []
  for _ in range(2):
    trace_cache.keep(_count(calls))
  assert len(calls) == 2 and not list(cache.iterdir())


def test_where_nothing_can_be_written_it_is_made(cache):
  (cache / 'rmbg_jax').write_text('no folder')
  calls = []
  assert trace_cache.keep(_count(calls)) == b'content\nof two lines'
  assert len(calls) == 1


def _make_remover(**options):
  return remover.BackgroundRemover.from_checkpoint('small', **options)


def test_a_second_remover_traces_nothing(cache, monkeypatch):
  """Alike, but for rounding, to what is traced without a folder."""
  monkeypatch.setattr(jax, 'local_devices', lambda: jax.devices()[:1])
  size = load.load_model('small').preprocessing.size
  image = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
  first = _make_remover().predict(image)
  flipped = _make_remover(flip=True)
  assert np.abs(flipped.predict(image) - first).max() > 1e-3

  def fail(*args, **kwargs):
    raise AssertionError('traced')

  with monkeypatch.context() as patch:
    patch.setattr(program.Program, 'compute_logits', fail)
    patch.setattr(jax, 'eval_shape', fail)
    again = _make_remover().predict(image)
  np.testing.assert_array_equal(again, first)
  jax.config.update('jax_compilation_cache_dir', None)
  plain = _make_remover().predict(image)
  np.testing.assert_allclose(plain, first, atol=1e-5)
