"""Checks every request first: keys, bodies, addresses.

It knows no routes, so that no package can add one that it forgets.
A body is on the disk, whole, before anything behind it sees the request.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import re
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import IO
from urllib import parse as urls

from starlette import datastructures, responses, types

from rmbg_jax.web import problems

HEALTH = '/healthz'
_PAGE_CALLS = '/gradio_api/'  # Gradio's own routes begin so.
_FOREIGN = '/v1.0/'  # Calls of remove.bg's interface.

# Bytes on the disk that all bodies together may take, at least.
_ROOM = 2_000_000_000
_MOST_BODIES = 256
# Larger bodies are in a file.
_IN_MEMORY = 65_536
_CHUNK = 262_144
# A body loses its place at the earlier of two times. Each is so many seconds
# after its beginning, and later the more bytes have come. This one is for
# bodies that hardly begin:
_FIRST_SECONDS, _FIRST_BYTES_PER_SECOND = 10, 10_000
# This one is the earlier for large bodies:
_ALL_SECONDS, _ALL_BYTES_PER_SECOND = 120, 500_000


class Guard:
  """An ASGI application that lets requests in to another one."""

  def __init__(
    self,
    application: types.ASGIApp,
    *,
    keys: Sequence[bytes],
    find_most: Callable[[str], int],
    folder: Path,
    root_path: str = '',
  ):
    """Lets in requests that have a key.

    Args:
      application: What answers.
      keys: A request must have one of these; empty to ask for none.
      find_most: Returns how many bytes a body may have, by its path.
      folder: Folder for bodies that wait.
      root_path: What paths may begin with, as proxies pass it on.
    """
    self._application = application
    self._digests = [hashlib.sha256(key).digest() for key in keys]
    self._find_most = find_most
    self._folder = folder
    self._root_path = root_path.rstrip('/')
    self._sizes: dict[object, int] = {}  # Bytes of the bodies that are here.

  async def __call__(
    self, scope: types.Scope, receive: types.Receive, send: types.Send
  ) -> None:
    """Answers a request, or passes it on to the application."""
    if scope['type'] == 'lifespan':
      await self._application(scope, receive, send)
      return
    asked, scope = scope['path'], self._strip_root(scope)
    async with contextlib.AsyncExitStack() as stack:
      try:
        self._check_key(scope)
        _check_address(scope['path'])
        if scope['type'] == 'http':
          receive = await stack.enter_async_context(self._spool(scope, receive))
      except problems.ProblemError as problem:
        if scope['type'] == 'http':
          await problem.to_response()(scope, receive, send)
        else:  # Refuses a websocket.
          await send({'type': 'websocket.close', 'code': 1008})
        return
      if scope['type'] == 'http' and asked == self._root_path:
        # The page's own addresses are relative to its folder.
        redirect = responses.RedirectResponse(f'{self._root_path}/')
        await redirect(scope, receive, send)
        return
      await self._application(scope, receive, send)

  def _strip_root(self, scope: types.Scope) -> types.Scope:
    path = scope['path']
    # With slashes, since `/application` is not below `/app`.
    if self._root_path and f'{path}/'.startswith(f'{self._root_path}/'):
      path = path.removeprefix(self._root_path) or '/'
      return {**scope, 'path': path, 'raw_path': urls.quote(path).encode()}
    return scope

  def _check_key(self, scope: types.Scope) -> None:
    """Checks the key, in a time that does not depend on it."""
    path = scope['path']
    if not self._digests or path == HEALTH:
      return
    headers = datastructures.Headers(scope=scope)
    # The first is for programs; browsers ask people for the second.
    sent = [headers.get('x-api-key', '').encode('latin-1'), _password(headers)]
    # Digests are equally long; a comparison of keys would tell their lengths.
    digests = [hashlib.sha256(one).digest() for one in sent]
    # A list, since `any` would stop at the first and so take less time.
    found = [
      hmac.compare_digest(digest, one)
      for digest in digests
      for one in self._digests
    ]
    if not any(found):
      raise problems.ProblemError(
        'auth_failed',
        'API Key invalid',
        'Send one of the keys of this server in the header X-Api-Key. A '
        'browser asks for it as the password; the name does not matter.',
        # What remove.bg answers.
        status=403 if path.startswith(_FOREIGN) else None,
        headers={'WWW-Authenticate': 'Basic realm="key", charset="UTF-8"'},
      )

  @contextlib.asynccontextmanager
  async def _spool(
    self, scope: types.Scope, receive: types.Receive
  ) -> AsyncIterator[types.Receive]:
    """Yields a `receive` that gives the body, once all of it has come.

    Raises:
      ProblemError: if it is too large or too slow, or there is no room.
    """
    headers = datastructures.Headers(scope=scope)
    length = headers.get('content-length', '')
    declared = int(length) if length.isdecimal() else 0
    if not declared and 'transfer-encoding' not in headers:
      yield receive
      return
    body, most = object(), self._find_most(scope['path'])
    try:
      self._reserve(body, declared, most)  # Before a byte of it is read.
      self._folder.mkdir(parents=True, exist_ok=True)
      with tempfile.SpooledTemporaryFile(
        max_size=_IN_MEMORY, dir=str(self._folder)
      ) as file:
        began, received, more = time.monotonic(), 0, True
        while more:
          content, more = await _receive(receive, began, received)
          received += len(content)
          self._reserve(body, max(declared, received), most)
          try:
            file.write(content)
          except OSError as error:
            raise _no_room() from error
        file.seek(0)
        if scope['path'].startswith(_PAGE_CALLS):
          _check_addresses(file, headers)
        yield _replay(file, receive)
    finally:
      self._sizes.pop(body, None)

  def _reserve(self, body: object, size: int, most: int) -> None:
    """Sets how many bytes a body has, which may have so many at most."""
    if size > most:
      raise problems.ProblemError(
        'file_size_too_large', f'The body has more than {most} bytes'
      )
    self._sizes[body] = size
    too_many = len(self._sizes) > _MOST_BODIES
    if too_many or sum(self._sizes.values()) > max(most, _ROOM):
      raise _no_room()


async def _receive(
  receive: types.Receive, began: float, received: int
) -> tuple[bytes, bool]:
  """Returns the next part of a body, and whether there are more."""
  limit = min(
    _FIRST_SECONDS + received / _FIRST_BYTES_PER_SECOND,
    _ALL_SECONDS + received / _ALL_BYTES_PER_SECOND,
  )
  try:
    async with asyncio.timeout(began + limit - time.monotonic()):
      message = await receive()
  except TimeoutError as error:
    raise problems.ProblemError(
      'request_timeout',
      f'The body did not arrive: {received} bytes in {limit:.0f} seconds',
    ) from error
  if message['type'] == 'http.disconnect':
    raise problems.ProblemError('incomplete_body', 'The body is incomplete')
  return message.get('body', b''), message.get('more_body', False)


def _replay(file: IO[bytes], receive: types.Receive) -> types.Receive:
  """Returns a `receive` that gives a body in parts, then the next events."""
  is_over = False

  async def give() -> types.Message:
    nonlocal is_over
    if is_over:
      # The body is over: what comes now is news of the connection.
      return await receive()
    content = file.read(_CHUNK)
    is_over = not content
    return {'type': 'http.request', 'body': content, 'more_body': not is_over}

  return give


def _password(headers: datastructures.Headers) -> bytes:
  kind, _, text = headers.get('authorization', '').partition(' ')
  if kind.lower() != 'basic':
    return b''
  try:
    return base64.b64decode(text, validate=True).partition(b':')[2]
  except ValueError:
    return b''


def _check_address(path: str) -> None:
  """Refuses paths of Gradio's that would make the server fetch something."""
  # /proxy=ADDRESS and /file=ADDRESS.
  if path.startswith(_PAGE_CALLS) and re.search(
    r'(^|/)(proxy=|file[=/]\s*[a-z]+://?)', path, re.IGNORECASE
  ):
    raise _no_address()


def _check_addresses(file: IO[bytes], headers: datastructures.Headers) -> None:
  """Refuses calls with a file whose path is an address: it would be fetched."""
  if headers.get('content-type', '').startswith('multipart/form-data'):
    return  # Files themselves, with nothing beside them.
  try:
    body = json.load(file)
  except (ValueError, RecursionError):
    body = None  # The application will say so.
  file.seek(0)
  # A list, not a recursion: bodies may be nested deeply.
  left = [body]
  while left:
    value = left.pop()
    if isinstance(value, dict):
      path = value.get('path')
      if isinstance(path, str) and '://' in path:
        raise _no_address()
      left += value.values()
    elif isinstance(value, list):
      left += value


def _no_address() -> problems.ProblemError:
  return problems.ProblemError(
    'invalid_file', 'This server fetches no addresses', 'Send the file itself.'
  )


def _no_room() -> problems.ProblemError:
  return problems.ProblemError(
    'unavailable', 'There is no room for another body now. Try again.'
  )
