"""Tests of the maths of the losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.losses import ops

_TOKENS = jnp.array([[True, True, True, False], [True, False, False, False]])


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
  log_probs = jnp.array([[-1.0, -2.0, 9.0], [-0.5, -1.0, -3.0]])
  of_bc = jnp.array([[-1.5, -1.0, -9.0], [-0.5, -2.0, -3.5]])
  found = ops.penalised_rewards(
    jnp.array([0.7, 0.2]),
    log_probs - of_bc,
    jnp.array([[True, True, False], [True, True, True]]),
    0.1,
  )
  # Row 1 ends at its second token: 0.7 - 0.1 (-2 + 1).
  expected = [[-0.05, 0.8, 0.0], [0.0, -0.1, 0.2 - 0.05]]
  np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize('discount', [1.0, 0.9, 0.0])
@pytest.mark.parametrize('gae_lambda', [1.0, 0.95, 0.0])
def test_gae_is_the_sum_of_its_definition(discount, gae_lambda):
  rewards, values, is_token = case()
  found = np.asarray(ops.gae(rewards, values, is_token, discount, gae_lambda))
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


def test_whitened_tokens_have_mean_0_and_variance_1():
  found, _, is_token = case(2, lengths=(5, 2, 4))
  white = np.asarray(ops.whiten(3.0 * found - 7.0, is_token))
  real = white[np.asarray(is_token)]
  assert real.mean() == pytest.approx(0.0, abs=1e-6)
  assert real.std() == pytest.approx(1.0, abs=1e-4)
  assert not white[~np.asarray(is_token)].any()
  # An affine map keeps the order and the ratios of distances.
  before = np.asarray(found)[np.asarray(is_token)]
  assert np.corrcoef(before, real)[0, 1] == pytest.approx(1.0, abs=1e-5)


def test_equal_advantages_and_no_token_at_all_give_0():
  same = jnp.full((2, 3), 4.0)
  assert not np.any(ops.whiten(same, jnp.ones((2, 3), bool)))
  assert not np.any(ops.whiten(same, jnp.zeros((2, 3), bool)))


@pytest.mark.parametrize('padding', [0.0, 7.0, np.inf, np.nan])
def test_padding_has_no_effect(padding):
  rewards, values, is_token = case(3)
  wide = wider(is_token, False)
  values = jnp.where(is_token, values, padding)
  rewards = jnp.where(is_token, rewards, padding)
  narrow = ops.gae(rewards, values, is_token, 0.99, 0.9)
  padded = ops.gae(
    wider(rewards, padding), wider(values, padding), wide, 0.99, 0.9
  )
  assert np.isfinite(narrow).all()
  np.testing.assert_array_equal(padded, wider(narrow, 0.0))
  np.testing.assert_allclose(
    ops.whiten(wider(rewards, padding), wide),
    wider(ops.whiten(rewards, is_token), 0.0),
    atol=1e-6,
  )
  total = jnp.arange(4.0)
  np.testing.assert_array_equal(
    ops.penalised_rewards(total, wider(values, padding), wide, 0.3),
    wider(ops.penalised_rewards(total, values, is_token, 0.3), 0.0),
  )


def test_compiled_is_eager():
  rewards, values, is_token = case(4)
  arguments = (rewards, values, is_token, 0.9, 0.8)
  compiled = jax.jit(ops.gae, static_argnums=(3, 4))(*arguments)
  np.testing.assert_allclose(compiled, ops.gae(*arguments), atol=1e-6)
  np.testing.assert_allclose(
    jax.jit(ops.whiten)(rewards, is_token),
    ops.whiten(rewards, is_token),
    atol=1e-6,
  )


def test_sums_stop_after_k_tokens_and_at_the_end():
  found = ops.discounted_sums(jnp.array([[1.0, 2.0, 4.0, 8.0]]), 2, 0.5)
  np.testing.assert_allclose(found, [[3.0, 6.0, 8.0, 8.0]])
  everything = ops.discounted_sums(jnp.ones((1, 3)), 9, 1.0)
  np.testing.assert_allclose(everything, [[3.0, 2.0, 1.0]])


def test_returns_by_hand():
  found = ops.monte_carlo_returns(jnp.array([8.0, -1.0]), _TOKENS, 0.5)
  np.testing.assert_allclose(found, [[2.0, 4.0, 8.0, 0.0], [-1.0, 0, 0, 0]])


def test_advantages_by_hand():
  values = jnp.array([[1.0, 2.0, 3.0, 9.0], [5.0, 9.0, 9.0, 9.0]])
  rewards = ops.last_token_rewards(jnp.array([8.0, 4.0]), _TOKENS)
  found = ops.td_errors(rewards, values, _TOKENS, 0.5)
  np.testing.assert_allclose(
    found, [[0.5 * 2 - 1, 0.5 * 3 - 2, 8 - 3, 0.0], [4 - 5, 0.0, 0.0, 0.0]]
  )


@pytest.mark.parametrize(
  ('ratio', 'advantage', 'expected', 'slope'),
  [
    (1.5, 1.0, 1.2, 0.0),  # Far enough: no more is gained.
    (1.5, -1.0, -1.5, -1.5),
    (0.5, 1.0, 0.5, 0.5),
    (0.5, -1.0, -0.8, 0.0),
    (1.1, 2.0, 2.2, 2.2),
  ],
)
def test_surrogate_by_hand(ratio, advantage, expected, slope):
  def clipped(log_ratio):
    return ops.clipped_surrogate(
      log_ratio[None, None], jnp.array([[advantage]]), 0.2
    )[0, 0]

  log_ratio = jnp.log(ratio)
  assert clipped(log_ratio) == pytest.approx(expected, rel=1e-5)
  # d(rho A) / d(log rho) = rho A where nothing is clipped.
  assert jax.grad(clipped)(log_ratio) == pytest.approx(slope, rel=1e-5)
  plain = ops.clipped_surrogate(
    log_ratio[None, None], jnp.array([[advantage]]), None
  )
  assert plain[0, 0] == pytest.approx(ratio * advantage, rel=1e-5)


def test_value_error_by_hand():
  values, old = jnp.array([[1.0, 0.3]]), jnp.array([[0.5, 0.2]])
  returns = jnp.array([[1.5, 0.0]])
  np.testing.assert_allclose(
    ops.clipped_value_error(values, old, returns, None), [[0.125, 0.045]]
  )
  # Clipped to 0.7 and 0.3: the larger error counts.
  np.testing.assert_allclose(
    ops.clipped_value_error(values, old, returns, 0.2),
    [[0.32, 0.045]],
    rtol=1e-6,
  )


def test_entropy_by_hand():
  logits = jnp.log(jnp.array([[[0.25] * 4, [0.5, 0.5, 1e-30, 1e-30]]]))
  np.testing.assert_allclose(
    ops.entropy(jax.nn.log_softmax(logits)), [[np.log(4), np.log(2)]], rtol=1e-5
  )
