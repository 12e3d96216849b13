"""The page as a program: killed while people rate, bound to other addresses."""

import signal
import socket
import urllib.error
import urllib.parse

import pytest

from rest_jax.rating import app as app_lib
from rest_jax.rating import rating_config as config_lib
from rest_jax.rating import store as store_lib
from tests.rating import server as server_lib
from tests.rating import visitor


def rate(client, number, scores):
  """Rates the item that is shown; returns its number once it is acknowledged."""
  form = visitor.form_of(client.get('/rate'))
  page = client.post('/rate', {**form, 'left': scores, 'right': scores})
  assert visitor.done(page) == number + 1
  return int(form['item'])


def enter(client, name):
  form = {'csrf': visitor.hidden(client.get('/'), 'csrf'), 'name': name}
  return client.post('/name', form)


def test_a_kill_loses_at_most_the_item_in_flight(tmp_path):
  path = tmp_path / 'ratings.sqlite'
  acknowledged, in_flight = [], None
  for life in range(4):
    with server_lib.Server(path, items=20) as server:
      client = server_lib.Client(server)
      # What was in flight may have been saved, and nothing else was.
      done = visitor.done(enter(client, 'Anna'))
      if life and done == len(acknowledged) + 1:
        acknowledged.append(in_flight)
      assert done == len(acknowledged)
      for _ in range(3):
        acknowledged.append(rate(client, len(acknowledged), life))
      form = visitor.form_of(client.get('/rate'))
      in_flight = int(form['item'])
      client.post_and_run('/rate', {**form, 'left': 6, 'right': 6})
      server.kill()
    store = store_lib.Store(path)
    rated = store.rated('scores')['Anna']
    store.close()
    assert rated[: len(acknowledged)] == acknowledged
    assert set(rated[len(acknowledged) :]) <= {in_flight}


def test_an_interrupt_ends_it_in_order(tmp_path):
  path = tmp_path / 'ratings.sqlite'
  with server_lib.Server(path, items=3) as server:
    client = server_lib.Client(server)
    enter(client, 'Anna')
    rate(client, 0, 4)
    server.process.send_signal(signal.SIGINT)
    printed, _ = server.process.communicate(timeout=30)
  assert printed == 'ended\n'
  assert server.process.returncode == 0


def test_all_addresses_need_the_token_that_was_printed(tmp_path):
  path = tmp_path / 'ratings.sqlite'
  with server_lib.Server(path, items=3, host='0.0.0.0') as server:
    query = urllib.parse.urlsplit(server.link).query
    token = urllib.parse.parse_qs(query)['token'][0]
    assert len(token) >= 32
    client = server_lib.Client(server)
    for wrong in ('/', '/rate', '/ratings.tsv', f'/?token={token[:-1]}'):
      with pytest.raises(urllib.error.HTTPError) as refused:
        client.get(wrong)
      assert refused.value.code == 403
      refused.value.close()
    assert 'Your name' in client.get(f'/?token={token}')
    assert '0 of 3' in enter(client, 'Anna')


def test_a_port_that_is_taken_is_named(tmp_path):
  store = store_lib.Store(tmp_path / 'ratings.sqlite')
  with socket.create_server(('127.0.0.1', 0)) as taken:
    port = taken.getsockname()[1]
    config = config_lib.RatingConfig(port=port)
    with pytest.raises(ValueError, match=rf'port {port} must be free to bind'):
      app_lib.serve(store, config, [])
  store.close()
