"""Serves an application at an address of this machine."""

import errno
import socket

import uvicorn
from starlette import types

from data_pipelines.io import errors

_FIRST_PORT, _PORTS = 7860, 100
_CLOSE_SECONDS = 5


def bind(host: str, port: int | None) -> socket.socket:
  """Returns a socket that listens, at the first free port if none is named.

  Raises:
    UserError: naming the flag that cannot be used.
  """
  try:
    family, _, _, _, address = socket.getaddrinfo(
      host.strip('[]'),
      port or 0,
      type=socket.SOCK_STREAM,
      flags=socket.AI_PASSIVE,
    )[0]
  except (OSError, UnicodeError) as error:
    raise _wrong_host(host, 'it is not known') from error
  ports = range(_FIRST_PORT, _FIRST_PORT + _PORTS) if port is None else [port]
  for one in ports:
    try:
      return socket.create_server(
        # An address of IPv6 has two more numbers.
        (address[0], one, *address[2:]),
        family=family,
        backlog=2048,  # As many as uvicorn's own.
        dualstack_ipv6=family == socket.AF_INET6
        and socket.has_dualstack_ipv6(),
      )
    except PermissionError as error:
      raise errors.UserError(
        f'--port={one}: no permission. Pass one above 1023.'
      ) from error
    except OSError as error:
      if error.errno != errno.EADDRINUSE:
        why = 'it is not an address of this machine'
        raise _wrong_host(host, why) from error
  said = '' if port is None else f' --port={port}'
  raise errors.UserError(f'--host={host}{said}: no free port. Pass another.')


def find_url(listening: socket.socket, host: str) -> str:
  """Returns the address on this machine of a socket that `bind` returned."""
  name = host.strip('[]')
  # These are for listening: no browser can open them.
  if name in ('0.0.0.0', '::'):  # noqa: S104
    name = 'localhost'
  elif ':' in name:
    name = f'[{name}]'  # Or its end would be taken for the port.
  return f'http://{name}:{listening.getsockname()[1]}/'


def make_server(application: types.ASGIApp) -> uvicorn.Server:
  """Returns what serves an application on a socket, by `run`."""
  return uvicorn.Server(
    uvicorn.Config(
      application,
      log_level='warning',
      timeout_graceful_shutdown=_CLOSE_SECONDS,
    )
  )


def _wrong_host(host: str, reason: str) -> errors.UserError:
  return errors.UserError(
    f'--host={host}: {reason}. Pass 127.0.0.1 for this machine alone, 0.0.0.0 '
    'for all that reach it, or an address of it.'
  )
