"""Tests whether an address answers, before a library waits for minutes."""

import contextlib
import socket
import threading

PATIENCE = 10.0  # Seconds.


def find_silence(url: str) -> str:
  """Returns why nothing answers at an address; '' if anything does.

  Proxies are those of the environment. What is answered does not matter: the
  library that asks in earnest will say it.
  """
  # They bring HTTP, e-mail and TLS, which most commands do not need.
  import urllib.error
  import urllib.parse
  import urllib.request

  class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: object, **options: object):
      return None  # Which is an answer.

  proxy = urllib.request.getproxies().get(urllib.parse.urlsplit(url).scheme)
  where = f'{url}, through the proxy {proxy},' if proxy else url
  # The last word counts: silence, unless the thread has another.
  found = [f'{where} does not answer within {PATIENCE:g} seconds']

  def ask():
    opener = urllib.request.build_opener(NoRedirect)
    try:
      with contextlib.closing(opener.open(url, timeout=PATIENCE)):
        found.append('')
    # A status is an answer, whatever it says.
    except urllib.error.HTTPError:
      found.append('')
    except TimeoutError:
      pass
    except OSError as error:
      cause = getattr(error, 'reason', error)
      if isinstance(cause, TimeoutError):
        return
      is_silent = isinstance(cause, ConnectionRefusedError | socket.gaierror)
      found.append(f'{where} cannot be reached ({cause})' if is_silent else '')
    except Exception:  # Of whatever else is no HTTP: somebody is there.
      found.append('')

  # A thread, since looking up a name has no limit of its own.
  thread = threading.Thread(target=ask, daemon=True)
  thread.start()
  thread.join(PATIENCE)
  return found[-1]
