"""The classifier of two languages: counts by hand, and real-looking words."""

import math

import pytest

from rest_jax.rewards import language


def test_log_odds_by_hand():
  # Unigrams with the spaces around. Sources: ' ' 2, a 2, b 1 (5 in all);
  # references: ' ' 2, b 1 (3). V = 3 + 1.
  classifier = language.TwoSides(['aab'], ['b'], order=1)
  unseen = math.log((5 + 4) / (3 + 4))
  odds = {
    ' ': math.log(3 / 3) + unseen,
    'a': math.log(1 / 3) + unseen,
    'b': math.log(2 / 2) + unseen,
  }
  assert classifier.evidence('a') == pytest.approx(
    (2 * odds[' '] + odds['a']) / 3
  )
  assert classifier.evidence('ab') == pytest.approx(
    (2 * odds[' '] + odds['a'] + odds['b']) / 4
  )
  assert classifier.evidence('z') == pytest.approx((2 * odds[' '] + unseen) / 3)


def test_exchanged_sides_turn_the_sign():
  german = ['der Hund schläft nicht', 'ich sehe die Katze']
  english = ['the dog does not sleep', 'i see the cat']
  one = language.TwoSides(german, english, order=3)
  other = language.TwoSides(english, german, order=3)
  for text in ('die Katze schläft', 'the cat sleeps', 'qqq'):
    assert one.evidence(text) == pytest.approx(-other.evidence(text))
  assert one.evidence('die Katze schläft') < 0 < one.evidence('The cat sleeps')


def test_case_and_spaces_do_not_count():
  classifier = language.TwoSides(['ab cd'], ['xy'], order=2)
  assert classifier.evidence('AB  CD ') == classifier.evidence('ab cd')


def test_a_text_without_n_grams_has_evidence_0():
  classifier = language.TwoSides(['abc'], ['xyz'], order=3)
  assert classifier.evidence('') == 0.0


def test_a_side_without_text_is_refused():
  with pytest.raises(ValueError, match='references must hold some text'):
    language.TwoSides(['abc'], [], order=3)
