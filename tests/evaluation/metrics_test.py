"""Estimates and intervals against hand-computed values."""

import math

import numpy as np
import pytest
from scipy import stats

from rest_jax.evaluation import correlations, metrics


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

  def test_rows_and_labels_agree(self):
    generator = np.random.default_rng(1)
    values = generator.normal(size=(9, 4))
    labels = np.repeat([f'source {i}' for i in range(9)], 4)
    order = generator.permutation(36)
    by_rows = metrics.clustered_mean(values)
    by_labels = metrics.clustered_mean(values.reshape(-1)[order], labels[order])
    assert by_labels.mean == pytest.approx(by_rows.mean)
    assert by_labels.stderr == pytest.approx(by_rows.stderr)

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
      correlations.pearson, x, y, num_resamples=200
    )
    assert interval[0] < correlations.pearson(x, y) < interval[1]
    assert interval == metrics.bootstrap_interval(
      correlations.pearson, x, y, num_resamples=200
    )
    assert interval != metrics.bootstrap_interval(
      correlations.pearson, x, y, num_resamples=200, seed=1
    )
    assert metrics.bootstrap_interval(
      correlations.pearson, x, x, num_resamples=20
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
