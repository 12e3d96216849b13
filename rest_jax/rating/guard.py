"""Access control and browser policies of the rating page."""

from collections.abc import Iterable
import ipaddress
import secrets
import socket
import urllib.parse

import flask

CSRF_FIELD = 'csrf'
TOKEN_FIELD = 'token'

_ALLOWED = 'allowed'
_HEADERS = {
  # No content from elsewhere, no inline scripts or styles.
  'Content-Security-Policy': (
    "default-src 'none'; style-src 'self'; script-src 'self'; "
    "img-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
  ),
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'same-origin',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  # Texts may be confidential, and a cached page may be outdated.
  'Cache-Control': 'no-store',
}


def install(
  app: flask.Flask, *, token: str | None, host: str, host_names: Iterable[str]
) -> None:
  """Checks every request of an app before it is handled.

  Args:
    app: the app; its sessions are signed with a new key.
    token: token that a browser must present once; None on a loopback address.
    host: the bound address.
    host_names: additional names of this machine.
  """
  names = {'localhost', *(name.lower() for name in host_names)}
  if not ipaddress.ip_address(host).is_loopback:
    names.add(socket.gethostname().lower())
  app.secret_key = secrets.token_bytes(32)
  app.config.update(
    SESSION_COOKIE_HTTPONLY=True,
    SESSION_COOKIE_SAMESITE='Strict',
    MAX_CONTENT_LENGTH=2**14,
  )

  @app.before_request
  def check() -> None:
    _check_host(names)
    _check_token(token)
    if flask.request.method not in ('GET', 'HEAD'):
      _check_origin()
      _check_csrf()

  @app.after_request
  def add_headers(response: flask.Response) -> flask.Response:
    response.headers.update(_HEADERS)
    return response

  app.jinja_env.globals['csrf_token'] = csrf_token


def csrf_token() -> str:
  """Returns the CSRF token of this session."""
  return flask.session.setdefault(CSRF_FIELD, secrets.token_urlsafe(24))


def _check_host(names: set[str]) -> None:
  """Refuses host names that are not this machine's.

  A foreign page could make its own name resolve to this machine (DNS rebinding)
  and then read everything; IP addresses are safe.
  """
  called = urllib.parse.urlsplit(f'//{flask.request.host}').hostname or ''
  try:
    ipaddress.ip_address(called)
  except ValueError:
    if called not in names:
      flask.abort(
        403,
        'The page is called by a name that is not this machine’s. Use its '
        'address, or add the name: --gin.RatingConfig.host_names="(\'NAME\',)"',
      )


def _check_token(token: str | None) -> None:
  if token is None or flask.session.get(_ALLOWED):
    return
  shown = flask.request.args.get(TOKEN_FIELD, '')
  if not secrets.compare_digest(shown.encode(), token.encode()):
    flask.abort(403, 'Open the link with the token that the start printed.')
  flask.session[_ALLOWED] = True


def _check_origin() -> None:
  own = flask.request.host
  # https if a proxy in front of this program uses TLS.
  if flask.request.headers.get('Origin') not in (
    f'http://{own}',
    f'https://{own}',
  ):
    flask.abort(403, 'The request comes from another page.')


def _check_csrf() -> None:
  known = flask.session.get(CSRF_FIELD, '')
  sent = flask.request.form.get(CSRF_FIELD, '')
  if not known or not secrets.compare_digest(sent.encode(), known.encode()):
    flask.abort(
      403,
      'The page was started again, or cookies are refused. Nothing was saved; '
      'enter your name again to go on.',
    )
