"""Tests of the rating page over HTTP, without a browser."""

import dataclasses
import html
import re
import secrets

import pytest

from rest_jax.data import ratings as ratings_lib
from rest_jax.rating import agreement, order
from rest_jax.rating import app as app_lib
from rest_jax.rating import rating_config as config_lib
from rest_jax.rating import store as store_lib
from tests.rating import made
from tests.rating import visitor as visitor_lib


@pytest.fixture
def store(tmp_path):
  opened = store_lib.Store(tmp_path / 'ratings.sqlite')
  yield opened
  opened.close()


@pytest.fixture
def visit(store):
  def make(items=None, **settings):
    return visitor_lib.Visitor(store, items or made.items(5), **settings)

  return make


def texts(page):
  """The source and the outputs of a page."""
  found = re.findall(r'<p class="text" dir="auto">(.*?)</p>', page, re.DOTALL)
  return [html.unescape(text) for text in found]


def test_scores_go_to_the_outputs_that_were_seen(visit, store):
  visitor = visit(made.items(12))
  visitor.enter('Anna')
  sides = set()
  for _ in range(12):
    number = visitor.shown()
    source, left, right = texts(visitor.get('/rate').text)
    assert source == store.item(number).source
    assert (left, right) == visitor.sides('Anna', number)
    sides.add(left.split()[0])
    # Whatever side it is on, the plain one is worth 1 and the fancy one 5.
    visitor.answer(
      *(1 if text.startswith('plain') else 5 for text in (left, right))
    )
  assert sides == {'plain', 'fancy'}
  rated = store.ratings('scores')
  assert [(rating.first, rating.second) for rating in rated] == [(1, 5)] * 12
  assert 'All 12 are rated' in visitor.get('/rate').text


def test_preferences_go_to_the_outputs_that_were_seen(visit, store):
  visitor = visit(made.items(10), kind='preference')
  visitor.enter('Anna')
  for _ in range(9):
    left, _ = visitor.sides('Anna', visitor.shown())
    visitor.prefer('left' if left.startswith('fancy') else 'right')
  visitor.prefer('equal')
  values = [
    (rating.first, rating.second) for rating in store.ratings('preference')
  ]
  assert values == [(0.0, 1.0)] * 9 + [(0.5, 0.5)]
  assert store.ratings('scores') == []


@pytest.mark.parametrize('kind', config_lib.KINDS)
def test_nothing_on_the_page_says_who_made_what(visit, kind, monkeypatch):
  # A random token may hold any letters, and is no hint.
  monkeypatch.setattr(secrets, 'token_urlsafe', lambda _: 'first-BC')
  visitor = visit(kind=kind)
  visitor.enter('Anna')
  page = visitor.get('/rate').text
  page = page.replace(html.escape(visitor_lib.hidden(page, 'csrf')), '')
  for secret in ('digest', 'BC', 'G=', 'first', 'second', 'policy'):
    assert secret not in page


def test_a_rater_goes_on_where_they_stopped(visit):
  visitor = visit()
  visitor.enter('Anna')
  expected = order.of_rater(visitor.numbers, 'Anna', 0)
  for number in expected[:2]:
    assert visitor.shown() == number
    visitor.answer(1, 2)
  # Another browser, the same name.
  later = visitor.another()
  assert '2 of 5' in later.enter(' Anna ').text
  assert later.shown() == expected[2]
  # Another rater has an order and a progress of their own.
  other = visitor.another()
  assert '0 of 5' in other.enter('Bo').text
  assert other.shown() == order.of_rater(visitor.numbers, 'Bo', 0)[0]
  start = other.get('/').text
  assert 'Anna</bdi>: 2 of 5' in start


def test_undo_shows_the_last_item_again(visit, store):
  visitor = visit()
  visitor.enter('Anna')
  assert 'id="undo"' not in visitor.get('/rate').text
  first = visitor.shown()
  visitor.answer(1, 2)
  second = visitor.shown()
  page = visitor.answer(3, 4).text
  undo = {'csrf': visitor.csrf(), 'item': second}
  assert f'name="item" value="{second}"' in page
  assert visitor.shown() not in (first, second)
  visitor.post('/undo', undo)
  visitor.post('/undo', undo)  # A second press takes nothing more back.
  assert visitor.shown() == second
  assert store.rated('scores') == {'Anna': [first]}


@pytest.mark.parametrize(
  'form',
  [
    {'left': '3'},
    {'left': '3', 'right': ''},
    {'left': '3', 'right': '7'},
    {'left': '-1', 'right': '3'},
    {'left': '3.5', 'right': '3'},
    {'left': '٣', 'right': '3'},
    {'preferred': 'left'},
  ],
)
def test_half_an_answer_is_refused(visit, store, form):
  visitor = visit()
  visitor.enter('Anna')
  sent = {**visitor_lib.form_of(visitor.get('/rate').text), **form}
  answer = visitor.post('/rate', sent)
  assert answer.status_code == 400
  assert 'nothing was saved' in answer.text
  assert store.ratings('scores') == []


@pytest.mark.parametrize('item', ['', '999', '-1', '1 OR 1=1', '1e0'])
def test_only_items_of_the_page_are_rated(visit, store, item):
  visitor = visit()
  # Of another choice of policies, in the same file.
  store.add([dataclasses.replace(made.items(1)[0], second_policy='digest-3')])
  visitor.enter('Anna')
  for path in ('/rate', '/undo'):
    form = {'csrf': visitor.csrf(), 'item': item, 'left': 1, 'right': 1}
    assert visitor.post(path, form).status_code == 400
  assert store.ratings('scores') == []


def test_without_a_name_there_is_nothing_to_rate(visit):
  visitor = visit()
  assert visitor.get('/rate').headers['Location'] == '/'
  form = {'csrf': visitor.csrf(), 'item': visitor.numbers[0]}
  assert (
    visitor.post('/rate', {**form, 'left': 1, 'right': 1}).status_code == 400
  )
  for name in ('', ' ', 'x' * 41, 'a\x1b[2J'):
    answer = visitor.post('/name', {'csrf': visitor.csrf(), 'name': name})
    assert answer.status_code == 400
    assert '1 to 40 characters' in answer.text


def test_injections_are_shown_as_text_and_stored_as_text(visit, store):
  name = "<script>alert(1)</script>'); DROP--"
  visitor = visit(made.injected(1))
  page = visitor.enter(name).text
  pages = [page, visitor.answer(1, 5).text]
  pages += [visitor.get(path).text for path in ('/', '/agreement')]
  for page in pages:
    # The page's own script and nothing else.
    assert page.count('<script') == page.count('<script src="/static/page.js"')
    assert '<img' not in page
    assert '\x1b' not in page and '\u202e' not in page
  assert html.escape(made.INJECTED_SOURCE, quote=False) in pages[0].replace(
    '&#39;', "'"
  )
  assert '␛[31m⟨U+202E⟩{{ 7 * 7 }}' in pages[0]
  assert store.ratings('scores')[0].rater == name
  assert store.ratings('scores')[0].item == made.injected(1)[0]


def test_equal_outputs_are_said_to_be_equal(visit):
  same = dataclasses.replace(made.items(1)[0], second_output='plain 0')
  assert 'the same text' in visit([same]).enter('Anna').text
  assert 'the same text' not in visit(made.items(1)).enter('Bo').text


def test_an_empty_output_is_said_to_be_empty(visit):
  visitor = visit([dataclasses.replace(made.items(1)[0], first_output=' ')])
  assert '(empty output)' in visitor.enter('Anna').text


def test_the_agreement_of_two_raters(visit, store):
  visitor = visit(made.items(6))
  assert 'not measured yet' in visitor.get('/agreement').text
  given = [(0, 3), (1, 3), (6, 6), (2, 5), (4, 0)]
  for index, scores in enumerate(given):
    for rater, more in (('A', 0), ('B', index % 2)):
      shown = scores[0], min(scores[1] + more, 6)
      store.rate(rater, visitor.numbers[index], 'scores', *shown)
    if index == 0:
      page = visitor.get('/agreement').text
      # Two points always lie on a line.
      assert '<td>not measured</td>' in page and '1.000' not in page
      assert 'It needs 10 outputs' in page and 'there are 2.' in page
  store.rate('A', visitor.numbers[5], 'scores', 6, 6)
  page = visitor.get('/agreement').text
  found = agreement.measure(store.ratings('scores'), 'scores')
  assert f'<strong>{found.alpha:.3f}</strong>' in page
  low, high = found.interval
  assert f'[{low:.3f}, {high:.3f}] over 10' in page
  low, high = found.pairs[0].interval
  assert f'{found.pairs[0].pearson:.3f} [{low:.3f}, {high:.3f}]' in page
  assert '6 of 6' in page


def test_the_download_is_what_the_reward_stage_reads(visit, store, tmp_path):
  visitor = visit(made.items(3))
  for number in visitor.numbers:
    store.rate('A', number, 'scores', 1, 6)
  answer = visitor.get('/ratings.tsv')
  assert answer.content_type == 'text/tab-separated-values; charset=utf-8'
  path = tmp_path / 'ratings.tsv'
  path.write_bytes(answer.data)
  found = ratings_lib.RatingsFile(path=path).read()
  assert sorted(found.score) == [1, 1, 1, 6, 6, 6]


def test_no_address_opens_a_file(visit):
  visitor = visit()
  for path in (
    '/static/../app.py',
    '/static/%2e%2e/app.py',
    '/static/..%2f..%2fmain.py',
    '/ratings.sqlite',
    '/etc/passwd',
  ):
    assert visitor.get(path).status_code == 404


def test_a_token_is_needed_where_others_reach_the_page(store):
  with pytest.raises(
    ValueError, match=r'token must be given to bind 0\.0\.0\.0'
  ):
    app_lib.make(store, config_lib.RatingConfig(host='0.0.0.0'), [])
