"""IBM model 1 by hand, against loops over words, and what it measures."""

import collections
import math

import numpy as np
import pytest

from rest_jax.rewards import word_translation

SOURCES = [
  text.split() for text in ('das haus', 'das buch', 'ein buch', 'haus')
]
TARGETS = [
  text.split() for text in ('the house', 'the book', 'a book', 'house')
]


def loops(sources, targets, num_steps):
  """Expectation maximisation word by word, with one added to each total."""
  table = collections.defaultdict(lambda: 1.0)
  for _ in range(num_steps):
    counts = collections.Counter()
    for source, target in zip(sources, targets, strict=True):
      for v in target:
        total = sum(table[u, v] for u in [None, *source])
        for u in [None, *source]:
          counts[u, v] += table[u, v] / total
    totals = collections.Counter()
    for (u, _), count in counts.items():
      totals[u] += count
    table = {(u, v): c / (totals[u] + 1) for (u, v), c in counts.items()}
  return table


def test_one_pair_by_hand():
  fitted = word_translation.WordTranslation([['ja']], [['yes']], num_steps=3)
  # Half of the word comes from each source word: 0.5 / (0.5 + 1).
  np.testing.assert_allclose(
    fitted.probabilities(['ja'], ['yes']), [[1 / 3, 1 / 3]]
  )


def test_table_equals_that_of_loops_over_words():
  fitted = word_translation.WordTranslation(SOURCES, TARGETS, num_steps=5)
  expected = loops(SOURCES, TARGETS, 5)
  for source, target in zip(SOURCES, TARGETS, strict=True):
    np.testing.assert_allclose(
      fitted.probabilities(source, target),
      [[expected[u, v] for u in [None, *source]] for v in target],
      rtol=1e-9,
    )


def test_pairs_that_never_met_have_no_probability():
  fitted = word_translation.WordTranslation(SOURCES, TARGETS)
  assert fitted.probabilities(['ein'], ['house'])[0, 1] == 0.0


def test_unknown_words_may_be_copied_and_nothing_else():
  fitted = word_translation.WordTranslation(SOURCES, TARGETS)
  table = fitted.probabilities(['haus', 'Xavi'], ['Xavi', 'Yves'])
  assert table[0, 2] > 0
  assert np.count_nonzero(table) == 1


def test_measures_of_unknown_words_by_hand():
  fitted = word_translation.WordTranslation(SOURCES, TARGETS)
  log_prob, content, best = fitted.measure(['Xavi'], ['Xavi', 'Yves'])
  # 0.3 by copying, spread over two source words, and a frequency of 1e-6.
  copied = math.log(0.98 * 0.3 / 2 + 0.02 * 1e-6)
  unseen = math.log(0.02 * 1e-6)
  assert log_prob == pytest.approx((copied + unseen) / 2)
  assert content == pytest.approx(log_prob)
  assert best == pytest.approx((math.log(0.3) + math.log(1e-4)) / 2)


def test_a_translation_is_more_likely_than_another_text():
  fitted = word_translation.WordTranslation(SOURCES, TARGETS)
  right, wrong = (
    fitted.measure(['das', 'buch'], target)[0]
    for target in (['the', 'book'], ['a', 'house'])
  )
  assert right > wrong


@pytest.mark.parametrize(
  ('source', 'target'), [(['haus'], []), ([], ['house']), ([], [])]
)
def test_empty_texts_have_finite_measures(source, target):
  fitted = word_translation.WordTranslation(SOURCES, TARGETS)
  assert np.isfinite(fitted.measure(source, target)).all()


def test_pairs_of_texts_are_needed():
  with pytest.raises(ValueError, match='got none among 2'):
    word_translation.WordTranslation([['w'] * 81, []], [['v'], ['v']])
