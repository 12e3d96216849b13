"""Shares of cases: Wilson's interval, by hand and under clusters."""

import numpy as np
import pytest
from scipy import stats

from rest_jax.evaluation import metrics, shares


def share(hits, clusters=None):
  hits = np.asarray(hits, bool)
  clusters = np.arange(len(hits)) if clusters is None else np.asarray(clusters)
  return shares.clustered_share(hits, clusters)


@pytest.mark.parametrize('number', [1, 3, 100])
def test_where_all_agree_the_interval_is_wilsons(number):
  expected = stats.binomtest(number, number).proportion_ci(method='wilson')
  found = share([True] * number)
  assert found.value == 1.0
  assert found.low == pytest.approx(expected.low)
  assert found.high == 1.0
  none = share([False] * number)
  assert (none.low, none.value) == (0.0, 0.0)
  assert none.high == pytest.approx(1 - expected.low)


def test_without_clusters_it_is_almost_wilsons():
  expected = stats.binomtest(70, 99).proportion_ci(method='wilson')
  # C / (C - 1) of the standard error makes 100 cases count as 99.
  found = share([True] * 70 + [False] * 30)
  assert found.value == pytest.approx(0.7)
  assert found.high - found.low == pytest.approx(
    expected.high - expected.low, rel=0.01
  )


def test_cases_of_one_source_count_once():
  hits = np.random.default_rng(0).random(40) < 0.6
  alone = share(hits)
  thrice = share(np.repeat(hits, 3), np.repeat(np.arange(40), 3))
  assert (thrice.low, thrice.high) == pytest.approx((alone.low, alone.high))
  independent = share(np.repeat(hits, 3))
  assert independent.high - independent.low < alone.high - alone.low
  one = share([True] * 5, [7] * 5)
  assert one.low == pytest.approx(share([True]).low)


def test_in_large_samples_it_is_the_usual_one():
  generator = np.random.default_rng(1)
  clusters = generator.integers(2000, size=6000)
  hits = generator.random(6000) < 0.2 + 0.6 * (clusters % 2)
  found = share(hits, clusters)
  usual = metrics.clustered_mean(hits, clusters)
  assert found.high - found.value == pytest.approx(
    1.96 * usual.stderr, rel=0.02
  )


def test_sources_that_cancel_have_an_interval():
  found = share([True, False, True, False], [0, 0, 1, 1])
  assert found.low < 0.5 < found.high


def test_refuses_nothing():
  with pytest.raises(ValueError, match='at least one case'):
    share([])
  with pytest.raises(ValueError, match='1 cases and 2 sources'):
    share([True], [0, 1])
