"""Puts page and calls together, and serves them at an address."""

import errno
import socket
from collections.abc import Sequence
from pathlib import Path

import fastapi
import uvicorn
from starlette import routing, types

from data_pipelines.io import errors
from rmbg_jax.web import api, guard, options
from rmbg_jax.web import service as service_lib

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


def make_application(
  service: service_lib.Service,
  *,
  keys: Sequence[bytes],
  queue: int,
  folder: Path,
  root_path: str = '',
) -> guard.Guard:
  """Returns page and calls, behind the guard: all that is served.

  A request must have one of the keys, if there are any. As many wait as the
  queue has room for, their bodies in the folder; further ones are refused. A
  proxy may show it below the root path.
  """
  import gradio as gr

  from rmbg_jax.web import page

  root_path = root_path.strip('/')
  if root_path and '://' not in root_path:  # Gradio takes whole addresses, too.
    root_path = f'/{root_path}'
  calls = api.make_api(service, queue=queue)
  # A path once, whatever the number of its methods.
  paths = {r.path for r in calls.routes if isinstance(r, routing.Route)}
  outer = fastapi.FastAPI(
    routes=[routing.Route(path, endpoint=calls) for path in sorted(paths)],
    openapi_url=None,
    docs_url=None,
  )
  blocks = page.make_page(service)
  blocks.queue(max_size=queue)
  # A bound for all that arrives; the service names single files.
  most_uploaded = service.limits.bytes * service.limits.files
  gr.mount_gradio_app(
    outer,
    blocks,
    path='/',
    root_path=root_path or None,
    max_file_size=most_uploaded,
    show_error=False,
    footer_links=['api'],
    ssr_mode=False,  # It needs Node.
    theme=page.THEME,
    css=page.CSS,
  )
  # Gradio checks the paths of files only in a page that has been launched.
  # Without this, visitors could name any file of this machine.
  blocks.has_launched = True
  most = dict.fromkeys(paths, service.limits.call_bytes)
  most['/gradio_api/upload'] = most_uploaded + options.OTHER_BYTES
  return guard.Guard(
    outer,
    keys=keys,
    find_most=lambda path: most.get(path.rstrip('/'), options.OTHER_BYTES),
    folder=folder,
    root_path=root_path,
  )


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
