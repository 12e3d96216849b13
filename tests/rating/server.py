"""The rating page in a process of its own, as a program that may be killed."""

import contextlib
import http.client
import http.cookiejar
import os
import pathlib
import re
import subprocess
import sys
import urllib.parse
import urllib.request

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_PROGRAM = """
import signal, sys
from rest_jax.rating import app, rating_config, store
from tests.rating import made
# A shell's background processes, and theirs, are born ignoring it.
signal.signal(signal.SIGINT, signal.default_int_handler)
opened = store.Store(sys.argv[1])
settings = rating_config.RatingConfig(
  port=0, host=sys.argv[3], kind=sys.argv[4], num_items=int(sys.argv[2])
)
items = getattr(made, sys.argv[5])(settings.num_items)
app.serve(opened, settings, opened.add(items))
opened.close()
print('ended', flush=True)
"""


class Server:
  """A running page.

  Attributes:
    process: of the server.
    link: what it printed.
  """

  def __init__(
    self,
    path: pathlib.Path,
    *,
    items: int,
    host: str = '127.0.0.1',
    kind: str = 'scores',
    made: str = 'items',
  ):
    self.process = subprocess.Popen(
      [sys.executable, '-c', _PROGRAM, path, str(items), host, kind, made],
      stdout=subprocess.PIPE,
      text=True,
      env={**os.environ, 'PYTHONPATH': str(_ROOT)},
    )
    assert self.process.stdout is not None
    line = self.process.stdout.readline()
    found = re.match(r'rate at (http://\S+) \(Ctrl-C ends\)', line)
    assert found, line
    self.link = found[1]

  @property
  def port(self) -> int:
    port = urllib.parse.urlsplit(self.link).port
    assert port is not None
    return port

  @property
  def root(self) -> str:
    return f'http://127.0.0.1:{self.port}'

  def kill(self) -> None:
    """Ends it at once (SIGKILL)."""
    self.process.kill()
    self.process.wait()
    if self.process.stdout is not None:
      self.process.stdout.close()

  def __enter__(self) -> 'Server':
    return self

  def __exit__(self, *exception) -> None:
    self.kill()


class Client:
  """Talks to a server, with cookies."""

  def __init__(self, server: Server):
    self._root = server.root
    self._opener = urllib.request.build_opener(
      urllib.request.ProxyHandler({}),
      urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()),
    )

  def get(self, path: str) -> str:
    with self._opener.open(self._root + path, timeout=30) as answer:
      return answer.read().decode()

  def post(self, path: str, form: dict) -> str:
    request = urllib.request.Request(
      self._root + path,
      data=urllib.parse.urlencode(form).encode(),
      headers={'Origin': self._root},
    )
    with self._opener.open(request, timeout=30) as answer:
      return answer.read().decode()

  def post_and_run(self, path: str, form: dict) -> None:
    """Sends a form and does not wait for the answer."""
    cookies = ''
    for handler in self._opener.handlers:
      if isinstance(handler, urllib.request.HTTPCookieProcessor):
        cookies = '; '.join(f'{c.name}={c.value}' for c in handler.cookiejar)
    connection = http.client.HTTPConnection(
      urllib.parse.urlsplit(self._root).netloc, timeout=30
    )
    with contextlib.closing(connection):
      connection.request(
        'POST',
        path,
        urllib.parse.urlencode(form),
        {
          'Origin': self._root,
          'Cookie': cookies,
          'Content-Type': 'application/x-www-form-urlencoded',
        },
      )
