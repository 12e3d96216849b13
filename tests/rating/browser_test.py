"""The rating page as raters use it: by keyboard, in Chromium."""

import pytest

from rest_jax.data import ratings as ratings_lib
from rest_jax.rating import agreement, export, order
from rest_jax.rating import store as store_lib
from rest_jax.runtime import control_characters
from tests import chromium
from tests.rating import server as server_lib

_ITEMS = 20


@pytest.fixture
def page():
  with chromium.page() as opened:
    yield opened
    assert opened.problems == []


def enter(page, server, name):
  page.open(f'{server.root}/')
  page.until('document.activeElement.id === "name"')
  page.type(name)
  page.press_and_load('Enter')


def scores_of(rater, number):
  """What a rater thinks: raters differ now and then."""
  shift = (number * 7 + len(rater)) % 3 == 0
  return 2 + shift, 5 - shift


def rate(page, store, rater, count):
  """Rates items by the keys that the page names; returns their numbers."""
  numbers = []
  for _ in range(count):
    number = int(
      page.evaluate('document.querySelector("#answer [name=item]").value')
    )
    plain, fancy = scores_of(rater, number)
    item = store.item(number)
    shown = page.evaluate('document.querySelector(".output .text").innerText')
    is_first = shown == control_characters.visible(item.first_output)
    assert is_first == (not order.is_swapped(number, rater, 0))
    for score in (plain, fancy) if is_first else (fancy, plain):
      page.press(str(score))
    page.press_and_load('Enter')
    numbers.append(number)
  return numbers


def progress(page):
  return page.evaluate('document.querySelector("progress").value')


def test_two_raters_rate_by_keyboard_and_one_resumes(page, tmp_path):
  path = tmp_path / 'ratings.sqlite'
  with server_lib.Server(path, items=_ITEMS) as server:
    store = store_lib.Store(path)
    enter(page, server, 'Anna')
    rated = rate(page, store, 'Anna', 8)
    assert progress(page) == 8
    # Anna stops, and somebody else rates all.
    enter(page, server, 'Bo')
    assert progress(page) == 0
    others = rate(page, store, 'Bo', _ITEMS)
    assert 'All 20 are rated' in page.evaluate('document.body.innerText')
    server.kill()
  # Anna goes on the next day.
  with server_lib.Server(path, items=_ITEMS) as server:
    enter(page, server, 'Anna')
    assert progress(page) == 8
    rated += rate(page, store, 'Anna', _ITEMS - 8)
    assert 'All 20 are rated' in page.evaluate('document.body.innerText')
    page.open(f'{server.root}/agreement')
    text = page.evaluate('document.body.innerText')
  assert sorted(rated) == sorted(others) and rated != others
  ratings = store.ratings('scores')
  store.close()
  for number, rating in zip(
    [*rated[:8], *others, *rated[8:]], ratings, strict=True
  ):
    assert (rating.first, rating.second) == scores_of(rating.rater, number)
  found = agreement.measure(ratings, 'scores')
  assert f'{found.alpha:.3f}' in text
  assert f'{found.pairs[0].pearson:.3f}' in text
  assert found.pairs[0].outputs == 2 * _ITEMS
  export.write(tmp_path / 'ratings.tsv', ratings, 'scores')
  read = ratings_lib.RatingsFile(path=tmp_path / 'ratings.tsv').read()
  assert len(read) == 2 * _ITEMS
  assert set(read.weight) == {2}


def test_keys_of_scores(page, tmp_path):
  path = tmp_path / 'ratings.sqlite'
  with server_lib.Server(path, items=3) as server:
    store = store_lib.Store(path)
    enter(page, server, 'Anna')
    first = int(
      page.evaluate('document.querySelector("#answer [name=item]").value')
    )
    checked = (
      '[...document.querySelectorAll(":checked")].map(e => e.value).join()'
    )
    page.press('7')
    assert page.evaluate(checked) == ''
    page.press('3')
    page.press('Enter')  # Half an answer is not sent.
    assert page.evaluate(checked) == '3'
    assert store.rated('scores') == {}
    page.press('Backspace')
    assert page.evaluate(checked) == ''
    for key in '64':
      page.press(key)
    assert page.evaluate(checked) == '6,4'
    page.press_and_load('Enter')
    assert store.rated('scores') == {'Anna': [first]}
    page.press_and_load('u')
    assert store.rated('scores') == {}
    assert (
      int(page.evaluate('document.querySelector("#answer [name=item]").value'))
      == first
    )
    # With Tab and the keys of radio buttons alone, too.
    page.evaluate('document.querySelector("input[type=radio]").focus()')
    for key in (' ', 'Tab', ' '):
      page.press(key)
    assert page.evaluate(checked) == '0,0'
    page.press_and_load('Enter')
    assert [(r.first, r.second) for r in store.ratings('scores')] == [(0, 0)]
    store.close()


def test_keys_of_preferences(page, tmp_path):
  path = tmp_path / 'ratings.sqlite'
  with server_lib.Server(path, items=3, kind='preference') as server:
    store = store_lib.Store(path)
    enter(page, server, 'Anna')
    for key in ('ArrowLeft', 'ArrowDown', 'ArrowRight'):
      page.press_and_load(key)
    found = []
    for number, rating in zip(
      store.rated('preference')['Anna'],
      store.ratings('preference'),
      strict=True,
    ):
      is_swapped = order.is_swapped(number, 'Anna', 0)
      found.append(rating.second if is_swapped else rating.first)
    assert found == [1.0, 0.5, 0.0]
    store.close()


def test_what_was_injected_is_text(page, tmp_path):
  name = '<script>document.title="x"</script>'
  path = tmp_path / 'ratings.sqlite'
  with server_lib.Server(path, items=2, made='injected') as server:
    enter(page, server, name)
    store = store_lib.Store(path)
    rated = rate(page, store, name, 1)
    assert store.rated('scores') == {name: rated}
    store.close()
    for path in ('/', '/rate', '/agreement'):
      page.open(server.root + path)
      assert name in page.evaluate('document.body.innerText')
      for made_up in ('body script', 'img', '[onerror]'):
        assert page.evaluate(f'document.querySelector("{made_up}")') is None
      assert page.evaluate('document.title') != 'x'


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('width', [1280, 390])
def test_nothing_is_cut_off_and_all_can_be_read(page, tmp_path, width, scheme):
  with server_lib.Server(tmp_path / 'ratings.sqlite', items=3) as server:
    enter(page, server, 'Anna ' + 'long' * 8)
    page.resize(width, scheme=scheme)
    for path in ('/', '/rate', '/agreement'):
      page.open(server.root + path)
      assert page.evaluate('document.documentElement.scrollWidth') <= width
      for ratio, what in page.contrasts():
        assert ratio >= 4.5, (path, what)
      unnamed = page.evaluate(
        '[...document.querySelectorAll("input:not([type=hidden])")]'
        '.filter(e => !e.labels.length).length'
      )
      assert unnamed == 0
