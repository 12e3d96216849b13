"""The page in a browser: filters, orders, keyboard, and nothing that runs."""

import pytest

from rest_jax.report import html
from tests.report import chromium, pages

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


@pytest.fixture(scope='module')
def page(tmp_path_factory):
  folder = tmp_path_factory.mktemp('browser')
  html.write(pages.page(samples=pages.samples()), folder / 'index.html')
  with chromium.Page(folder / 'profile') as opened:
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
  page.show(page.path)
  return lambda: page.run(_SHOWN)


def put(page, name, value):
  """Sets a field of the controls as a person would."""
  page.run(
    f"""(() => {{
      const field = document.getElementById('controls').elements[{name!r}];
      field.value = {value!r};
      field.dispatchEvent(new Event('input', {{bubbles: true}}));
    }})()"""
  )


def count(page):
  return page.run("document.getElementById('count').textContent")


def numbers(items):
  return [int(item['title'].split()[1].rstrip(',')) for item in items]


def test_the_last_policy_beside_bc(shown, page):
  items = shown()
  assert count(page) == '25 of 25 sources'
  assert numbers(items) == list(range(10))
  new, old = items[3]['tables']
  assert new['caption'] == 'BC (G=1, I=1), mean reward 21.5'
  assert [row[0] for row in new['rows']] == ['33.0', '10.0']
  assert new['rows'][1][2].endswith(' (no end)')
  # The judge saw the old samples alone.
  assert old['rows'][0] == ['20.0', '50.0', '5', 'old good 3']
  assert items[3]['title'] == 'Source 3, mean reward changes by +6.5'


def test_hostile_text_is_shown_and_does_nothing(shown, page):
  assert shown()[0]['source'] == f'source number 0 {pages.VISIBLE}'
  assert page.run('document.title') == 'made up: report'
  assert page.run("document.querySelectorAll('#samples img').length") == 0
  assert page.run("document.querySelectorAll('script').length") == 2


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
  assert [len(item['tables'][0]['rows']) for item in shown()] == [1] * 5
  put(page, 'reward_to', '52')
  assert numbers(shown()) == [20, 21, 22]
  put(page, 'length_from', '27')
  assert numbers(shown()) == [22]
  put(page, 'length_to', '26')
  assert count(page) == '0 of 25 sources'
  page.run("document.querySelector('button[type=reset]').click()")
  page.run('new Promise(done => setTimeout(done, 50))')
  assert count(page) == '25 of 25 sources'


def test_text_by_keyboard(shown, page):
  page.run("document.getElementById('controls').elements.policy.focus()")
  for _ in range(3):
    page.press('Tab', 9)
  page.type('NEW GOOD 17')
  assert count(page) == '1 of 25 sources'
  (item,) = shown()
  assert item['marked'] == ['new good 17']
  put(page, 'text', '<script>document')
  assert count(page) == '25 of 25 sources'


def test_pages_by_keyboard(shown, page):
  page.run("document.getElementById('after').focus()")
  page.press('Enter', 13, '\r')
  assert numbers(shown()) == list(range(10, 20))
  page.press('Enter', 13, '\r')
  assert numbers(shown()) == list(range(20, 25))
  assert page.run("document.getElementById('after').disabled")
  assert page.run("document.getElementById('where').textContent") == '3 of 3'


@pytest.mark.parametrize('width', [1280, 390])
@pytest.mark.parametrize('is_dark', [False, True])
def test_it_fits_and_can_be_read(page, width, is_dark):
  page.show(page.path, width=width, is_dark=is_dark)
  assert page.run('document.documentElement.scrollWidth') <= width
  broken = page.run(
    '[...document.images].filter(i => !i.naturalWidth || !i.alt).length'
  )
  assert broken == 0
  # Contrast of every colour of text with the ground under it: WCAG AA.
  assert page.run(_LEAST_CONTRAST) >= 4.5


_LEAST_CONTRAST = """(() => {
  const channels = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const parts = [r, g, b].map(v => v / 255).map(
        v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const ground = element => {
    for (let at = element; at; at = at.parentElement) {
      const found = channels(getComputedStyle(at).backgroundColor);
      if (found.length < 4 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const ratios = [...document.querySelectorAll(
      'h1,h2,h3,p,dt,dd,th,td,a,li,summary,label,mark,.times,button:enabled')]
    .filter(element => element.offsetParent && element.textContent.trim())
    .map(element => {
      const one = light(channels(getComputedStyle(element).color));
      const two = light(ground(element));
      return (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    });
  return Math.min(...ratios);
})()"""
