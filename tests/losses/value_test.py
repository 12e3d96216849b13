"""Tests of the value function's loss."""

import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.losses import base, ops, value
from tests.losses import table


def _call(loss, values, cases):
  return loss(
    base.Inputs(model=table.ValueTable(), params={'v': values}, batch=cases)
  )


def test_a_value_function_that_is_right_has_no_advantage():
  random = np.random.default_rng(1)
  cases = table.batch(random, (5, 2, 4), 6)
  is_token = cases['decoder_target_tokens'] > 0
  returns = ops.monte_carlo_returns(cases['rewards'], is_token, 0.9)
  rewards = ops.last_token_rewards(cases['rewards'], is_token)
  found = ops.td_errors(rewards, returns, is_token, 0.9)
  np.testing.assert_allclose(found, np.zeros((3, 6)), atol=1e-6)
  output = _call(value.ValueRegression(discount=0.9), returns, cases)
  assert output.weighted_sum == pytest.approx(0, abs=1e-6)


def test_tokens_near_the_end_may_count_more():
  # Two tokens to come and one: weights 1/2^p and 1.
  cases = {
    'decoder_target_tokens': jnp.array([[4, 1, 0]]),
    'decoder_loss_weights': jnp.array([[1.0, 1.0, 0.0]]),
    'rewards': jnp.array([1.0]),
  }
  values = jnp.array([[0.5, 0.9, 7.0]])
  output = _call(value.ValueRegression(remaining_power=2.0), values, cases)
  assert output.weighted_sum == pytest.approx(0.25 * 0.25 + 0.01, rel=1e-5)
  assert output.normalizer == 1.25
  # The reported error is that of all tokens alike.
  total, count = output.metrics['squared_error']
  assert total == pytest.approx(0.25 + 0.01, rel=1e-5)
  assert count == 2
  with pytest.raises(ValueError, match='remaining_power'):
    value.ValueRegression(remaining_power=-1.0)


def test_loss_by_hand():
  cases = {
    'decoder_target_tokens': jnp.array([[4, 1, 0], [1, 0, 0]]),
    'decoder_loss_weights': jnp.array([[1.0, 1.0, 0.0], [0.5, 0.0, 0.0]]),
    'rewards': jnp.array([2.0, 4.0]),
  }
  values = jnp.array([[0.0, 3.0, 100.0], [1.0, 100.0, 100.0]])
  output = _call(value.ValueRegression(discount=0.5), values, cases)
  assert output.weighted_sum == pytest.approx(1 + 1 + 0.5 * 9)
  assert output.normalizer == 2.5


@pytest.mark.parametrize('discount', [0.0, 1.5])
def test_wrong_settings(discount):
  with pytest.raises(ValueError, match='discount'):
    value.ValueRegression(discount=discount)
