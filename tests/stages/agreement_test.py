"""Tests of agreement with ratings."""

import re

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


def test_few_sources_are_not_measured():
  rewards, ratings, sources = _data(0.1)
  # Two ratings always correlate at 1 or -1.
  for count in (2, 9, 4 * 4):
    found = agreement.agreement(
      rewards[:count], ratings[:count], sources[:count], num_resamples=5
    )
    assert found == {'rows': count, 'sources': -(-count // 4)}
    assert 'fewer than 10 rows, or 5 sources, say' in agreement.line(found)
    [message] = agreement.warnings({'dev': found})
    assert f'not measured on dev ({count} rows of' in message
  enough = agreement.agreement(
    rewards[:20], ratings[:20], sources[:20], num_resamples=5
  )
  assert enough['pearson']['value'] > 0.9


def test_resamples_of_equal_ratings_are_no_agreement():
  ratings = np.zeros(10)
  ratings[3] = 1
  found = agreement.agreement(
    ratings + 0.01 * np.arange(10),
    ratings,
    [f'source {i}' for i in range(10)],
    num_resamples=50,
  )
  assert found['pearson']['low'] == 0.0 < found['pearson']['value']


@pytest.mark.parametrize(
  ('sign', 'noise', 'message'),
  [
    (1, 0.5, None),
    (0, 1.0, r'held-out ratings is not above zero \(Pearson dev -?0'),
    (
      -1,
      0.5,
      r'the wrong way round.*\(Pearson dev -0.*higher scores are better',
    ),
  ],
)
def test_a_reward_without_agreement_is_said(sign, noise, message):
  _, ratings, sources = _data(0.0)
  random = np.random.default_rng(7)
  rewards = sign * ratings + noise * random.normal(size=len(ratings))
  found = agreement.agreement(rewards, ratings, sources, num_resamples=200)
  said = agreement.warnings({'dev': found})
  if message is None:
    assert said == []
    return
  [text] = said
  pearson = found['pearson']
  assert re.search(message, text)
  assert f'{pearson["value"]:.3f} [{pearson["low"]:.3f}' in text


def test_order_within_a_source_counts_as_well():
  _, ratings, sources = _data(0.0)
  # What a source is like is known, and nothing else.
  of_source = np.repeat(np.arange(60.0), 4)
  noise = np.random.default_rng(3).normal(size=240)
  found = agreement.agreement(
    of_source + noise, 5 * of_source + ratings, sources, num_resamples=100
  )
  assert found['pearson']['low'] > 0.9
  [text] = agreement.warnings({'test': found})
  assert 'does not order the translations of one source' in text
