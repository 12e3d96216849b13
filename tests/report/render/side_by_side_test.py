"""Runs side by side: the table, the figure, the page."""

import pytest

from rest_jax.evaluation import metrics
from rest_jax.report.render import html, side_by_side
from tests.report import page_reader, pages


def make_side(name='b', remark=''):
  return side_by_side.SideBySide(
    task='made up',
    folders={'a': 'runs/a', name: f'runs/{name}'},
    measures=[
      side_by_side.Measure(
        name='reward ×100',
        split='validation',
        rows={
          'BC': [
            side_by_side.Cell(value=70.0, stderr=0.5),
            side_by_side.Cell(
              value=71.25,
              stderr=0.25,
              difference=metrics.Difference(1.25, 0.5),
            ),
          ],
          'ReST G1 I1': [side_by_side.Cell(value=72.0), None],
        },
      )
    ],
    remarks=[remark] if remark else [],
  )


def test_the_table_by_hand():
  (cells,) = side_by_side.tables(make_side())
  assert cells.header == ('policy', 'a', 'b', 'b − a', 'p')
  assert cells.rows == (
    # 2.5 standard errors.
    ('BC', '70.00 ± 0.50', '71.25 ± 0.25', '+1.25 ± 0.50', '0.0124'),
    ('ReST G1 I1', '72.00', '-', '-', '-'),
  )


def test_text_for_the_terminal():
  text = side_by_side.render(make_side(remark='b is another matter.'))
  assert text.startswith('made up, validation: reward ×100\n')
  assert 'not corrected for the number of comparisons' in ' '.join(text.split())
  assert text.endswith('NOTE b is another matter.')
  assert max(map(len, text.split('\n'))) <= 80


def test_the_figure_has_a_mark_for_each_run():
  side = make_side()
  axes = side_by_side.figure(side, side.measures[0]).axes[0]
  first, second = axes.containers
  assert list(first.lines[0].get_xdata()) == [70.0, 72.0]
  assert list(second.lines[0].get_xdata()) == [71.25]
  # The second stands below the first, in the same row.
  upper, lower = first.lines[0].get_ydata()[0], second.lines[0].get_ydata()[0]
  assert 0 < upper - lower < 0.5
  low, high = first.lines[2][0].get_segments()[0][:, 0]
  assert (low, high) == pytest.approx((69.5, 70.5))


def test_the_page_is_inert(tmp_path):
  path = tmp_path / 'compare.html'
  html.write_comparison(make_side(remark=pages.HOSTILE), path)
  read = page_reader.read(path)
  assert pages.VISIBLE in read.text
  assert len(read.all('script')) == 1 and not read.unclosed
  assert not [a for _, a in read.tags if 'onerror' in a]
  table = read.tables['made up, validation: reward ×100']
  assert table[1][3] == '+1.25 ± 0.50'
