"""Counted rewards: exact, whatever the chunks."""

import numpy as np
import pytest

from rest_jax.report.gather import distributions


def chunked(rewards, *cuts):
  return lambda: iter(np.split(rewards, cuts))


def test_by_hand():
  rewards = np.array([0.0, 0.1, 0.2, 0.3, 1.0], np.float32)
  found = distributions.measure(chunked(rewards, 2), (0.2, 0.15), num_bins=2)
  assert found.count == 5
  assert found.mean == pytest.approx(0.32)
  assert list(found.counts) == [4, 1]
  # Strictly above, and in float32 as filters compare: 0.2 does not pass 0.2.
  assert found.above == {0.15: 3, 0.2: 2}
  assert list(found.above) == [0.15, 0.2]
  assert found.fraction_above(0.15) == pytest.approx(0.6)


def test_chunks_do_not_matter():
  rewards = np.random.default_rng(0).normal(size=5000).astype(np.float32)
  whole = distributions.measure(chunked(rewards), (0.5,))
  cut = distributions.measure(chunked(rewards, 1, 1, 777, 4000), (0.5,))
  assert np.array_equal(whole.counts, cut.counts)
  assert np.allclose(whole.edges, cut.edges)
  assert whole.above == cut.above == {0.5: int(np.sum(rewards > 0.5))}
  assert whole.counts.sum() == 5000


def test_many_values_are_strided_for_the_bins_and_all_counted(monkeypatch):
  rewards = np.random.default_rng(1).normal(size=10_000)
  exact = distributions.measure(chunked(rewards, 3333, 7001))
  monkeypatch.setattr(distributions, '_RANGE_VALUES', 1000)
  strided = distributions.measure(chunked(rewards, 3333, 7001))
  assert strided.count == 10_000
  assert strided.mean == exact.mean
  assert strided.edges[0] == pytest.approx(exact.edges[0], abs=0.5)
  # Every tenth value, whatever the chunks.
  low, high = np.quantile(rewards[::10], [0.001, 0.999])
  assert strided.edges[[0, -1]] == pytest.approx([low, high])


def test_outliers_do_not_squeeze_the_rest():
  rewards = np.append(np.linspace(0, 1, 9999), 500.0)
  found = distributions.measure(chunked(rewards), num_bins=10)
  assert found.edges[-1] < 1.1
  assert found.counts.sum() == 10_000
  assert found.counts[-1] == pytest.approx(1001, abs=12)


def test_equal_rewards_have_a_bin():
  found = distributions.measure(chunked(np.full(7, 0.25)), num_bins=4)
  assert found.counts.sum() == 7
  assert found.edges[0] < 0.25 < found.edges[-1]


@pytest.mark.parametrize(
  'rewards', [np.zeros(0), np.zeros((2, 2)), np.array([0.0, np.nan])]
)
def test_refuses(rewards):
  with pytest.raises(ValueError, match='rewards must be finite'):
    distributions.measure(lambda: iter([rewards]))
