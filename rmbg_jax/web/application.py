"""Puts page and calls together, behind the guard."""

from collections.abc import Sequence
from pathlib import Path

import fastapi
import gradio as gr

from rmbg_jax.web import api, guard, options, page
from rmbg_jax.web import service as service_lib

_UPLOAD = '/gradio_api/upload'


def make_application(
  service: service_lib.Service,
  *,
  keys: Sequence[bytes],
  queue: int,
  folder: Path,
  root_path: str = '',
) -> guard.Guard:
  """Returns all that is served.

  A request must have one of the keys, if there are any. As many wait as the
  queue has room for, their bodies in the folder; further ones are refused. A
  proxy may show it below the root path.
  """
  root_path = root_path.strip('/')
  if root_path and '://' not in root_path:  # Gradio takes whole addresses, too.
    root_path = f'/{root_path}'
  calls = api.make_api(service, queue=queue)
  blocks = page.make_page(service)
  blocks.queue(max_size=queue)
  routes = api.list_routes(calls)
  outer = fastapi.FastAPI(routes=[*routes], openapi_url=None, docs_url=None)
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
  paths = {route.path for route in routes}

  def find_most(path: str) -> int:
    if path.rstrip('/') == _UPLOAD:
      return most_uploaded + options.OTHER_BYTES
    if path in paths:
      return service.limits.call_bytes
    return options.OTHER_BYTES

  return guard.Guard(
    outer,
    keys=keys,
    find_most=find_most,
    folder=folder,
    root_path=root_path,
  )
