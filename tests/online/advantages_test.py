"""Tests of per-token rewards, advantages and whitening."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.online import advantages


def case(seed=0, lengths=(5, 1, 3, 0), width=5):
  random = np.random.default_rng(seed)
  shape = (len(lengths), width)
  is_token = jnp.asarray(np.arange(width) < np.asarray(lengths)[:, None])
  rewards, values = (
    jnp.asarray(random.normal(size=shape), jnp.float32) for _ in range(2)
  )
  return rewards, values, is_token


def wider(array, value):
  return jnp.pad(array, ((0, 0), (0, 3)), constant_values=value)


def test_token_rewards_by_hand():
  found = advantages.token_rewards(
    jnp.array([[-1.0, -2.0, 9.0], [-0.5, -1.0, -3.0]]),
    jnp.array([[-1.5, -1.0, -9.0], [-0.5, -2.0, -3.5]]),
    jnp.array([0.7, 0.2]),
    jnp.array([[True, True, False], [True, True, True]]),
    0.1,
  )
  # Row 1 ends at its second token: 0.7 - 0.1 (-2 + 1).
  expected = [[-0.05, 0.8, 0.0], [0.0, -0.1, 0.2 - 0.05]]
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_gae_by_hand():
  found = advantages.gae(
    jnp.array([[0.0, 0.0, 1.0, 5.0]]),
    jnp.array([[0.5, 0.25, 0.75, 5.0]]),
    jnp.array([[True, True, True, False]]),
    0.9,
    0.5,
  )
  # delta = (0.9 * 0.25 - 0.5, 0.9 * 0.75 - 0.25, 1 - 0.75).
  third = 0.25
  second = 0.425 + 0.45 * third
  first = -0.275 + 0.45 * second
  np.testing.assert_allclose(found, [[first, second, third, 0.0]], rtol=1e-6)


@pytest.mark.parametrize('discount', [1.0, 0.9, 0.0])
@pytest.mark.parametrize('gae_lambda', [1.0, 0.95, 0.0])
def test_gae_is_the_sum_of_its_definition(discount, gae_lambda):
  rewards, values, is_token = case()
  found = np.asarray(
    advantages.gae(rewards, values, is_token, discount, gae_lambda)
  )
  lengths = np.asarray(is_token).sum(1)
  r, v = np.asarray(rewards, np.float64), np.asarray(values, np.float64)
  expected = np.zeros(r.shape)
  for row, length in enumerate(lengths):
    for t in range(length):
      for s in range(t, length):
        after = v[row, s + 1] if s + 1 < length else 0.0
        delta = r[row, s] + discount * after - v[row, s]
        expected[row, t] += (discount * gae_lambda) ** (s - t) * delta
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_at_one_it_is_the_monte_carlo_return_less_the_value():
  rewards, values, is_token = case(1)
  found = advantages.gae(rewards, values, is_token, 1.0, 1.0)
  earned = jnp.where(is_token, rewards, 0.0)
  returns = jnp.cumsum(earned[:, ::-1], axis=1)[:, ::-1]
  expected = jnp.where(is_token, returns - values, 0.0)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_whitened_tokens_have_mean_0_and_variance_1():
  found, _, is_token = case(2, lengths=(5, 2, 4))
  white = np.asarray(advantages.whiten(3.0 * found - 7.0, is_token))
  real = white[np.asarray(is_token)]
  assert real.mean() == pytest.approx(0.0, abs=1e-6)
  assert real.std() == pytest.approx(1.0, abs=1e-4)
  assert not white[~np.asarray(is_token)].any()
  # An affine map keeps the order and the ratios of distances.
  before = np.asarray(found)[np.asarray(is_token)]
  assert np.corrcoef(before, real)[0, 1] == pytest.approx(1.0, abs=1e-5)


def test_equal_advantages_and_no_token_at_all_give_0():
  same = jnp.full((2, 3), 4.0)
  assert not np.any(advantages.whiten(same, jnp.ones((2, 3), bool)))
  assert not np.any(advantages.whiten(same, jnp.zeros((2, 3), bool)))


@pytest.mark.parametrize('padding', [0.0, 7.0, np.inf, np.nan])
def test_padding_is_nothing(padding):
  rewards, values, is_token = case(3)
  wide = wider(is_token, False)
  values = jnp.where(is_token, values, padding)
  rewards = jnp.where(is_token, rewards, padding)
  narrow = advantages.gae(rewards, values, is_token, 0.99, 0.9)
  padded = advantages.gae(
    wider(rewards, padding), wider(values, padding), wide, 0.99, 0.9
  )
  assert np.isfinite(narrow).all()
  np.testing.assert_array_equal(padded, wider(narrow, 0.0))
  np.testing.assert_allclose(
    advantages.whiten(wider(rewards, padding), wide),
    wider(advantages.whiten(rewards, is_token), 0.0),
    atol=1e-6,
  )
  total = jnp.arange(4.0)
  np.testing.assert_array_equal(
    advantages.token_rewards(
      wider(rewards, padding), wider(values, padding), total, wide, 0.3
    ),
    wider(advantages.token_rewards(rewards, values, total, is_token, 0.3), 0.0),
  )


def test_compiled_is_eager():
  rewards, values, is_token = case(4)
  arguments = (rewards, values, is_token, 0.9, 0.8)
  compiled = jax.jit(advantages.gae, static_argnums=(3, 4))(*arguments)
  np.testing.assert_allclose(compiled, advantages.gae(*arguments), atol=1e-6)
  np.testing.assert_allclose(
    jax.jit(advantages.whiten)(rewards, is_token),
    advantages.whiten(rewards, is_token),
    atol=1e-6,
  )
