"""The page: what it holds, that it is inert, and what it leaves out."""

import base64
import dataclasses
import hashlib
import itertools
import re

import numpy as np
import pytest

from rest_jax.evaluation import metrics
from rest_jax.report import table
from rest_jax.report.gather import distributions
from rest_jax.report.render import evidence, html
from tests.report import page_reader, pages


@pytest.fixture
def write(tmp_path):
  def write_page(**fields):
    path = tmp_path / 'index.html'
    html.write(pages.page(**fields), path)
    return page_reader.read(path)

  return write_page


@pytest.fixture(scope='module')
def full_page(tmp_path_factory):
  """A page that has everything, to be read."""
  path = tmp_path_factory.mktemp('full') / 'index.html'
  html.write(pages.page(**full()), path)
  return path


def full(text='plain'):
  """Fields of a page that has everything, with a text in all of them."""
  cells = table.Cells(f'cells {text}', ('policy', text), ((text, text),))
  edges = np.linspace(0, 1, 3)
  kept = distributions.KeptDistribution(
    name='I=1',
    edges=edges,
    before=np.array([2, 2]),
    after=np.array([0, 2]),
  )
  return {
    'title': f'title {text}',
    'facts': {f'fact {text}': text},
    'stage_warnings': [f'grow 1: {text}'],
    'grown': [evidence.of_kept(1, [kept], text)],
    'kept': cells,
    'trust_tables': [cells._replace(title=f'trust {text}')],
    'training': [evidence.of_training({'name': ([0, 1], [1.0, 2.0])})],
    'samples': pages.samples(),
    'times': cells._replace(title=f'times {text}'),
    'costs': cells._replace(title=f'costs {text}'),
    'commands': [f'command {text}'],
    'versions': {f'package {text}': text},
    'listings': {f'listing {text}': f'first\n\tsecond {text}'},
  }


class TestStructure:
  def test_one_file_that_needs_nothing(self, full_page):
    read = page_reader.read(full_page)
    for name, attribute in (
      ('img', 'src'),
      ('script', 'src'),
      ('link', 'href'),
      ('iframe', 'src'),
      ('a', 'href'),
    ):
      for attributes in read.all(name):
        address = attributes.get(attribute, '#')
        assert address.startswith(('data:image/svg+xml;base64,', '#')), address
    assert not read.unclosed
    assert not any(
      name.startswith('on') or name == 'style'
      for _, attributes in read.tags
      for name in attributes
    )

  def test_the_policy_allows_this_style_and_script_alone(self, full_page):
    text = full_page.read_text(encoding='utf-8')
    (policy,) = (
      attributes['content']
      for attributes in page_reader.read(full_page).all('meta')
      if attributes.get('http-equiv') == 'Content-Security-Policy'
    )
    rules = dict(rule.strip().split(' ', 1) for rule in policy.split(';'))
    assert rules['default-src'] == "'none'"
    assert rules['img-src'] == 'data:'
    assert 'unsafe' not in policy and 'http' not in policy
    for element, rule in (('style', 'style-src'), ('script', 'script-src')):
      (body,) = re.findall(f'<{element}>(.*?)</{element}>', text, re.DOTALL)
      digest = base64.b64encode(hashlib.sha256(body.encode()).digest())
      assert rules[rule] == f"'sha256-{digest.decode()}'"

  def test_headings_go_down_by_one(self, full_page):
    levels = [
      int(name[1])
      for name, _ in page_reader.read(full_page).tags
      if name in ('h1', 'h2', 'h3')
    ]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(
      after <= before + 1 for before, after in itertools.pairwise(levels)
    )

  def test_pictures_say_what_they_show_and_have_numbers_behind_them(
    self, full_page
  ):
    read = page_reader.read(full_page)
    pictures = read.all('img')
    assert len(pictures) >= 8
    assert all(len(attributes['alt']) > 40 for attributes in pictures)
    assert len(read.all('figure')) == len(read.all('figcaption'))
    assert len(read.all('summary')) >= len(read.all('figure'))
    alt = pictures[0]['alt']
    assert 'test' in alt and 'ReST G1 I2: 77.0' in alt

  def test_names_are_unique_and_links_lead_somewhere(self, full_page):
    read = page_reader.read(full_page)
    names = [a['id'] for _, a in read.tags if 'id' in a]
    assert len(set(names)) == len(names)
    links = {a['href'][1:] for a in read.all('a')}
    assert links <= set(names)

  def test_every_field_of_the_controls_has_a_label(self, full_page):
    text = full_page.read_text(encoding='utf-8')
    for field in re.findall(r'<(?:input|select)[^>]*>', text):
      before = text[: text.index(field)]
      assert before.rindex('<label>') > before.rfind('</label>'), field

  def test_the_same_page_has_the_same_bytes(self, full_page, tmp_path):
    html.write(pages.page(**full()), tmp_path / 'again')
    assert full_page.read_bytes() == (tmp_path / 'again').read_bytes()


class TestNumbers:
  def test_tables_are_the_results(self, write):
    results = pages.results(human=metrics.Estimate(61.0, 0.5), chrf=55.125)
    read = write(results=results)
    for split in ('validation', 'test'):
      header, *rows = read.tables[f'made up, {split}: levels']
      assert header == ['policy', 'reward', 'judge', 'BLEU', 'chrF', 'seconds']
      for variant, row in zip(results.of_split(split), rows, strict=True):
        cells = dict(zip(header, row, strict=True))
        assert cells['policy'] == variant.name
        assert cells['reward'] == f'{variant.reward.mean:.2f} ± 0.25'
        assert cells['BLEU'] == f'{variant.bleu:.2f}'
        assert cells['chrF'] == '55.12'
        assert cells['judge'] == '61.00 ± 0.50'
      header, *rows = read.tables[f'made up, {split}: gain over BC']
      assert rows == [
        ['ReST G1 I1', '+6.00 ± 0.12'], ['ReST G1 I2', '+7.00 ± 0.12'],
      ]  # fmt: skip
    header, *rows = read.tables['Reward ×100 of the best of N']
    assert header == ['policy', 'split', 'N=1', 'N=2']
    assert rows[1] == ['ReST G1 I1', 'validation', '71.00', '76.00']

  def test_the_best_policy_is_at_the_top(self, write):
    text = ' '.join(write().text.split())
    assert 'ReST G1 I2: scores on test: Reward ×100 77.00 ± 0.25' in text
    assert '+7.00 ± 0.12 over BC' in text

  def test_the_verdict_and_the_recommended_policy_come_first(self, write):
    results = pages.decoded()
    text = ' '.join(write(results=results).text.split())
    verdict = results.verdict
    assert verdict.recommended == 'ReST G1 I1'
    assert text.index(verdict.sentence) < text.index('Results')
    assert (
      "Recommended by the judge's score on validation: ReST G1 I1. Its greedy "
      'output on test: Judge ×100 63.00 ± 0.50 +3.00 ± 0.50 over BC'
    ) in text

  def test_warnings_are_said(self, write):
    results = pages.results(bleu_difference_to_bc=metrics.Difference(-3.0, 0.5))
    assert len(results.warnings) == 2
    read = write(results=results)
    for warning in results.warnings:
      assert read.text.count(warning) == 1
    assert 'hacking' not in write().text

  def test_warnings_of_stages_are_said(self, write):
    warning = 'grow 1: 91 % of the samples are unfinished'
    assert warning in write(stage_warnings=[warning]).text
    assert 'Warnings of stages' not in write().text


class TestHostileText:
  def test_it_is_there_and_inert(self, write):
    read = write(**full(pages.HOSTILE))
    # Nothing became an element, and every script is ours.
    assert len(read.all('script')) == 2
    assert not [a for a in read.all('img') if not a['src'].startswith('data:')]
    assert not [a for _, a in read.tags if 'onerror' in a]
    assert not read.unclosed
    visible = pages.VISIBLE
    assert read.text.count(visible) >= 10
    assert f'title {visible}' in read.text
    assert f'first\n\tsecond {visible}' in read.text
    assert any(visible in name for name in read.tables)
    # No template was filled in a second time.
    assert '{{ 7 * 7 }}' in read.text and '49' not in visible

  def test_samples_are_data_that_nothing_inside_can_end(self, write, tmp_path):
    read = write(samples=pages.samples(3))
    raw = (tmp_path / 'index.html').read_text(encoding='utf-8')
    data = re.search(r'id="data">(.*?)</script>', raw, re.DOTALL)[1]
    assert not set(data) & set('<>&\u2028\u2029\x00\x7f')
    source = read.data['sources'][1]
    assert source['source'] == f'source number 1 {pages.VISIBLE}'
    text, reward, judge, length, finished, count = source['candidates'][1][1]
    assert text == f'new bad 1 {pages.VISIBLE}'
    assert (reward, judge, length, finished, count) == (10.0, None, 5, 0, 1)

  def test_no_hidden_character_reaches_the_file(self, tmp_path):
    path = tmp_path / 'index.html'
    html.write(pages.page(**full(pages.HOSTILE)), path)
    found = set(path.read_text(encoding='utf-8'))
    assert not found & set('\x00\x07\x7f\u2028\u2029\u202e')


class TestLeftOut:
  def test_nothing_but_results(self, write):
    read = write()
    sections = [a['id'] for a in read.all('section')]
    assert sections == ['results', 'figures']
    assert len(read.all('script')) == 1
    links = [a['href'] for a in read.all('a')]
    assert links == ['#content', '#results', '#figures']

  @pytest.mark.parametrize(
    ('field', 'section'),
    [
      ('kept', 'grown'),
      ('grown', 'grown'),
      ('trust_tables', 'trust'),
      ('samples', 'samples'),
      ('costs', 'cost'),
      ('times', 'cost'),
      ('training', 'cost'),
      ('listings', 'configuration'),
      ('commands', 'configuration'),
    ],
  )
  def test_a_part_brings_its_section(self, write, field, section):
    read = write(**{field: full()[field]})
    sections = [a['id'] for a in read.all('section')]
    assert sections == ['results', 'figures', section]
    assert f'#{section}' in [a['href'] for a in read.all('a')]

  def test_diagnostics_need_no_other_tables(self, write):
    results = pages.results(diagnostics=pages.diagnostics())
    read = write(results=results)
    for split in ('validation', 'test'):
      rows = read.tables[f'made up, {split}: diagnostics']
      assert [row[0] for row in rows[1:]] == ['BC', 'ReST G1 I1', 'ReST G1 I2']

  def test_bc_alone(self, write):
    results = dataclasses.replace(
      pages.results(), variants=(pages.variant(0, 0, best_of_n={}),)
    )
    read = write(results=results)
    assert [a['id'] for a in read.all('figure')] == ['average-reward']
