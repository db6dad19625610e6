"""What the command lines set up."""

import jax
import pytest

from rmbg_jax import runtime


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
