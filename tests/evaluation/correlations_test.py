"""Correlations against hand-computed values and SciPy."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from rest_jax.evaluation import correlations


class TestCorrelationInterval:
  def test_by_hand(self):
    # artanh(0.5) = 0.549306; 1.959964 / 5 = 0.391993.
    assert correlations.interval(0.5, 28) == pytest.approx(
      (math.tanh(0.157313), math.tanh(0.941299)), abs=1e-6
    )
    low, high = correlations.interval(-1.0, 10)
    assert -1.0 <= low <= high < -0.999

  def test_refuses_what_says_nothing(self):
    with pytest.raises(ValueError, match='at least 10; got 2'):
      correlations.interval(1.0, 2)


class TestCorrelations:
  def test_pearson_fits_scipy_and_any_scale(self):
    x, y = np.random.default_rng(0).normal(size=(2, 40))
    expected = stats.pearsonr(x, y).statistic
    assert correlations.pearson(x, y) == pytest.approx(expected)
    assert correlations.pearson(1e-200 * x, 1e200 * y) == pytest.approx(
      expected
    )
    assert correlations.pearson(-3 * x + 1, y) == pytest.approx(-expected)

  def test_weights_are_repetitions(self):
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(2, 20))
    counts = generator.integers(0, 5, size=20)
    assert correlations.pearson(x, y, counts) == pytest.approx(
      correlations.pearson(np.repeat(x, counts), np.repeat(y, counts))
    )

  def test_spearman_and_kendall_with_ties(self):
    generator = np.random.default_rng(2)
    x = generator.integers(0, 5, size=30)
    y = x + generator.integers(0, 5, size=30)
    assert correlations.spearman(x, y) == pytest.approx(
      stats.spearmanr(x, y).statistic
    )
    concordant = discordant = only_x = only_y = 0
    for i, j in itertools.combinations(range(30), 2):
      product = np.sign(x[i] - x[j]) * np.sign(y[i] - y[j])
      concordant += product > 0
      discordant += product < 0
      only_x += x[i] == x[j] and y[i] != y[j]
      only_y += x[i] != x[j] and y[i] == y[j]
    ordered = concordant + discordant
    assert correlations.kendall(x, y) == pytest.approx(
      (concordant - discordant)
      / math.sqrt((ordered + only_x) * (ordered + only_y))
    )

  @pytest.mark.parametrize(
    'correlation',
    [correlations.pearson, correlations.spearman, correlations.kendall],
  )
  @pytest.mark.parametrize(
    ('x', 'y', 'message'),
    [
      (np.array([1.0, 1.0]), np.array([1.0, 2.0]), 'x must vary'),
      (np.array([1.0, 2.0]), np.array([0.1, 0.1]), 'y must vary'),
      (np.array([1.0, np.nan]), np.array([1.0, 2.0]), 'x must be finite'),
      (np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0]), 'aligned'),
      (np.array([1.0]), np.array([1.0]), 'at least two'),
    ],
  )
  def test_refuses(self, correlation, x, y, message):
    with pytest.raises(ValueError, match=message):
      correlation(x, y)

  @pytest.mark.parametrize(
    ('weights', 'message'),
    [
      (np.ones(2), 'must have shape'),
      (np.array([1.0, -1.0, 1.0]), 'at least 0'),
      (np.array([1.0, 0.0, 0.0]), 'above 0 for two'),
      (np.array([1.0, np.nan, 1.0]), 'weights must be finite'),
      (np.array([1.0, 1.0, 0.0]), 'x must vary'),
    ],
  )
  def test_refuses_weights(self, weights, message):
    with pytest.raises(ValueError, match=message):
      correlations.pearson(np.array([0.1, 0.1, 2.0]), np.arange(3.0), weights)


def brute_force_accuracy(scores, ratings):
  right = total = 0.0
  for i, j in itertools.combinations(range(len(scores)), 2):
    if ratings[i] != ratings[j]:
      total += 1
      product = (scores[i] - scores[j]) * (ratings[i] - ratings[j])
      right += 1.0 if product > 0 else 0.5 if product == 0 else 0.0
  return right / total


class TestPairwiseAccuracy:
  @pytest.mark.parametrize('levels', [3, 1000])
  def test_brute_force(self, levels):
    generator = np.random.default_rng(levels)
    for _ in range(20):
      scores, ratings = generator.integers(0, levels, size=(2, 40))
      assert correlations.pairwise_accuracy(scores, ratings) == pytest.approx(
        brute_force_accuracy(scores, ratings)
      )

  def test_refuses(self):
    scores = np.arange(4.0)
    with pytest.raises(ValueError, match=r'different ratings\.'):
      correlations.pairwise_accuracy(scores, np.ones(4))
    with pytest.raises(ValueError, match='ratings must be finite'):
      correlations.pairwise_accuracy(scores, np.array([0.0, np.nan, 1.0, 2.0]))
