"""A server of the Google Cloud Storage API on loopback, for tests.

`gcp-storage-emulator` keeps the objects. A proxy before it enforces conditions on
generations, which the emulator ignores, and disturbs requests at random.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import dataclasses
import http.client
import http.server
import logging
import random
import re
import threading
import time
from typing import Any
import urllib.parse

from gcp_storage_emulator import server as emulator

BUCKET = 'bucket'
_HOST = '127.0.0.1'
_HOP = ('connection', 'keep-alive', 'transfer-encoding', 'content-length')
_OBJECT = re.compile(r'/(?:download/)?storage/v1/b/([^/]+)/o/(.+)')


@dataclasses.dataclass
class Request:
  """A request on its way to the server."""

  method: str
  path: str
  headers: Mapping[str, str]
  body: bytes

  @property
  def is_write(self) -> bool:
    return self.method != 'GET'

  @property
  def name(self) -> str:
    """The object's name; '' for a listing or a later part of an upload."""
    parts = urllib.parse.urlsplit(self.path)
    if found := _OBJECT.fullmatch(parts.path):
      return urllib.parse.unquote(found[2])
    query = urllib.parse.parse_qs(parts.query)
    if 'name' in query:
      return query['name'][0]
    if found := re.search(rb'"name": ?"([^"]+)"', self.body[:1000]):
      return found[1].decode()
    return ''


@dataclasses.dataclass
class Faults:
  """Disturbs a share of requests, drawn from a seed.

  Attributes:
    rate: share of requests that are disturbed.
    seed: seed of the draws.
    seconds: longest delay.
  """

  rate: float = 0.0
  seed: int = 0
  seconds: float = 0.05

  def __post_init__(self):
    self._draws = random.Random(self.seed)
    self._lock = threading.Lock()
    self.counts: dict[str, int] = {}

  def draw(self) -> str:
    """Returns 'cut', 'lost', '429', '503', 'delay' or '' for none."""
    with self._lock:
      kind = ''
      if self._draws.random() < self.rate:
        kind = self._draws.choice(('cut', 'lost', '429', '503', 'delay'))
        self.counts[kind] = self.counts.get(kind, 0) + 1
      return kind


class _Server(http.server.ThreadingHTTPServer):
  daemon_threads = True
  # Clients open many connections at once. One that finds the queue full tries
  # again after 1, 2, 4 … seconds, up to minutes.
  request_queue_size = 1024

  def handle_error(self, request: Any, client_address: Any) -> None:
    """Says nothing: clients that are killed cut their connections."""


class Proxy:
  """Passes requests on; one request at a time.

  Attributes:
    faults: what is disturbed.
    on_request: called with each request before it is passed on; may raise to cut
      the connection.
    downloaded: bytes that were sent, by object.
    written: names of the objects that were written or removed, in order.
  """

  def __init__(self, port: int):
    self._upstream = port
    self._uploaded: dict[str, tuple[int, dict[str, str], bytes]] = {}
    self._lock = threading.Lock()
    self.faults = Faults()
    self.on_request: Callable[[Request], None] = lambda request: None
    self.downloaded: dict[str, int] = {}
    self.written: list[str] = []
    proxy = self

    class Handler(http.server.BaseHTTPRequestHandler):
      protocol_version = 'HTTP/1.1'
      disable_nagle_algorithm = True

      def do(self) -> None:
        proxy.handle(self)

      do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do

      def log_message(self, *_: Any) -> None:
        pass

    self._server = _Server((_HOST, 0), Handler)
    self.port = self._server.server_address[1]
    self._thread = threading.Thread(
      target=self._server.serve_forever, args=(0.05,), daemon=True
    )
    self._thread.start()

  def reset(self) -> None:
    """Ends disturbances, and forgets what was counted."""
    self.faults = Faults()
    self.on_request = lambda request: None
    self.downloaded, self.written = {}, []

  def close(self) -> None:
    self._server.shutdown()
    self._server.server_close()

  def handle(self, handler: http.server.BaseHTTPRequestHandler) -> None:
    """Answers one request."""
    request = Request(
      handler.command, handler.path, dict(handler.headers), _body(handler)
    )
    kind = self.faults.draw()
    if kind == 'delay':
      time.sleep(self.faults.seconds)
    if kind in ('429', '503'):
      return _answer(handler, int(kind), {}, b'{"error": {"message": "busy"}}')
    try:
      self.on_request(request)
      if kind == 'cut':
        raise ConnectionError
      with self._lock:
        status, headers, content = self._pass_on(request)
      if kind == 'lost':
        raise ConnectionError
    except ConnectionError:
      handler.close_connection = True
      return None
    if request.method == 'GET' and request.name:
      counts = self.downloaded
      if 'alt=media' in request.path:
        counts[request.name] = counts.get(request.name, 0) + len(content)
    return _answer(handler, status, headers, content)

  def _pass_on(self, request: Request) -> tuple[int, dict[str, str], bytes]:
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(request.path).query)
    upload = query.get('upload_id', [''])[0]
    if upload in self._uploaded:
      # The emulator forgets a finished upload, whose last part may be repeated.
      return self._uploaded[upload]
    wanted = query.get('ifGenerationMatch', [None])[0]
    is_conditional = request.is_write and wanted is not None
    if is_conditional and wanted != self._generation(request.name):
      return 412, {}, b'{"error": {"message": "conditionNotMet"}}'
    if request.is_write and request.name:
      self.written.append(request.name)
    status, headers, content = self._ask(request)
    if 'alt=media' in request.path and status < 300:
      # The server sends it, and the emulator does not.
      headers['x-goog-generation'] = self._generation(request.name)
    if upload and status == 200:
      self._uploaded[upload] = status, headers, content
    return status, headers, content

  def _generation(self, name: str) -> str:
    """Returns the generation of an object; '0' if it does not exist."""
    path = f'/storage/v1/b/{BUCKET}/o/{urllib.parse.quote(name, safe="")}'
    status, _, content = self._ask(Request('GET', path, {}, b''))
    if status != 200:
      return '0'
    found = re.search(rb'"generation": "(\d+)"', content)
    return found[1].decode() if found else '0'

  def _ask(self, request: Request) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(_HOST, self._upstream)
    headers = {
      key: value
      for key, value in request.headers.items()
      if key.lower() not in _HOP
    }
    connection.request(
      request.method, request.path, request.body or None, headers
    )
    answer = connection.getresponse()
    found = {
      key: value
      for key, value in answer.getheaders()
      if key.lower() not in _HOP
    }
    content = answer.read()
    connection.close()
    return answer.status, found, content


def _body(handler: http.server.BaseHTTPRequestHandler) -> bytes:
  if 'chunked' in handler.headers.get('Transfer-Encoding', ''):
    parts = []
    while size := int(handler.rfile.readline().strip() or b'0', 16):
      parts.append(handler.rfile.read(size))
      handler.rfile.readline()
    handler.rfile.readline()
    return b''.join(parts)
  return handler.rfile.read(int(handler.headers.get('Content-Length') or 0))


def _answer(
  handler: http.server.BaseHTTPRequestHandler,
  status: int,
  headers: Mapping[str, str],
  content: bytes,
) -> None:
  with contextlib.suppress(ConnectionError):
    handler.send_response(status)
    for key, value in headers.items():
      handler.send_header(key, value)
    handler.send_header('Content-Length', str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def environment(port: int) -> dict[str, str]:
  """Returns the variables by which libraries use a server on loopback."""
  return {
    'STORAGE_EMULATOR_HOST': f'http://{_HOST}:{port}',
    'TENSORSTORE_GCS_HTTP_URL': f'http://{_HOST}:{port}',
    'GOOGLE_AUTH_TOKEN_FOR_TESTING': 'none',
    'FSSPEC_GCS_TOKEN': 'anon',
    'FSSPEC_GS_TOKEN': 'anon',
    'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false',
  }


@contextlib.contextmanager
def server() -> Iterator[Proxy]:
  """Starts a server with one empty bucket; ends it with the block."""
  # It says so of every object that is looked for and missing.
  logging.getLogger('gcp_storage_emulator').setLevel(logging.CRITICAL)
  # Head and body of its answers are sent apart, which costs 40 ms otherwise.
  emulator.RequestHandler.disable_nagle_algorithm = True
  started = emulator.create_server(
    _HOST, 0, in_memory=True, default_bucket=BUCKET
  )
  started.start()
  proxy = Proxy(started._api._httpd.server_address[1])
  try:
    yield proxy
  finally:
    proxy.close()
    started.stop()
