"""Tests of agreement with ratings."""

import numpy as np
import pytest

from rest_jax.stages import agreement


def _data(noise):
  random = np.random.default_rng(0)
  ratings = random.normal(size=240)
  rewards = ratings + noise * random.normal(size=240)
  return rewards, ratings, [f'source {i // 4}' for i in range(240)]


def test_perfect_agreement():
  rewards, ratings, sources = _data(0.0)
  found = agreement.agreement(
    3 * rewards + 1, ratings, sources, num_resamples=20
  )
  assert (found['rows'], found['sources']) == (240, 60)
  for name in ('pearson', 'spearman', 'kendall', 'pairwise_accuracy'):
    assert found[name]['value'] == pytest.approx(1.0)
    assert found[name]['low'] == pytest.approx(1.0)
  assert 'pearson 1.000 [1.000, 1.000]' in agreement.line(found)
  assert '240 rows of 60 sources' in agreement.line(found)


def test_intervals_hold_the_value_and_widen_with_noise():
  widths = []
  for noise in (0.5, 4.0):
    found = agreement.agreement(*_data(noise), num_resamples=200)
    for entry in found.values():
      if isinstance(entry, dict):
        assert entry['low'] < entry['value'] < entry['high']
    widths.append(found['pearson']['high'] - found['pearson']['low'])
  assert widths[0] < widths[1]


def test_accuracy_within_sources_ignores_differences_between_them():
  rewards, ratings, sources = _data(0.0)
  easy = np.repeat(np.arange(60.0), 4)
  within = agreement.agreement(
    rewards - 100 * easy, ratings + 100 * easy, sources, num_resamples=5
  )
  assert within['pairwise_accuracy']['value'] == 1.0
  assert within['pairwise_accuracy_all']['value'] < 0.1


def test_accuracy_within_sources_needs_sources_with_several_ratings():
  rewards, ratings, _ = _data(1.0)
  alone = [f'source {i}' for i in range(240)]
  found = agreement.agreement(rewards, ratings, alone, num_resamples=5)
  assert 'pairwise_accuracy' not in found
  assert found['pairwise_accuracy_all']['value'] > 0.5
  tied = np.repeat(ratings[::4], 4)
  sources = [f'source {i // 4}' for i in range(240)]
  found = agreement.agreement(rewards, tied, sources, num_resamples=5)
  assert 'pairwise_accuracy' not in found


def test_the_seed_decides():
  data = _data(1.0)
  first = agreement.agreement(*data, num_resamples=20, seed=1)
  assert first == agreement.agreement(*data, num_resamples=20, seed=1)
  assert first != agreement.agreement(*data, num_resamples=20, seed=2)
