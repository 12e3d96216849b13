"""Features of texts, by hand."""

import math

import numpy as np
import pytest

from rest_jax.rewards import text_features

FEATURES = text_features.TextFeatures(
  ['Das Haus ist alt.', 'Ein Buch.', 'Das ist gut.'],
  ['The house is old.', 'A book.', 'That is good.'],
)


def features(source, hypothesis):
  numbers = FEATURES([source], [hypothesis])[0]
  return dict(zip(text_features.NAMES, numbers, strict=True))


def test_n_grams_have_the_ends_of_the_text():
  assert text_features.ngrams(['a', 'b']) == [
    *[('<s>',), ('a',), ('b',), ('</s>',)],
    *[('<s>', 'a'), ('a', 'b'), ('b', '</s>')],
    *[('<s>', 'a', 'b'), ('a', 'b', '</s>')],
  ]


def test_marks_are_words_and_case_does_not_matter():
  assert text_features.split('The house, 3rd.') == [
    *['the', 'house', ',', '3rd', '.'],
  ]


def test_known_n_grams_by_hand():
  found = features('Ein Buch.', 'a house')
  # Of <s> a house </s>, all words, one bigram and no trigram are known.
  assert found['known_1'] == 1.0
  assert found['known_2'] == pytest.approx(1 / 3)
  assert found['known_3'] == 0.0
  assert found['log_count_2'] == pytest.approx(
    (math.log(1.1) + 2 * math.log(0.1)) / 3
  )


def test_lengths_numbers_marks_and_repetition_by_hand():
  found = features('12 und 34, ja', '12 of of of of 5.')
  assert found['words'] == pytest.approx(math.log(8 / 6))
  assert found['characters'] == pytest.approx(math.log(18 / 14))
  assert (found['numbers_missing'], found['numbers_added']) == (1, 1)
  assert (found['mark_,'], found['mark_.']) == (-1, 1)
  assert found['final_mark'] == 0.0
  # 12 of | of of | of of | of of | of 5 | 5 .
  assert found['repeated'] == pytest.approx(1 - 4 / 6)


def test_words_left_in_the_source_language_are_counted():
  assert features('Ein Buch.', 'a Buch.')['untranslated'] == pytest.approx(
    1 / 4
  )
  assert features('Ein Buch.', 'a book.')['untranslated'] == 0.0


def test_translation_is_measured_in_both_directions():
  right, wrong = (
    features('Das Haus ist alt.', hypothesis)
    for hypothesis in ('The house is old.', 'A book is good.')
  )
  assert right['forward_log_prob'] > wrong['forward_log_prob']
  assert right['backward_log_prob'] > wrong['backward_log_prob']


def test_empty_texts_have_finite_features():
  assert np.isfinite(FEATURES(['', 'Ein Buch.'], ['a book', ''])).all()
  assert FEATURES([], []).shape == (0, len(text_features.NAMES))
