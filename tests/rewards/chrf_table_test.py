"""chrF of all pairs against sacrebleu, and by hand."""

import itertools

import hypothesis
from hypothesis import strategies
import numpy as np
import pytest
from sacrebleu import metrics

from rest_jax.rewards import chrf_table

TEXTS = (
  'a cat',
  'acat',
  'the cat sat on the mat',
  'aaaa',
  '',
  ' ',
  'é ß 猫',
  'b',
)


def expected(hypotheses, references, **settings):
  metric = metrics.CHRF(**settings)
  return [
    [metric.sentence_score(h, [r]).score / 100 for r in references]
    for h in hypotheses
  ]


@pytest.mark.parametrize(('char_order', 'beta'), [(6, 2), (3, 1), (1, 2)])
def test_equals_sacrebleu(char_order, beta):
  np.testing.assert_allclose(
    chrf_table.chrf(TEXTS, TEXTS[1:], char_order=char_order, beta=beta),
    expected(TEXTS, TEXTS[1:], char_order=char_order, beta=beta),
    atol=1e-12,
  )


@hypothesis.given(
  strategies.lists(strategies.text('ab c', max_size=12), min_size=1, max_size=5)
)
@hypothesis.settings(max_examples=50, deadline=None)
def test_equals_sacrebleu_for_any_text(texts):
  found = chrf_table.chrf(texts, texts[::-1])
  np.testing.assert_allclose(found, expected(texts, texts[::-1]), atol=1e-12)


def test_by_hand():
  # 'aab' to 'aaab': characters 3 of 3 and of 4, pairs aa, ab of 2 and of 3.
  precision, recall = (1 + 1) / 2, (3 / 4 + 2 / 3) / 2
  found = chrf_table.chrf(['aab'], ['aaab'], char_order=2, beta=1.0)
  np.testing.assert_allclose(
    found, [[2 * precision * recall / (precision + recall)]]
  )


def test_chrf_of_a_text_does_not_depend_on_the_other_texts():
  """No sum depends on what else is in the table."""
  table = chrf_table.chrf(TEXTS, TEXTS)
  for (i, one), (j, other) in itertools.product(enumerate(TEXTS), repeat=2):
    assert chrf_table.chrf([one], [other])[0, 0] == table[i, j]


def test_empty_lists():
  assert chrf_table.chrf([], ['a']).shape == (0, 1)
  assert chrf_table.chrf(['a'], []).shape == (1, 0)


def test_pieces_change_nothing(monkeypatch):
  whole = chrf_table.chrf(TEXTS, TEXTS)
  monkeypatch.setattr(chrf_table, '_WORDS_AT_ONCE', 1)
  np.testing.assert_array_equal(chrf_table.chrf(TEXTS, TEXTS), whole)
