"""Tests of agreement with ratings."""

import re

import numpy as np
import pytest

from rest_jax.rewards import reward_agreement


def _data(noise):
  random = np.random.default_rng(0)
  ratings = random.normal(size=240)
  rewards = ratings + noise * random.normal(size=240)
  return rewards, ratings, [f'source {i // 4}' for i in range(240)]


def test_perfect_agreement():
  rewards, ratings, sources = _data(0.0)
  found = reward_agreement.agreement(
    3 * rewards + 1, ratings, sources, num_resamples=20
  )
  assert (found['rows'], found['sources']) == (240, 60)
  for name in ('pearson', 'spearman', 'kendall', 'pairwise_accuracy'):
    assert found[name]['value'] == pytest.approx(1.0)
    assert found[name]['low'] == pytest.approx(1.0)
  assert 'pearson 1.000 [1.000, 1.000]' in reward_agreement.line(found)
  assert '240 rows of 60 sources' in reward_agreement.line(found)


def test_intervals_hold_the_value_and_widen_with_noise():
  widths = []
  for noise in (0.5, 4.0):
    found = reward_agreement.agreement(*_data(noise), num_resamples=200)
    for entry in found.values():
      if isinstance(entry, dict):
        assert entry['low'] < entry['value'] < entry['high']
    widths.append(found['pearson']['high'] - found['pearson']['low'])
  assert widths[0] < widths[1]


def test_accuracy_within_sources_ignores_differences_between_them():
  rewards, ratings, sources = _data(0.0)
  easy = np.repeat(np.arange(60.0), 4)
  within = reward_agreement.agreement(
    rewards - 100 * easy, ratings + 100 * easy, sources, num_resamples=5
  )
  assert within['pairwise_accuracy']['value'] == 1.0
  assert within['pairwise_accuracy_all']['value'] < 0.1


def test_accuracy_within_sources_needs_sources_with_several_ratings():
  rewards, ratings, _ = _data(1.0)
  alone = [f'source {i}' for i in range(240)]
  found = reward_agreement.agreement(rewards, ratings, alone, num_resamples=5)
  assert 'pairwise_accuracy' not in found
  assert found['pairwise_accuracy_all']['value'] > 0.5
  tied = np.repeat(ratings[::4], 4)
  sources = [f'source {i // 4}' for i in range(240)]
  found = reward_agreement.agreement(rewards, tied, sources, num_resamples=5)
  assert 'pairwise_accuracy' not in found


def test_few_sources_are_not_measured():
  rewards, ratings, sources = _data(0.1)
  # Two ratings always correlate at 1 or -1.
  for count in (2, 9, 4 * 4):
    found = reward_agreement.agreement(
      rewards[:count], ratings[:count], sources[:count], num_resamples=5
    )
    assert found == {'rows': count, 'sources': -(-count // 4)}
    assert 'fewer than 10 rows, or 5 sources, say' in reward_agreement.line(
      found
    )
    [message] = reward_agreement.warnings({'dev': found})
    assert f'not measured on dev ({count} rows of' in message
  enough = reward_agreement.agreement(
    rewards[:20], ratings[:20], sources[:20], num_resamples=5
  )
  assert enough['pearson']['value'] > 0.9


def test_resamples_of_equal_ratings_are_no_agreement():
  ratings = np.zeros(10)
  ratings[3] = 1
  found = reward_agreement.agreement(
    ratings + 0.01 * np.arange(10),
    ratings,
    [f'source {i}' for i in range(10)],
    num_resamples=50,
  )
  assert found['pearson']['low'] == 0.0 < found['pearson']['value']


def test_order_within_a_source_comes_first():
  found = reward_agreement.agreement(*_data(1.0), num_resamples=5)
  assert found['pairs'] == 60 * 6
  assert list(found) == [
    'rows',
    'sources',
    'pairs',
    'pairwise_accuracy',
    'pearson_within_source',
    'best_of_n',
    'reward_and_length',
    'rating_and_length',
    'pearson',
    'spearman',
    'kendall',
    'pairwise_accuracy_all',
  ]
  line = reward_agreement.line(found)
  assert line.index('pairwise accuracy') < line.index('best of n')
  assert line.index('best of n') < line.index('reward and length')
  assert line.index('reward and length') < line.index('spearman')


def test_a_reward_of_long_sources_is_seen():
  sources = ['x' * (1 + i // 4) for i in range(240)]
  lengths = np.array([len(text) for text in sources], float)
  noise = np.random.default_rng(0).normal(size=(2, 240))
  found = reward_agreement.agreement(
    lengths + noise[0], -lengths + noise[1], sources, num_resamples=20
  )
  assert found['reward_and_length']['low'] > 0.95
  assert found['rating_and_length']['high'] < -0.95


def _found(sign, noise, *, has_pairs):
  _, ratings, sources = _data(0.0)
  random = np.random.default_rng(7)
  rewards = sign * ratings + noise * random.normal(size=len(ratings))
  if not has_pairs:
    sources = [f'source {row}' for row in range(len(ratings))]
  return reward_agreement.agreement(
    rewards, ratings, sources, num_resamples=200
  )


@pytest.mark.parametrize('has_pairs', [True, False])
@pytest.mark.parametrize(
  ('sign', 'noise', 'message'),
  [
    (1, 0.5, None),
    (0, 1.0, 'does not order the hyp|held-out ratings is not above zero'),
    (-1, 0.5, 'revers(es|ed).*higher scores are better'),
  ],
)
def test_a_reward_without_agreement_is_said(sign, noise, message, has_pairs):
  found = _found(sign, noise, has_pairs=has_pairs)
  said = reward_agreement.warnings({'dev': found})
  if message is None:
    assert said == []
    assert reward_agreement.failure(found) is None
    return
  [text] = said
  entry = found['pairwise_accuracy' if has_pairs else 'pearson']
  shown = f'{entry["value"]:.3f} [{entry["low"]:.3f}'
  assert re.search(message, text)
  assert shown in text
  assert shown in (reward_agreement.failure(found) or '')


def test_agreement_that_is_not_measured_is_no_failure():
  assert reward_agreement.failure({'rows': 4, 'sources': 2}) is None


def test_order_within_a_source_counts_more_than_order_between_them():
  _, ratings, sources = _data(0.0)
  # What a source is like is known, and nothing else.
  of_source = np.repeat(np.arange(60.0), 4)
  noise = np.random.default_rng(3).normal(size=240)
  found = reward_agreement.agreement(
    of_source + noise, 5 * of_source + ratings, sources, num_resamples=100
  )
  assert found['pearson']['low'] > 0.9
  [text] = reward_agreement.warnings({'test': found})
  assert 'does not order the hypotheses of one source' in text
  assert reward_agreement.failure(found) is not None
  # The other way round, thresholds for all sources are of no use.
  found = reward_agreement.agreement(
    ratings - of_source, ratings + of_source, sources, num_resamples=100
  )
  [text] = reward_agreement.warnings({'test': found})
  assert 'but not those of different sources' in text
  assert reward_agreement.failure(found) is None
