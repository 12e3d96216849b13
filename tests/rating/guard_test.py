"""Tests of who may talk to the rating page."""

import re

import pytest

from rest_jax.rating import store as store_lib
from tests.rating import made
from tests.rating import visitor as visitor_lib

_TOKEN = 'the-token'
_PATHS = ('/', '/rate', '/agreement', '/ratings.tsv', '/static/page.js', '/x')


@pytest.fixture
def visit(tmp_path):
  store = store_lib.Store(tmp_path / 'ratings.sqlite')
  yield lambda **settings: visitor_lib.Visitor(store, made.items(3), **settings)
  store.close()


@pytest.mark.parametrize('token', ['', 'wrong', 'the-toke', 'ä', None])
def test_without_the_token_nothing_is_shown(visit, token):
  visitor = visit(host='0.0.0.0', token=_TOKEN)
  query = {} if token is None else {'token': token}
  for path in _PATHS:
    answer = visitor.get(path, query_string=query)
    assert answer.status_code == 403
    assert 'source 0' not in answer.text
  answer = visitor.post('/name', {'name': 'Anna', **query})
  assert answer.status_code == 403
  assert 'token' in answer.text


def test_the_token_is_shown_once(visit):
  visitor = visit(host='0.0.0.0', token=_TOKEN)
  answer = visitor.get('/', query_string={'token': _TOKEN})
  assert answer.status_code == 200
  cookie = answer.headers['Set-Cookie']
  for attribute in ('HttpOnly', 'SameSite=Strict', 'Path=/'):
    assert attribute in cookie
  assert _TOKEN not in cookie
  assert visitor.enter('Anna').status_code == 200
  # Of this browser alone.
  assert visitor.another().get('/').status_code == 403


def test_a_cookie_that_was_made_up_is_worth_nothing(visit):
  visitor = visit(host='0.0.0.0', token=_TOKEN)
  visitor.get('/', query_string={'token': _TOKEN})
  (cookie,) = visitor.client._cookies.values()
  other = visitor.another()
  payload, *signature = cookie.value.split('.')
  other.client.set_cookie(cookie.key, '.'.join([payload, 'x', *signature[1:]]))
  assert other.get('/').status_code == 403
  other.client.set_cookie(cookie.key, cookie.value)
  assert other.get('/').status_code == 200


@pytest.mark.parametrize(
  ('host', 'status'),
  [
    ('localhost', 200),
    ('localhost:9999', 200),  # Of a forwarded port.
    ('127.0.0.1:8321', 200),
    ('[::1]:8321', 200),
    ('LocalHost', 200),
    ('evil.example', 403),
    ('localhost.evil.example', 403),
    ('127.0.0.1.evil.example', 403),
    ('my-server', 403),
    ('', 403),
    ('[::1', 403),
  ],
)
def test_names_that_lead_here_from_elsewhere_are_refused(visit, host, status):
  visitor = visit()
  assert visitor.get('/', headers={'Host': host}).status_code == status


def test_a_name_may_be_added(visit):
  visitor = visit(host_names=('My-Server',))
  assert visitor.get('/', headers={'Host': 'my-server:80'}).status_code == 200


@pytest.mark.parametrize(
  'origin',
  [
    '',
    'null',
    'http://evil.example',
    'http://localhost.evil',
    'http://localhost:1',
    'http://[',
    'ftp://localhost',
  ],
)
def test_requests_from_other_pages_are_refused(visit, origin):
  visitor = visit()
  form = {'csrf': visitor.csrf(), 'name': 'Anna'}
  answer = visitor.post('/name', form, origin=origin)
  assert answer.status_code == 403
  assert 'another page' in answer.text
  assert visitor.post('/name', form).status_code == 200


@pytest.mark.parametrize('csrf', [None, '', 'wrong', 'ä'])
@pytest.mark.parametrize('path', ['/name', '/rate', '/undo'])
def test_forms_need_the_secret_of_their_session(visit, path, csrf):
  visitor = visit()
  visitor.enter('Anna')
  form = {'item': visitor.shown(), 'left': 1, 'right': 1, 'name': 'Bo'}
  if csrf is not None:
    form['csrf'] = csrf
  answer = visitor.post(path, form)
  assert answer.status_code == 403
  assert 'Nothing was saved' in answer.text
  # That of another browser is as good as none.
  answer = visitor.post(path, {**form, 'csrf': visitor.another().csrf()})
  assert answer.status_code == 403
  assert visitor.store.ratings('scores') == []


def test_no_secret_is_not_the_secret_of_no_session(visit):
  answer = visit().post('/name', {'csrf': '', 'name': 'Anna'})
  assert answer.status_code == 403


def test_headers_of_every_answer(visit):
  visitor = visit()
  for path in _PATHS:
    headers = visitor.get(path).headers
    policy = headers['Content-Security-Policy']
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert 'unsafe' not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers['X-Content-Type-Options'] == 'nosniff'
    assert headers['Cache-Control'] == 'no-store'


def test_pages_hold_no_script_or_style_of_their_own(visit):
  visitor = visit()
  visitor.enter('Anna')
  for path in ('/', '/rate', '/agreement', '/x'):
    page = visitor.get(path).text
    assert not re.search(r'<style|style=|\son\w+=|javascript:', page)
    # Nothing is loaded from elsewhere.
    assert set(re.findall(r'(?:src|href)="(.)', page)) == {'/'}
    assert '//' not in page


def test_large_requests_are_refused(visit):
  visitor = visit()
  form = {'csrf': visitor.csrf(), 'name': 'x' * 20_000}
  assert visitor.post('/name', form).status_code == 413
