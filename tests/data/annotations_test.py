"""Tables that go to raters, and what comes back from them."""

import numpy as np
import pytest

from rest_jax.data import annotations

_ITEMS = [
  annotations.Item('g1-1', 'train', 'ein Hund', 'a dog'),
  annotations.Item('g1-2', 'dev', 'eine\tKatze', 'a\ncat'),
  annotations.Item('g1-3', 'train', 'ein Haus', '"a house'),
]


def _table(path, *rows, header='id\tscore\tannotators'):
  path.write_text('\n'.join([header, *rows]) + '\n', encoding='utf-8')
  return path


def test_raters_get_texts_and_nothing_else(tmp_path):
  annotations.write(tmp_path / 'a.tsv', _ITEMS)
  assert (tmp_path / 'a.tsv').read_text(encoding='utf-8').splitlines() == [
    'id\tsplit\tsource\thypothesis\tscore\tannotators',
    'g1-1\ttrain\tein Hund\ta dog\t\t1',
    'g1-2\tdev\teine Katze\ta cat\t\t1',
    'g1-3\ttrain\tein Haus\t"a house\t\t1',
  ]
  # As it was sent it says nothing, and nobody takes it for ratings.
  with pytest.raises(ValueError, match=r"line 2, 'g1-1': score .*''"):
    annotations.read(tmp_path / 'a.tsv', _ITEMS)


def test_what_is_written_is_read(tmp_path):
  path = tmp_path / 'a.tsv'
  annotations.write(
    path, _ITEMS, np.array([0.25, -1.5, 3.0]), np.array([1, 2, 3])
  )
  found = annotations.read(path, _ITEMS)
  np.testing.assert_array_equal(found.score, np.float32([0.25, -1.5, 3.0]))
  np.testing.assert_array_equal(found.weight, np.float32([1, 2, 3]))
  # Texts are those of the items, not of the file.
  assert found.source == ['ein Hund', 'eine\tKatze', 'ein Haus']
  assert found.hypothesis == ['a dog', 'a\ncat', '"a house']
  assert found.split == ['train', 'dev', 'train']


def test_rows_may_be_missing_and_in_any_order(tmp_path):
  path = _table(tmp_path / 'a.tsv', 'g1-3\t1\t2', 'g1-1\t0.5\t1')
  found = annotations.read(path, _ITEMS)
  assert found.source == ['ein Hund', 'ein Haus']
  assert found.score.tolist() == [0.5, 1.0]
  assert found.weight.tolist() == [1.0, 2.0]


def test_numbers_of_annotators_may_be_missing(tmp_path):
  path = _table(tmp_path / 'a.tsv', 'g1-1\t1', 'g1-2\t2', header='id\tscore')
  assert annotations.read(path, _ITEMS).weight.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
  ('rows', 'message'),
  [
    (['g1-1\t1\t1', 'g1-2\tnan\t1'], r"line 3, 'g1-2': score .*'nan'"),
    (['g1-1\tinf\t1'], "line 2, 'g1-1': score .*'inf'"),
    (['g1-1\tgood\t1'], "line 2, 'g1-1': score .*'good'"),
    (['g1-1\t1\t0'], "'g1-1': annotators must be above 0; got '0'"),
    (
      ['g1-1\t1\t1', 'g1-2\t2\t1', 'g1-1\t3\t1'],
      r"line 4: each id must stand in one row; 'g1-1' is in line 2 too",
    ),
    (['g1-9\t1\t1'], "line 2: id must be one that was given out; got 'g1-9'"),
    (
      ['g1-2\t4\t1', 'g1-1\t4\t1', 'g1-3\t4\t1'],
      r"scores that differ; all of its 3 row\(s\) .* 4 of 'g1-1'",
    ),
    ([], 'no row'),
  ],
)
def test_unfit_tables_are_refused_naming_the_row(tmp_path, rows, message):
  with pytest.raises(ValueError, match=message):
    annotations.read(_table(tmp_path / 'a.tsv', *rows), _ITEMS)
