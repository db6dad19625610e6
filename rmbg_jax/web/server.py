"""Serves an application at an address of this machine."""

import socket
import threading
import time

import uvicorn
from starlette import types

from data_pipelines.io import errors

_FIRST_PORT, _PORTS = 7860, 100
_START_SECONDS, _CLOSE_SECONDS = 30, 5


def bind(host: str, port: int | None) -> socket.socket:
  """Returns a socket that listens, at the first free port if none is named.

  Raises:
    UserError: naming the flag that cannot be used.
  """
  name = host.strip('[]')
  try:
    family, _, _, _, address = socket.getaddrinfo(
      name, port or 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
  except (OSError, UnicodeError) as error:
    raise _wrong_host(host, 'it is not known') from error
  ports = range(_FIRST_PORT, _FIRST_PORT + _PORTS) if port is None else [port]
  for one in ports:
    listening = socket.socket(family, socket.SOCK_STREAM)
    # Or the port stays taken for a minute after another server's end.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      # An address of IPv6 has two more numbers.
      listening.bind((address[0], one, *address[2:]))
      listening.listen(2048)  # As many as uvicorn's own.
      return listening
    except OSError as error:
      listening.close()
      if isinstance(error, PermissionError):
        raise errors.UserError(
          f'--port={one}: no permission. Pass one above 1023.'
        ) from error
      if not _is_in_use(address, family):
        raise _wrong_host(host, 'it is not an address of this machine') from (
          error
        )
  said = '' if port is None else f' --port={port}'
  raise errors.UserError(f'--host={host}{said}: no free port. Pass another.')


class Server:
  """Serves an application in a thread.

  Attributes:
    url: Its address on this machine.
  """

  def __init__(
    self, application: types.ASGIApp, listening: socket.socket, host: str
  ):
    """Begins to serve on a socket of `bind`.

    Raises:
      UserError: if it does not begin.
    """
    name = host.strip('[]')
    # These are for listening: no browser can open them.
    if name in ('0.0.0.0', '::'):  # noqa: S104
      name = 'localhost'
    elif ':' in name:
      name = f'[{name}]'  # Or its end would be taken for the port.
    port = listening.getsockname()[1]
    self.url = f'http://{name}:{port}/'
    self._server = uvicorn.Server(
      uvicorn.Config(
        application,
        log_level='warning',
        timeout_graceful_shutdown=_CLOSE_SECONDS,
      )
    )
    self._thread = threading.Thread(
      target=self._server.run, args=([listening],), daemon=True
    )
    self._thread.start()
    end = time.monotonic() + _START_SECONDS
    # uvicorn has a flag to look at, and nothing to wait for.
    while not self._server.started:
      if time.monotonic() > end or not self._thread.is_alive():
        raise errors.UserError('The page does not start: see above.')
      time.sleep(0.01)

  def close(self) -> None:
    """Ends the answers under way, and stops serving."""
    self._server.should_exit = True
    self._thread.join(2 * _CLOSE_SECONDS)


def _is_in_use(address: tuple, family: socket.AddressFamily) -> bool:
  """Returns whether only this port is the trouble."""
  with socket.socket(family, socket.SOCK_STREAM) as probe:
    try:
      probe.bind((address[0], 0, *address[2:]))
    except OSError:
      return False
  return True


def _wrong_host(host: str, reason: str) -> errors.UserError:
  return errors.UserError(
    f'--host={host}: {reason}. Pass 127.0.0.1 for this machine alone, 0.0.0.0 '
    'for all that reach it, or an address of it.'
  )
