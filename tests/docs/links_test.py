"""Links, anchors and the site's navigation lead somewhere."""

import pathlib
import re

import pytest
import yaml

from docs import pages

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
  [*(ROOT / 'docs').glob('*.md'), *(ROOT / path for path in pages.PAGES)]
)

_LINK = re.compile(r'\]\(([^)\s]+)\)')
_HEADING = re.compile(r'^#+ (.+)$', re.MULTILINE)
_CODE = re.compile(r'^```.*?^```|`[^`\n]*`', re.DOTALL | re.MULTILINE)


def anchors(path: pathlib.Path) -> set[str]:
  """Returns the anchors of a page's headings, as GitHub makes them."""
  text = re.sub(r'^```.*?^```', '', path.read_text('utf-8'), flags=re.S | re.M)
  headings = _HEADING.findall(text)
  return {
    re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
    for heading in headings
  }


def broken(path: pathlib.Path, text: str) -> list[str]:
  """Returns the relative links of a text that lead nowhere."""
  found = []
  for link in _LINK.findall(_CODE.sub('', text)):
    if re.match(r'[a-z]+:', link):
      continue
    name, _, anchor = link.partition('#')
    target = (path.parent / name).resolve() if name else path
    if not target.is_file() or (anchor and anchor not in anchors(target)):
      found.append(link)
  return found


@pytest.mark.parametrize(
  'path', DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_every_link_leads_somewhere(path):
  assert not broken(path, path.read_text(encoding='utf-8'))


def test_a_link_to_nothing_is_found():
  path = ROOT / 'docs' / 'index.md'
  text = '[a](rewards.md) [b](no.md) [c](rewards.md#no) [d](#no) [e](http://x)'
  assert broken(path, text) == ['no.md', 'rewards.md#no', '#no']


def test_every_gin_file_that_is_named_exists():
  folders = '|'.join(path.name for path in (ROOT / 'gin_configs').glob('*/'))
  named = {
    name
    for path in DOCUMENTS
    if path.name != 'CHANGELOG.md'  # It names files of earlier versions.
    for name in re.findall(
      rf'\b(?:{folders})/\w+\.gin\b', path.read_text(encoding='utf-8')
    )
  }
  assert len(named) > 30
  assert not [n for n in named if not (ROOT / 'gin_configs' / n).is_file()]


def test_the_navigation_has_every_page_once():
  text = (ROOT / 'mkdocs.yml').read_text(encoding='utf-8')
  navigation = yaml.safe_load(text[text.index('\nnav:') :])['nav']
  names = re.findall(r"'([^']+\.md)'", repr(navigation))
  own = [path.name for path in (ROOT / 'docs').glob('*.md')]
  assert sorted(names) == sorted([*own, *pages.PAGES.values()])


@pytest.mark.parametrize(
  ('path', 'source', 'expected'),
  [
    ('docs/rewards.md', 'README.md', 'rewards.md'),
    ('launch/README.md', 'README.md', 'launch/README.md'),
    ('../README.md', 'docs/index.md', 'overview.md'),
    ('../docs/tpu.md', 'gin_configs/README.md', '../tpu.md'),
    (
      '../gin_configs/README.md',
      'launch/README.md',
      '../gin_configs/README.md',
    ),
    ('report.png', 'docs/getting_started.md', 'report.png'),
  ],
)
def test_links_of_the_site(path, source, expected):
  assert pages.site_path(path, source) == expected


def test_the_citation_names_the_authors_of_the_paper():
  text = (ROOT / 'CITATION.cff').read_text(encoding='utf-8')
  citation = yaml.safe_load(text)
  (paper,) = citation['references']
  assert '2308.08998' in paper['url']
  assert len(paper['authors']) == 14
