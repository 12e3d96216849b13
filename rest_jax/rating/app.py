"""The rating page: one form per item, one request per answer."""

from collections.abc import Mapping, Sequence
import hashlib
import ipaddress
import secrets
import socket

import flask
from waitress import server as waitress_server
from werkzeug import exceptions

from rest_jax.evaluation import correlations
from rest_jax.rating import agreement, export, guard, order, scores
from rest_jax.rating import rating_config as config_lib
from rest_jax.rating import store as store_lib
from rest_jax.runtime import control_characters

_RATER = 'rater'
# Values of first and second output by the answer for left and right.
_PREFERENCES = {'left': (1.0, 0.0), 'equal': (0.5, 0.5), 'right': (0.0, 1.0)}
_SCORES = {str(s): s for s in range(config_lib.HIGHEST_SCORE + 1)}


def make(
  store: store_lib.Store,
  config: config_lib.RatingConfig,
  items: Sequence[int],
  token: str | None = None,
) -> flask.Flask:
  """Returns the app.

  Args:
    store: storage of the answers.
    config: the settings.
    items: numbers of the items to rate.
    token: token that a browser must present; required if others can reach the
      page.

  Returns:
    A WSGI app.

  Raises:
    ValueError: if there is no token and others can reach the page.
  """
  if config.needs_token and not token:
    raise ValueError(
      f'token must be given to bind {config.host}, which other machines reach; '
      'got none.'
    )
  app = flask.Flask(__name__)
  # Browsers send cookies to all ports of a host, so pages need distinct names.
  name = hashlib.sha256(str(store.path.absolute()).encode()).hexdigest()[:12]
  app.config['SESSION_COOKIE_NAME'] = f'rating_{name}'
  app.jinja_env.filters['visible'] = lambda text: control_characters.visible(
    text, keep='\n'
  )
  guard.install(
    app, token=token, host=config.host, host_names=config.host_names
  )
  page = _Page(store, config, items)
  app.add_url_rule('/', 'start', page.start)
  app.add_url_rule('/name', 'enter', page.enter, methods=['POST'])
  app.add_url_rule('/rate', 'show', page.show)
  app.add_url_rule('/rate', 'rate', page.rate, methods=['POST'])
  app.add_url_rule('/undo', 'undo', page.undo, methods=['POST'])
  app.add_url_rule('/agreement', 'agreement', page.agreement)
  app.add_url_rule('/ratings.tsv', 'download', page.download)
  app.register_error_handler(exceptions.HTTPException, _explain)
  return app


def serve(
  store: store_lib.Store,
  config: config_lib.RatingConfig,
  items: Sequence[int],
) -> None:
  """Serves the page until it is interrupted (Ctrl-C); prints its address.

  Raises:
    ValueError: if the address cannot be bound.
  """
  token = secrets.token_urlsafe(24) if config.needs_token else None
  app = make(store, config, items, token)
  try:
    bound = socket.create_server(
      (config.host, config.port),
      family=socket.AF_INET6 if ':' in config.host else socket.AF_INET,
    )
  except OSError as error:
    raise ValueError(
      f'host {config.host} and port {config.port} must be free to bind: '
      f'{error}. Choose others: --gin.RatingConfig.port=0 takes a free one.'
    ) from error
  link = f'http://{_name(config.host)}:{bound.getsockname()[1]}/'
  if token:
    link += f'?{guard.TOKEN_FIELD}={token}'
  print(f'rate at {link} (Ctrl-C ends)', flush=True)
  # Returns when it is interrupted.
  waitress_server.create_server(
    app, sockets=[bound], ident=None, max_request_body_size=2**14
  ).run()


def _name(host: str) -> str:
  """Returns the host name of an address for links."""
  address = ipaddress.ip_address(host)
  if address.is_unspecified:
    return socket.gethostname()
  return f'[{host}]' if address.version == 6 else host


class _Page:
  """The request handlers of the page."""

  def __init__(
    self,
    store: store_lib.Store,
    config: config_lib.RatingConfig,
    items: Sequence[int],
  ):
    self._store = store
    self._config = config
    self._items = items

  def start(self):
    return flask.render_template(
      'start.html',
      config=self._config,
      total=len(self._items),
      progress=self._progress(),
      longest=store_lib.LONGEST_NAME,
    )

  def enter(self):
    try:
      name = store_lib.rater_name(flask.request.form.get('name', ''))
    except ValueError as error:
      flask.abort(400, str(error))
    flask.session[_RATER] = name
    return flask.redirect(flask.url_for('show'), 303)

  def show(self):
    rater = flask.session.get(_RATER)
    if rater is None:
      return flask.redirect(flask.url_for('start'), 303)
    rated = self._rated(rater)
    left = set(self._items).difference(rated)
    shown = {
      'config': self._config,
      'rater': rater,
      'done': len(rated),
      'total': len(self._items),
      'last': rated[-1] if rated else None,
    }
    if not left:
      return flask.render_template('done.html', **shown)
    number = order.of_rater(left, rater, self._config.seed)[0]
    item = self._store.item(number)
    outputs = [item.first_output, item.second_output]
    if self._is_swapped(number, rater):
      outputs.reverse()
    return flask.render_template(
      f'{self._config.kind}.html',
      number=number,
      source=item.source,
      outputs=dict(zip(('left', 'right'), outputs, strict=True)),
      highest=config_lib.HIGHEST_SCORE,
      **shown,
    )

  def rate(self):
    rater, number = self._rater_and_item()
    form = flask.request.form
    try:
      if self._config.kind == config_lib.SCORES:
        left, right = _SCORES[form['left']], _SCORES[form['right']]
      else:
        left, right = _PREFERENCES[form['preferred']]
    except KeyError:
      flask.abort(400, 'An answer is missing; nothing was saved.')
    if self._is_swapped(number, rater):
      left, right = right, left
    self._store.rate(rater, number, self._config.kind, left, right)
    return flask.redirect(flask.url_for('show'), 303)

  def undo(self):
    rater, number = self._rater_and_item()
    self._store.undo(rater, number, self._config.kind)
    return flask.redirect(flask.url_for('show'), 303)

  def agreement(self):
    kind = self._config.kind
    ratings = self._store.ratings(kind)
    return flask.render_template(
      'agreement.html',
      config=self._config,
      total=len(self._items),
      progress=self._progress(),
      agreement=agreement.measure(ratings, kind),
      fewest=correlations.MIN_CORRELATED,
      people=scores.People(kind, ratings),
    )

  def download(self):
    kind = self._config.kind
    return flask.Response(
      export.tsv(self._store.ratings(kind), kind),
      content_type='text/tab-separated-values; charset=utf-8',
      headers={'Content-Disposition': f'attachment; filename={export.FILE}'},
    )

  def _rater_and_item(self) -> tuple[str, int]:
    """Returns the rater and the item of a request."""
    rater = flask.session.get(_RATER)
    number = flask.request.form.get('item', type=int)
    if rater is None or number is None or number not in self._items:
      flask.abort(400, 'There is no such item, or no name was given.')
    return rater, number

  def _rated(self, rater: str) -> list[int]:
    """Returns this page's items that a rater has rated, oldest first."""
    asked = set(self._items)
    rated = self._store.rated(self._config.kind).get(rater, [])
    return [number for number in rated if number in asked]

  def _progress(self) -> Mapping[str, int]:
    raters = sorted(self._store.rated(self._config.kind))
    return {rater: len(self._rated(rater)) for rater in raters}

  def _is_swapped(self, number: int, rater: str) -> bool:
    return order.is_swapped(number, rater, self._config.seed)


def _explain(error: exceptions.HTTPException):
  page = flask.render_template('error.html', error=error)
  return page, error.code or 500
