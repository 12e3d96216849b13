"""The page in a browser: filters, orders, keyboard, and nothing that runs."""

import pytest

from rest_jax.report.render import html
from tests import chromium
from tests.report import pages

_SHOWN = """[...document.querySelectorAll('#browsed > li')].map(item => ({
  title: item.querySelector('h3').textContent,
  source: item.querySelector('dd').textContent,
  tables: [...item.querySelectorAll('table')].map(table => ({
    caption: table.querySelector('caption').textContent,
    rows: [...table.querySelectorAll('tbody tr')].map(
        row => [...row.children].map(cell => cell.textContent)),
  })),
  marked: [...item.querySelectorAll('mark')].map(mark => mark.textContent),
}))"""

# Visible pictures that are wider than what they stand in.
_CUT_PICTURES = """[...document.querySelectorAll('figure img')].filter(image =>
  image.checkVisibility() &&
  image.closest('.scroll').scrollWidth > image.closest('.scroll').clientWidth
).length"""
_TOP_OF_NAVIGATION = (
  "document.querySelector('.sections').getBoundingClientRect().top"
)


@pytest.fixture(scope='module')
def page(tmp_path_factory):
  folder = tmp_path_factory.mktemp('browser')
  html.write(pages.page(samples=pages.samples()), folder / 'index.html')
  with chromium.page() as opened:
    opened.path = folder / 'index.html'
    yield opened
    # Whatever was done to it: nothing was asked of a network, nothing failed.
    assert opened.problems == []
    assert {address.split(':')[0] for address in opened.requests} <= {
      'file',
      'data',
      'about',
    }


@pytest.fixture
def shown(page):
  page.resize(1280)
  page.open(page.path)
  return lambda: page.evaluate(_SHOWN)


def put(page, name, value):
  """Sets a field of the controls as a person would."""
  page.evaluate(
    f"""(() => {{
      const field = document.getElementById('controls').elements[{name!r}];
      field.value = {value!r};
      field.dispatchEvent(new Event('input', {{bubbles: true}}));
    }})()"""
  )


def count(page):
  return page.evaluate("document.getElementById('count').textContent")


def numbers(items):
  return [int(item['title'].split()[1].rstrip(',')) for item in items]


def test_the_last_policy_beside_bc(shown, page):
  items = shown()
  assert count(page) == '25 of 25 sources'
  assert numbers(items) == list(range(3))
  new, old = items[2]['tables']
  assert new['caption'] == 'ReST G1 I1, mean reward 21.0'
  assert [row[0] for row in new['rows']] == ['32.0', '10.0']
  assert new['rows'][1][2].endswith(' (no end)')
  # The judge saw the old samples alone.
  assert old['rows'][0] == ['20.0', '50.0', '5', 'old good 2']
  assert items[2]['title'] == 'Source 2, mean reward changes by +6.0'


def test_hostile_text_is_shown_and_does_nothing(shown, page):
  assert shown()[0]['source'] == f'source number 0 {pages.VISIBLE}'
  assert page.evaluate('document.title') == 'made up: report'
  assert page.evaluate("document.querySelectorAll('#samples img').length") == 0
  assert page.evaluate("document.querySelectorAll('script').length") == 2


def test_orders(shown, page):
  put(page, 'order', 'rise')
  assert numbers(shown())[:3] == [24, 23, 22]
  put(page, 'order', 'fall')
  assert numbers(shown())[:3] == [0, 1, 2]
  put(page, 'order', 'best')
  assert numbers(shown())[0] == 24
  put(page, 'policy', '0')
  put(page, 'beside', '1')
  put(page, 'order', 'fall')
  assert shown()[0]['title'] == 'Source 24, mean reward changes by -17.0'


def test_filters(shown, page):
  put(page, 'reward_from', '50')
  assert count(page) == '5 of 25 sources'
  assert [len(item['tables'][0]['rows']) for item in shown()] == [1] * 3
  put(page, 'reward_to', '52')
  assert numbers(shown()) == [20, 21, 22]
  put(page, 'length_from', '27')
  assert numbers(shown()) == [22]
  put(page, 'length_to', '26')
  assert count(page) == '0 of 25 sources'
  page.evaluate("document.querySelector('button[type=reset]').click()")
  page.evaluate('new Promise(done => setTimeout(done, 50))')
  assert count(page) == '25 of 25 sources'


def test_text_by_keyboard(shown, page):
  page.evaluate("document.getElementById('controls').elements.policy.focus()")
  for _ in range(3):
    page.press('Tab')
  page.type('NEW GOOD 17')
  assert count(page) == '1 of 25 sources'
  (item,) = shown()
  assert item['marked'] == ['new good 17']
  put(page, 'text', '<script>document')
  assert count(page) == '25 of 25 sources'


def test_pages_by_keyboard(shown, page):
  page.evaluate("document.getElementById('after').focus()")
  page.press('Enter')
  assert numbers(shown()) == [3, 4, 5]
  for _ in range(7):
    page.press('Enter')
  assert numbers(shown()) == [24]
  assert page.evaluate("document.getElementById('after').disabled")
  assert (
    page.evaluate("document.getElementById('where').textContent") == '9 of 9'
  )


@pytest.mark.parametrize('width', [1280, 390])
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_it_fits_and_can_be_read(page, width, scheme):
  page.resize(width, scheme=scheme)
  page.open(page.path)
  assert page.evaluate('document.documentElement.scrollWidth') <= width
  assert page.evaluate(_CUT_PICTURES) == 0
  page.evaluate('window.scrollTo(0, document.body.scrollHeight)')
  assert page.evaluate('scrollY') > 0
  assert page.evaluate(_TOP_OF_NAVIGATION) == 0
  broken = page.evaluate(
    '[...document.images].filter(i => !i.naturalWidth || !i.alt).length'
  )
  assert broken == 0
  # WCAG AA.
  for ratio, what in page.contrasts():
    assert ratio >= 4.5, what
