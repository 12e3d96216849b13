"""Tests of order within a source."""

import itertools

import numpy as np
import pytest

from rest_jax.evaluation import metrics, within_source

# Two sources of three and two hypotheses, and one of a single one.
_GROUPS = np.array([0, 1, 0, 1, 0, 2])
_RATINGS = np.array([1.0, 5.0, 3.0, 4.0, 2.0, 9.0])
_REWARDS = np.array([0.0, 1.0, 2.0, 2.0, 2.0, -7.0])


def test_by_hand():
  found = within_source.rank(_REWARDS, _RATINGS, _GROUPS)
  # Source 0: (1, 3) and (1, 2) right, (3, 2) tied; source 1: wrong.
  assert (found.num_sources, found.num_pairs) == (2, 4)
  assert found.pairwise_accuracy.value == (2 + 0.5) / 4
  # Source 0: ratings -1, 1, 0 and rewards -4/3, 2/3, 2/3; 1: .5, -.5, -.5, .5.
  xy, xx, yy = 2 - 0.5, 24 / 9 + 0.5, 2 + 0.5
  assert found.pearson.value == pytest.approx(xy / (xx * yy) ** 0.5)
  # Source 0: the mean of 3 and 2 is 0.5 above 2, the best 1; source 1: 4 is
  # 0.5 below 4.5, the best 0.5 above; source 2 has no choice.
  assert found.best_of_n.value == pytest.approx((0.5 - 0.5) / (1 + 0.5))


def test_what_a_source_is_like_does_not_count():
  draw = np.random.default_rng(0)
  groups = np.repeat(np.arange(30), 4)
  rewards, ratings = draw.normal(size=(2, 120))
  found = within_source.rank(rewards, ratings, groups)
  moved = within_source.rank(
    rewards - 1e3 * groups, ratings + 1e3 * groups, groups
  )
  for name in ('pairwise_accuracy', 'pearson', 'best_of_n'):
    value = getattr(found, name).value
    assert getattr(moved, name).value == pytest.approx(value)


def test_an_oracle_and_its_opposite():
  draw = np.random.default_rng(1)
  ratings, groups = draw.normal(size=80), np.arange(80) // 2
  for sign in (1, -1):
    found = within_source.rank(sign * ratings, ratings, groups)
    assert found.pearson.value == pytest.approx(sign)
    assert found.best_of_n.value == pytest.approx(sign)
    assert found.pairwise_accuracy.value == (1 + sign) / 2


@pytest.mark.parametrize('constant', ['rewards', 'ratings'])
def test_nothing_to_compare_is_chance(constant):
  varied, alike = np.arange(6.0), np.full(6, 0.1)
  rewards, ratings = (
    (alike, varied) if constant == 'rewards' else (varied, alike)
  )
  found = within_source.rank(rewards, ratings, np.arange(6) // 3)
  assert found.pairwise_accuracy.value == 0.5
  assert found.pearson.value == 0.0
  assert found.best_of_n.value == 0.0
  assert found.pearson.interval(num_resamples=5) == (0.0, 0.0)


def test_the_accuracy_and_its_interval_are_of_pairs_of_one_source():
  draw = np.random.default_rng(2)
  groups = np.sort(draw.integers(0, 40, 200))
  groups = np.unique(groups, return_inverse=True)[1]
  rewards, ratings = draw.integers(0, 5, size=(2, 200)).astype(float)
  # Right pairs and pairs with different ratings of each source.
  right, ordered = np.zeros((2, groups.max() + 1))
  for i, j in itertools.combinations(range(200), 2):
    product = (rewards[i] - rewards[j]) * (ratings[i] - ratings[j])
    if groups[i] == groups[j] and ratings[i] != ratings[j]:
      right[groups[i]] += 0.5 * (1 + np.sign(product))
      ordered[groups[i]] += 1
  found = within_source.rank(rewards, ratings, groups).pairwise_accuracy
  assert found.value == pytest.approx(right.sum() / ordered.sum())
  assert found.interval(num_resamples=30, seed=3) == pytest.approx(
    metrics.bootstrap_interval(
      lambda sources: right[sources].sum() / ordered[sources].sum(),
      np.arange(len(right)),
      num_resamples=30,
      seed=3,
    )
  )


def test_fitted_weights_are_those_of_a_logistic_regression():
  draw = np.random.default_rng(3)
  groups = np.repeat(np.arange(400), 4)
  columns = draw.normal(size=(3, 1600)) * [[1.0], [10.0], [1.0]]
  columns += 50 * draw.normal(size=400)[groups]  # Of the source: no matter.
  utility = 2.0 * columns[0] + 0.1 * columns[1] - 0.5 * columns[2]
  ratings = utility + draw.gumbel(size=1600)
  found = within_source.fit_weights(columns, ratings, groups)
  # The third is better left out; 2 : 0.1 of mean 1 with 0.
  assert found[2] == 0.0
  assert found.mean() == pytest.approx(1.0)
  assert found[0] / found[1] == pytest.approx(20, rel=0.15)
  order = draw.permutation(1600)
  shuffled = within_source.fit_weights(
    columns[:, order], ratings[order], groups[order]
  )
  np.testing.assert_allclose(shuffled, found, rtol=1e-6)


def test_weights_of_nothing_that_orders_are_equal():
  groups = np.arange(20) // 2
  ratings = np.arange(20.0)
  for columns in (np.zeros((2, 20)), -np.arange(40.0).reshape(2, 20)):
    found = within_source.fit_weights(columns, ratings, groups)
    np.testing.assert_array_equal(found, [1.0, 1.0])
