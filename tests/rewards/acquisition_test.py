"""Which samples are rated, on numbers made up by hand."""

import numpy as np
import pytest

from rest_jax.rewards import acquisition

_REWARDS = np.array([0.1, 0.9, 0.5, 0.8, 0.2, 0.9])
_UNCERTAINTY = np.array([0.3, 0.0, 0.7, 0.1, 0.7, 0.2])


def _choose(uniform, uncertain, high, rewards=_REWARDS, seed=0):
  config = acquisition.Acquisition(
    num_uniform=uniform, num_uncertain=uncertain, num_high_reward=high
  )
  rows, reasons = config.choose(
    rewards, _UNCERTAINTY[: len(rewards)], seed=seed
  )
  return rows.tolist(), reasons


def test_the_highest_rewards_are_chosen_the_first_of_equal_ones_first():
  assert _choose(0, 0, 3) == ([1, 5, 3], ['high_reward'] * 3)


def test_the_least_certain_are_chosen():
  assert _choose(0, 3, 0) == ([2, 4, 0], ['uncertain'] * 3)


def test_a_sample_is_chosen_for_one_reason_only():
  rows, reasons = _choose(0, 5, 1)
  # Rows by uncertainty: 2, 4, 0, 5, 3, 1; row 1 is left for its reward.
  assert rows == [2, 4, 0, 5, 3, 1]
  assert reasons == ['uncertain'] * 5 + ['high_reward']
  rewards = np.array([0.0, 1.0, 2.0])
  # Uncertainty takes row 2, which has the highest reward too.
  assert _choose(0, 1, 1, rewards)[0] == [2, 1]


def test_there_may_be_fewer_samples_than_are_asked_for():
  rows, reasons = _choose(2, 2, 9)
  assert sorted(rows) == list(range(6))
  assert reasons == ['uniform'] * 2 + ['uncertain'] * 2 + ['high_reward'] * 2


def test_uniform_samples_stand_for_all():
  counts = np.zeros(6)
  for seed in range(600):
    rows, _ = _choose(2, 1, 1, seed=seed)
    counts[rows[:2]] += 1
  # Each has 200 of 1200 on average, with a deviation of 11.5.
  assert np.abs(counts - 200).max() < 60
  assert _choose(2, 1, 1, seed=3) == _choose(2, 1, 1, seed=3)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'num_uniform': -1}, 'num_uniform must be at least 0; got -1'),
    (
      {'num_uniform': 1, 'num_uncertain': 0, 'num_high_reward': 0},
      'two ratings or more together; got 1',
    ),
    ({'num_draws': 1}, 'num_draws must be at least 2'),
    ({'dropout_rate': 0.0}, 'Without dropout all passes agree'),
    ({'dropout_rate': 1.0}, r'in \(0, 1\)'),
  ],
)
def test_unfit_settings_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    acquisition.Acquisition(**settings)


def test_missing_uncertainty_is_refused():
  with pytest.raises(ValueError, match='num_uncertain=200'):
    acquisition.Acquisition().choose(_REWARDS, None, seed=0)
