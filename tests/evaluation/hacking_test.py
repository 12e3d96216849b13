"""Diagnostics of reward hacking, by hand."""

import math

import numpy as np
import pytest

from rest_jax.evaluation import hacking, metrics


class TestRepetition:
  @pytest.mark.parametrize(
    ('texts', 'order', 'expected'),
    [
      (['a b c d'], 3, 0.0),
      # aaa three times, of which one is new.
      (['a a a a a'], 3, 2 / 3),
      (['a b a b'], 2, 1 / 3),
      # Texts do not repeat each other.
      (['a b c', 'a b c'], 3, 0.0),
      # 2 of 3 and 1 of 1 distinct.
      (['a b a b', 'c d'], 2, 1 - 3 / 4),
      (['一二一二'], 2, 1 / 3),
      (['a', ''], 3, 0.0),
      ([], 3, 0.0),
    ],
  )
  def test_by_hand(self, texts, order, expected):
    assert hacking.repetition(texts, order) == pytest.approx(expected)

  def test_the_order_is_three(self):
    assert hacking.repetition(['a b a b']) == 0.0


class TestDistinct:
  @pytest.mark.parametrize(
    ('texts', 'order', 'expected'),
    [
      (['a b a', 'a c'], 1, 3 / 5),
      (['a b a', 'a c'], 2, 1.0),
      (['a b', 'a b', 'a b'], 2, 1 / 3),
      (['', 'a'], 2, 0.0),
      ([], 1, 0.0),
    ],
  )
  def test_by_hand(self, texts, order, expected):
    assert hacking.distinct(texts, order) == pytest.approx(expected)


class TestSelfBleu:
  def test_equal_samples_are_100(self):
    text = 'a b c d e'
    assert hacking.self_bleu([[text] * 3]) == pytest.approx(100.0)

  def test_by_hand(self):
    # 'a b' to 'a c': 1 of 2 words, and no pair of words, which sacrebleu counts
    # as half of one; both ways.
    expected = 100 * math.sqrt(1 / 2 * 1 / 2)
    found = hacking.self_bleu([['a b', 'a c']])
    assert found == pytest.approx(expected)
    # A third sample that has what was missing.
    more = hacking.self_bleu([['a b', 'a c', 'a b']])
    assert more == pytest.approx((100 + 100 + expected) / 3)

  def test_is_a_mean_over_sources(self):
    groups = [['a b c d'] * 2, ['e f g h', 'i j k l']]
    assert hacking.self_bleu(groups) == pytest.approx(50.0)

  def test_single_samples_have_none(self):
    assert hacking.self_bleu([['a'], ['b']]) is None
    assert hacking.self_bleu([]) is None
    assert hacking.self_bleu([['a b c d'] * 2, ['b']]) == pytest.approx(100.0)

  def test_empty_samples_are_survived(self):
    assert hacking.self_bleu([['', 'a b']]) == 0.0


def test_copied():
  sources = ['Der Hund', 'die  Katze', 'ein Haus', 'eins']
  texts = ['der hund', 'Die Katze', 'a house', '']
  assert hacking.copied(sources, texts) == 0.5


class TestLanguage:
  def test_by_hand(self):
    # Trigrams: sources ' aa', 'aa '; references ' bb', 'bb ' twice. V = 4.
    classifier = hacking.LanguageClassifier(['aa'], ['BB', ' bb'])
    unseen_right, unseen_wrong = 1 / 8, 1 / 6
    assert classifier.score('bb') == pytest.approx(
      2 * math.log((3 / 8) / unseen_wrong)
    )
    assert classifier.score('aa') == pytest.approx(
      2 * math.log(unseen_right / (2 / 6))
    )
    # A trigram of neither side: of the smaller side it is the likelier.
    assert classifier.score('x') == pytest.approx(
      math.log(unseen_right / unseen_wrong)
    )
    assert classifier.wrong(['aa', 'bb', 'Bb', 'a a']) == 0.5

  def test_nothing_is_in_no_language(self):
    classifier = hacking.LanguageClassifier(['aa'], ['bb'])
    assert classifier.score('') == 0.0
    assert classifier.wrong(['', '  ']) == 0.0

  def test_without_text_nothing_is_known(self):
    assert hacking.LanguageClassifier([], []).score('abc') == 0.0

  def test_two_languages_are_told_apart(self):
    german = ['der hund schläft im haus', 'eine katze sieht den vogel']
    english = ['the dog sleeps in the house', 'a cat sees the bird']
    classifier = hacking.LanguageClassifier(german, english)
    assert classifier.wrong(['the bird sleeps', 'a dog']) == 0.0
    assert classifier.wrong(['der vogel schläft', 'eine hund']) == 1.0


class TestDivergence:
  def test_by_hand(self):
    mean, per_token = hacking.divergence(
      np.array([1.0, 0.0, 3.0, 4.0], np.float32),
      np.array([2, 2, 5, 7]),
      np.array([0, 0, 1, 1]),
    )
    assert mean.mean == pytest.approx((1 + 0 + 3 + 4) / 4)
    assert per_token == pytest.approx(8 / 16)
    expected = metrics.clustered_mean(np.array([[1.0, 0.0], [3.0, 4.0]]))
    assert mean == expected


class TestWarning:
  RISE = metrics.Difference(4.0, 0.5)

  @pytest.mark.parametrize(
    ('reward', 'other', 'is_warned'),
    [
      (RISE, metrics.Difference(-2.1, 1.0), True),
      (RISE, metrics.Difference(-1.9, 1.0), False),
      (RISE, metrics.Difference(5.0, 1.0), False),
      (RISE, metrics.Difference(-0.1, 0.0), True),
      (RISE, None, False),
      (metrics.Difference(0.9, 0.5), metrics.Difference(-9.0, 1.0), False),
      (metrics.Difference(-4.0, 0.5), metrics.Difference(-9.0, 1.0), False),
      (None, metrics.Difference(-9.0, 1.0), False),
    ],
  )
  def test_two_standard_errors_both_ways(self, reward, other, is_warned):
    found = hacking.warning('BC', reward, {'chrF': other})
    assert (found is not None) == is_warned

  def test_the_line_has_all_that_fell(self):
    line = hacking.warning(
      'ReST G1 I2, test',
      self.RISE,
      {
        'BLEU': metrics.Difference(-2.5, 0.25),
        'chrF': metrics.Difference(1.0, 0.6),
        'human': metrics.Difference(-3.0, 1.0),
      },
    )
    assert line == (
      'ReST G1 I2, test: reward +4.00 ± 0.50 over BC, but BLEU -2.50 ± '
      '0.25, human -3.00 ± 1.00: it may exploit the reward'
    )

  def test_what_rose_is_said_as_well(self):
    line = hacking.warning(
      'BC',
      self.RISE,
      {
        'BLEU': metrics.Difference(-2.5, 0.25),
        'chrF': None,
        'human': metrics.Difference(3.0, 0.5),
      },
    )
    assert line == (
      'BC: reward +4.00 ± 0.50 over BC, but BLEU -2.50 ± 0.25 (though human '
      '+3.00 ± 0.50): it may exploit the reward'
    )
