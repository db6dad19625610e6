"""What the command lines set up."""

import logging

import jax
import pytest

from data_pipelines.io import errors
from rmbg_jax import runtime
from rmbg_jax.models import compiling
from rmbg_jax.weights import cache


def test_without_a_home_folder_no_programs_are_kept(monkeypatch, tmp_path):
  def fail():
    raise errors.UserError('There is no home folder.')

  monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR')
  monkeypatch.setattr(runtime, 'return_memory_after_compiling', lambda: None)
  before = jax.config.jax_compilation_cache_dir
  (tmp_path / 'file').touch()
  for cache_dir in (fail, lambda: tmp_path / 'file'):
    monkeypatch.setattr(cache, 'cache_dir', cache_dir)
    runtime.start()
    assert jax.config.jax_compilation_cache_dir == before


def test_what_orbax_raises_is_not_logged_as_well(caplog):
  runtime.start()
  logger = logging.getLogger('absl')

  def log(level, path):
    record = logger.makeRecord('absl', level, path, 1, path, (), None)
    logger.handle(record)

  log(logging.ERROR, 'site-packages/orbax/future.py')
  log(logging.WARNING, 'site-packages/orbax/manager.py')
  log(logging.ERROR, 'site-packages/grain/iterator.py')
  assert [record.levelname for record in caplog.records] == ['WARNING', 'ERROR']


@pytest.mark.skipif(
  not runtime.find_trim(), reason='the C library has no malloc_trim'
)
def test_memory_is_returned_after_long_compilations(monkeypatch):
  calls = []
  monkeypatch.setattr(runtime, 'find_trim', lambda: calls.append)
  listeners = []
  monkeypatch.setattr(
    jax.monitoring,
    'register_event_duration_secs_listener',
    listeners.append,
  )
  runtime.return_memory_after_compiling()
  (listen,) = listeners
  monkeypatch.undo()

  events = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **details: events.append((event, seconds, details))
  )
  jax.jit(lambda x: x + len(events))(1)
  # JAX still calls its event by the name that is listened to.
  (compilation,) = (e for e in events if e[0] == runtime.COMPILATION)
  event, seconds, details = compilation
  listen(event, seconds, **details)
  assert not calls
  listen(event, 5.0, **details)
  assert calls == [0]


def test_a_platform_that_is_not_there_is_named(monkeypatch):
  def fail():
    raise AssertionError  # As JAX does without CUDA's plugin.

  monkeypatch.setattr(jax, 'devices', fail)
  monkeypatch.setenv('JAX_PLATFORMS', 'cuda')
  with pytest.raises(errors.UserError, match='JAX_PLATFORMS=cuda: .* Unset it'):
    runtime.start()
  monkeypatch.delenv('JAX_PLATFORMS')
  with pytest.raises(AssertionError):
    runtime.start()


def test_a_level_of_optimisation_in_the_environment_stays(monkeypatch):
  monkeypatch.delenv('XLA_FLAGS', raising=False)
  assert compiling.make_options() == {'xla_backend_optimization_level': 1}
  monkeypatch.setenv('XLA_FLAGS', '--xla_backend_optimization_level=0')
  assert compiling.make_options() is None
