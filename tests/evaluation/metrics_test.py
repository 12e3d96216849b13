"""Estimates, correlations and intervals against hand-computed values."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from rest_jax.evaluation import metrics


class TestClusteredMean:
  def test_equal_counts_by_hand(self):
    # Means of the sources 1, 2, 6: mean 3, deviations -2, -1, 3.
    values = np.array([[0.0, 2.0], [2.0, 2.0], [7.0, 5.0]])
    estimate = metrics.clustered_mean(values)
    assert estimate.mean == pytest.approx(3.0)
    assert estimate.stderr == pytest.approx(math.sqrt(14 / 2 / 3))

  def test_unequal_counts_by_hand(self):
    # Sources {0, 1, 5} and {4}: mean 2.5; summed deviations -1.5 and 1.5.
    estimate = metrics.clustered_mean(
      np.array([0.0, 4.0, 1.0, 5.0]), np.array([7, 3, 7, 7])
    )
    assert estimate.mean == pytest.approx(2.5)
    assert estimate.stderr == pytest.approx(
      math.sqrt(2 * ((1.5 / 4) ** 2 + (1.5 / 4) ** 2))
    )

  def test_one_value_a_cluster_is_the_usual_standard_error(self):
    values = np.random.default_rng(0).normal(size=50)
    estimate = metrics.clustered_mean(values)
    assert estimate.stderr == pytest.approx(stats.sem(values))

  def test_rows_and_labels_agree(self):
    generator = np.random.default_rng(1)
    values = generator.normal(size=(9, 4))
    labels = np.repeat([f'source {i}' for i in range(9)], 4)
    order = generator.permutation(36)
    by_rows = metrics.clustered_mean(values)
    by_labels = metrics.clustered_mean(values.reshape(-1)[order], labels[order])
    assert by_labels.mean == pytest.approx(by_rows.mean)
    assert by_labels.stderr == pytest.approx(by_rows.stderr)

  def test_repeating_every_sample_adds_no_certainty(self):
    values = np.random.default_rng(2).normal(size=(8, 3))
    once = metrics.clustered_mean(values)
    twice = metrics.clustered_mean(np.concatenate([values, values], axis=1))
    assert twice.stderr == pytest.approx(once.stderr)

  def test_shift_and_scale(self):
    values = np.random.default_rng(3).normal(size=(8, 3))
    estimate = metrics.clustered_mean(values)
    moved = metrics.clustered_mean(100 * values - 7)
    assert moved.mean == pytest.approx(100 * estimate.mean - 7)
    assert moved.stderr == pytest.approx(estimate.scaled(100).stderr)
    assert metrics.clustered_mean(-values).stderr == pytest.approx(
      estimate.scaled(-1).stderr
    )

  @pytest.mark.parametrize('ragged', [False, True])
  def test_covers_the_truth(self, ragged):
    # 95 % intervals of 600 studies: the share has standard error 0.9 %.
    generator = np.random.default_rng(4)
    covered = naive_covered = 0
    for _ in range(600):
      counts = generator.integers(1, 9, size=80) if ragged else np.full(80, 4)
      labels = np.repeat(np.arange(80), counts)
      values = generator.normal(size=80)[labels]
      values = values + generator.normal(size=len(labels))
      estimate = metrics.clustered_mean(values, labels)
      covered += abs(estimate.mean) < 1.96 * estimate.stderr
      naive_covered += abs(estimate.mean) < 1.96 * stats.sem(values)
    assert 0.915 < covered / 600 < 0.975
    assert naive_covered / 600 < 0.88

  def test_integers_and_float32_are_averaged_in_float64(self):
    values = np.full((1000, 100), 0.1, np.float32)
    assert metrics.clustered_mean(values).mean == pytest.approx(
      float(np.float32(0.1)), rel=1e-12
    )
    assert metrics.clustered_mean(np.array([[1, 2], [3, 4]])).mean == 2.5

  @pytest.mark.parametrize(
    ('values', 'clusters', 'message'),
    [
      (np.array([[1.0, np.nan], [2.0, 3.0]]), None, 'nan at position 1'),
      (np.array([1.0, np.inf]), None, 'inf at position 1'),
      (np.zeros((0, 3)), None, 'at least one value'),
      (np.zeros((1, 3)), None, 'at least two sources'),
      (np.zeros(3), np.zeros(3, int), 'at least two sources'),
      (np.zeros(3), np.arange(2), r'must have shape \(3,\)'),
      (np.zeros((3, 2)), np.arange(3), r'shape \(3, 2\) with clusters'),
      (np.zeros((2, 2, 2)), None, r'\[sources, samples\]'),
    ],
  )
  def test_refuses(self, values, clusters, message):
    with pytest.raises(ValueError, match=message):
      metrics.clustered_mean(values, clusters)

  @pytest.mark.parametrize('arguments', [(math.nan, 1.0), (0.0, -1.0)])
  def test_estimate_refuses(self, arguments):
    with pytest.raises(ValueError, match='must be'):
      metrics.Estimate(*arguments)


class TestCorrelationInterval:
  def test_by_hand(self):
    # artanh(0.5) = 0.549306; 1.959964 / 5 = 0.391993.
    assert metrics.correlation_interval(0.5, 28) == pytest.approx(
      (math.tanh(0.157313), math.tanh(0.941299)), abs=1e-6
    )
    low, high = metrics.correlation_interval(-1.0, 10)
    assert -1.0 <= low <= high < -0.999

  def test_refuses_what_says_nothing(self):
    with pytest.raises(ValueError, match='at least 10; got 2'):
      metrics.correlation_interval(1.0, 2)


class TestPairedDifference:
  def test_by_hand(self):
    # Differences of the sources' means 1, 3, 2: mean 2, variance 1.
    a = np.array([[1.0, 3.0], [5.0, 5.0], [4.0, 2.0]])
    b = np.array([[1.0], [2.0], [1.0]])
    difference = metrics.paired_difference(a, b)
    assert difference.mean == pytest.approx(2.0)
    assert difference.stderr == pytest.approx(math.sqrt(1 / 3))
    assert difference.z == pytest.approx(2 * math.sqrt(3))
    assert difference.p_value == pytest.approx(
      math.erfc(2 * math.sqrt(3) / math.sqrt(2))
    )

  def test_swapping_the_sides_changes_the_sign(self):
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 12, 4))
    forward = metrics.paired_difference(a, b)
    backward = metrics.paired_difference(b, a)
    assert backward.mean == pytest.approx(-forward.mean)
    assert backward.stderr == pytest.approx(forward.stderr)
    assert backward.p_value == pytest.approx(forward.p_value)

  def test_what_is_common_cancels(self):
    generator = np.random.default_rng(1)
    difficulty = 100 * generator.normal(size=(40, 1))
    a, b = generator.normal(size=(2, 40, 3))
    alone = metrics.paired_difference(a, b)
    together = metrics.paired_difference(a + difficulty, b + difficulty)
    assert together.mean == pytest.approx(alone.mean)
    assert together.stderr == pytest.approx(alone.stderr)
    assert metrics.clustered_mean(a + difficulty).stderr > 10 * alone.stderr

  def test_ragged_sides_in_any_order(self):
    generator = np.random.default_rng(2)
    a, b = generator.normal(size=10), generator.normal(size=14)
    a_labels = np.array([0, 0, 1, 2, 2, 2, 3, 4, 4, 4])
    b_labels = np.array([4, 4, 3, 3, 3, 2, 1, 1, 0, 0, 0, 0, 0, 0])
    difference = metrics.paired_difference(a, b, a_labels, b_labels)
    assert difference.mean == pytest.approx(a.mean() - b.mean())
    parts = [
      (a[a_labels == c] - a.mean()).sum() / 10
      - (b[b_labels == c] - b.mean()).sum() / 14
      for c in range(5)
    ]
    assert difference.stderr == pytest.approx(
      math.sqrt(5 / 4 * np.square(parts).sum())
    )

  def test_p_values_are_uniform_without_a_difference(self):
    generator = np.random.default_rng(3)
    p_values = []
    for _ in range(3000):
      difficulty = generator.normal(size=(60, 1))
      a = difficulty + generator.normal(size=(60, 2))
      b = difficulty + generator.normal(size=(60, 5))
      p_values.append(metrics.paired_difference(a, b).p_value)
    assert stats.kstest(p_values, 'uniform').pvalue > 0.01

  def test_no_spread(self):
    same = metrics.paired_difference(np.ones(3), np.ones(3))
    assert (same.mean, same.z, same.p_value) == (0.0, 0.0, 1.0)
    above = metrics.paired_difference(np.ones(3), np.zeros(3))
    assert (above.z, above.p_value) == (math.inf, 0.0)

  def test_refuses_other_sources(self):
    with pytest.raises(
      ValueError, match='4 sources in a, 3 in b and 3 in both'
    ):
      metrics.paired_difference(np.arange(4.0), np.arange(3.0))
    with pytest.raises(ValueError, match='b must be finite'):
      metrics.paired_difference(np.arange(2.0), np.array([0.0, np.nan]))


class TestCorrelations:
  def test_pearson_by_hand(self):
    # Deviations -1, 0, 1 and -2/3, -5/3, 7/3: covariance 3, variances 2, 78/9.
    value = metrics.pearson(np.array([1, 2, 3]), np.array([2, 1, 5]))
    assert value == pytest.approx(3 / math.sqrt(2 * 78 / 9))

  def test_pearson_fits_scipy_and_any_scale(self):
    x, y = np.random.default_rng(0).normal(size=(2, 40))
    expected = stats.pearsonr(x, y).statistic
    assert metrics.pearson(x, y) == pytest.approx(expected)
    assert metrics.pearson(1e-200 * x, 1e200 * y) == pytest.approx(expected)
    assert metrics.pearson(-3 * x + 1, y) == pytest.approx(-expected)

  def test_weights_are_repetitions(self):
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(2, 20))
    counts = generator.integers(0, 5, size=20)
    assert metrics.pearson(x, y, counts) == pytest.approx(
      metrics.pearson(np.repeat(x, counts), np.repeat(y, counts))
    )

  def test_spearman_and_kendall_with_ties(self):
    generator = np.random.default_rng(2)
    x = generator.integers(0, 5, size=30)
    y = x + generator.integers(0, 5, size=30)
    assert metrics.spearman(x, y) == pytest.approx(
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
    assert metrics.kendall(x, y) == pytest.approx(
      (concordant - discordant)
      / math.sqrt((ordered + only_x) * (ordered + only_y))
    )

  def test_ranks_ignore_monotone_maps(self):
    x, y = np.random.default_rng(3).normal(size=(2, 25))
    for correlation in (metrics.spearman, metrics.kendall):
      value = correlation(x, y)
      assert correlation(np.exp(x), y**3) == pytest.approx(value)
      assert correlation(-x, y) == pytest.approx(-value)

  @pytest.mark.parametrize(
    'correlation', [metrics.pearson, metrics.spearman, metrics.kendall]
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
      metrics.pearson(np.array([0.1, 0.1, 2.0]), np.arange(3.0), weights)


def brute_force_accuracy(scores, ratings):
  right = total = 0.0
  for i, j in itertools.combinations(range(len(scores)), 2):
    if ratings[i] != ratings[j]:
      total += 1
      product = (scores[i] - scores[j]) * (ratings[i] - ratings[j])
      right += 1.0 if product > 0 else 0.5 if product == 0 else 0.0
  return right / total


class TestPairwiseAccuracy:
  def test_by_hand(self):
    # Pairs of different ratings: right, tied, wrong, right, tied.
    scores = np.array([1.0, 2.0, 1.0, 0.0])
    ratings = np.array([1.0, 2.0, 3.0, 1.0])
    # (0,1) right, (0,2) tied score, (1,2) wrong, (1,3) right, (2,3) right.
    assert metrics.pairwise_accuracy(scores, ratings) == pytest.approx(3.5 / 5)

  @pytest.mark.parametrize('levels', [3, 1000])
  def test_brute_force(self, levels):
    generator = np.random.default_rng(levels)
    for _ in range(20):
      scores, ratings = generator.integers(0, levels, size=(2, 40))
      assert metrics.pairwise_accuracy(scores, ratings) == pytest.approx(
        brute_force_accuracy(scores, ratings)
      )

  def test_identities(self):
    generator = np.random.default_rng(5)
    scores, ratings = generator.normal(size=(2, 300)).round(1)
    accuracy = metrics.pairwise_accuracy(scores, ratings)
    assert metrics.pairwise_accuracy(-scores, ratings) == pytest.approx(
      1 - accuracy
    )
    assert metrics.pairwise_accuracy(ratings, ratings) == 1.0
    assert metrics.pairwise_accuracy(np.ones(300), ratings) == 0.5

  def test_refuses(self):
    scores = np.arange(4.0)
    with pytest.raises(ValueError, match=r'different ratings\.'):
      metrics.pairwise_accuracy(scores, np.ones(4))
    with pytest.raises(ValueError, match='ratings must be finite'):
      metrics.pairwise_accuracy(scores, np.array([0.0, np.nan, 1.0, 2.0]))


class TestBootstrapInterval:
  def test_fits_the_normal_interval_of_a_mean(self):
    values = np.random.default_rng(0).normal(size=400)
    low, high = metrics.bootstrap_interval(np.mean, values, num_resamples=2000)
    half = 1.96 * stats.sem(values)
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)

  def test_clusters_are_drawn_whole(self):
    generator = np.random.default_rng(1)
    values = (generator.normal(size=(100, 1)) + np.zeros((100, 10))).reshape(-1)
    clusters = np.repeat(np.arange(100), 10)
    low, high = metrics.bootstrap_interval(np.mean, values, clusters=clusters)
    stderr = metrics.clustered_mean(values, clusters).stderr
    assert high - low == pytest.approx(2 * 1.96 * stderr, rel=0.15)
    narrow = metrics.bootstrap_interval(np.mean, values)
    assert narrow[1] - narrow[0] < 0.5 * (high - low)

  def test_rows_stay_aligned_and_the_seed_decides(self):
    x = np.random.default_rng(2).normal(size=30)
    y = x + np.random.default_rng(3).normal(size=30)
    interval = metrics.bootstrap_interval(
      metrics.pearson, x, y, num_resamples=200
    )
    assert interval[0] < metrics.pearson(x, y) < interval[1]
    assert interval == metrics.bootstrap_interval(
      metrics.pearson, x, y, num_resamples=200
    )
    assert interval != metrics.bootstrap_interval(
      metrics.pearson, x, y, num_resamples=200, seed=1
    )
    assert metrics.bootstrap_interval(
      metrics.pearson, x, x, num_resamples=20
    ) == pytest.approx((1.0, 1.0))

  def test_covers_the_truth(self):
    generator = np.random.default_rng(5)
    covered = 0
    for study in range(200):
      low, high = metrics.bootstrap_interval(
        np.mean, generator.normal(size=60), num_resamples=200, seed=study
      )
      covered += low < 0 < high
    assert 0.89 < covered / 200 < 0.99

  @pytest.mark.parametrize(
    ('arrays', 'settings', 'message'),
    [
      ((np.zeros(3), np.zeros(2)), {}, r'lengths \[3, 2\]'),
      ((np.zeros(0),), {}, 'at least one row'),
      ((), {}, 'at least one row'),
      ((np.zeros(3),), {'num_resamples': 0}, 'num_resamples must be'),
      ((np.zeros(3),), {'clusters': np.zeros(4)}, 'clusters must have shape'),
      ((np.full(3, np.nan),), {}, 'the statistic must be finite'),
    ],
  )
  def test_refuses(self, arrays, settings, message):
    with pytest.raises(ValueError, match=message):
      metrics.bootstrap_interval(np.mean, *arrays, **settings)
