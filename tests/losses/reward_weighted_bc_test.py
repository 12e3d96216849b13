"""Tests of behavioural cloning weighted by reward."""

import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.losses import bc, reward_weighted_bc
from tests.losses import table

Loss = reward_weighted_bc.RewardWeightedBC


def _case(seed=0, lengths=(5, 2, 4)):
  random = np.random.default_rng(seed)
  theta = table.params(random, len(lengths), 5)
  return theta, table.batch(random, lengths, 5)


def test_by_hand():
  theta = {'x': jnp.zeros((2, 1, 4))}
  cases = {
    'decoder_target_tokens': jnp.array([[1], [2]]),
    'decoder_loss_weights': jnp.ones((2, 1)),
    'rewards': jnp.array([0.5, 1.0]),
  }
  output = table.call(Loss(temperature=0.25), theta, cases)
  weights = np.exp(-2) + 1
  assert output.weighted_sum == pytest.approx(np.log(4) * weights, rel=1e-5)
  assert output.normalizer == pytest.approx(weights, rel=1e-5)


def test_at_a_high_temperature_it_is_bc():
  theta, cases = _case()
  np.testing.assert_allclose(
    table.gradient(Loss(temperature=1e6), theta, cases),
    table.gradient(bc.BC(), theta, cases),
    atol=1e-6,
  )


def test_only_differences_of_rewards_matter():
  theta, cases = _case(1)
  moved = {**cases, 'rewards': cases['rewards'] - 0.3}
  np.testing.assert_allclose(
    table.gradient(Loss(), theta, cases),
    table.gradient(Loss(), theta, moved),
    atol=1e-6,
  )


def test_at_a_low_temperature_the_best_is_all():
  theta, cases = _case(2)
  best = [int(jnp.argmax(cases['rewards']))]
  np.testing.assert_allclose(
    table.gradient(Loss(temperature=1e-2), theta, cases)[np.array(best)],
    table.gradient(
      bc.BC(), table.rows_of(theta, best), table.rows_of(cases, best)
    ),
    atol=1e-4,
  )


def test_weights_are_bounded():
  theta, cases = _case(3)
  huge = {**cases, 'rewards': jnp.array([1e6, 1.0, 1.0])}
  total, count = table.call(Loss(), theta, huge).metrics['reward_weight']
  assert total / count == pytest.approx((20 + 1 + 1) / 3, rel=1e-5)


def test_identities():
  theta, cases = _case(4, (5, 2, 4, 1))
  table.assert_masking_is_dropping(Loss(), theta, cases, [1, 3])
  table.assert_padding_is_nothing(Loss(), theta, cases)
  table.assert_an_empty_mask_is_harmless(Loss(), theta, cases)


@pytest.mark.parametrize(
  'arguments', [{'temperature': 0.0}, {'max_weight': 0.0}]
)
def test_wrong_settings(arguments):
  with pytest.raises(ValueError, match=next(iter(arguments))):
    Loss(**arguments)
