"""Tests of rewards that are wrong on purpose."""

import numpy as np
import pytest

from rest_jax.rewards import base, controls

CONTROLS = [controls.RandomReward(), controls.Verbosity()]


def test_verbosity_by_hand():
  found = controls.Verbosity(limit=1.5).score(
    ['a b', 'a b', 'a b c d', '', '猫坐'],
    ['x', 'x y z w', 'x y z', 'x', 'the cat'],
  )
  np.testing.assert_allclose(found, [0.5, 1.5, 0.75, 1.0, 1.0])


def test_random_numbers_are_uniform_and_those_of_the_texts():
  sources = [f'source {i}' for i in range(500)]
  hypotheses = [f'text {i % 50}' for i in range(500)]
  reward = controls.RandomReward()
  found = reward.score(sources, hypotheses)
  assert found.dtype == np.float32
  assert 0 <= found.min() < 0.02 and 0.98 < found.max() < 1
  assert abs(found.mean() - 0.5) < 4 * np.sqrt(1 / 12 / 500)
  # Whatever stands beside them, and for another seed others.
  np.testing.assert_array_equal(
    reward.score(sources[::-1], hypotheses[::-1]), found[::-1]
  )
  assert reward.score(['a', 'a'], ['b', 'b']).std() == 0
  other = controls.RandomReward(seed=1).score(sources, hypotheses)
  assert abs(np.corrcoef(found, other)[0, 1]) < 0.2
  # Which text belongs to which side is not lost in joining them.
  [one], [two] = reward.score(['a b'], ['c']), reward.score(['a'], ['b c'])
  assert one != two


@pytest.mark.parametrize('control', CONTROLS, ids=repr)
def test_controls_implement_the_reward_protocol(control):
  assert isinstance(control, base.RewardConfig)
  assert len(control.score([], [])) == 0
  with pytest.raises(ValueError, match='list of texts'):
    control.score('a', ['b'])
  assert control.digest == type(control)().digest
  assert 'wrong on purpose' in control.check()


def test_settings_are_part_of_the_digest_and_checked():
  assert controls.Verbosity(limit=3).digest != controls.Verbosity().digest
  assert controls.RandomReward(seed=1).digest != controls.RandomReward().digest
  with pytest.raises(ValueError, match='limit'):
    controls.Verbosity(limit=0)
