"""Serves an application in a thread."""

import contextlib
import threading

from rmbg_jax.web import server


@contextlib.contextmanager
def serving(application, host='127.0.0.1'):
  """Yields the address that the page would print."""
  listening = server.bind(host, 0)
  running = server.make_server(application)
  thread = threading.Thread(
    target=running.run, args=([listening],), daemon=True
  )
  thread.start()
  try:
    yield server.find_url(listening, host)
  finally:
    running.should_exit = True
    thread.join(20)
  assert not thread.is_alive()
