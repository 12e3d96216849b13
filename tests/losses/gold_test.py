"""Tests of GOLD."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.losses import bc, gold, ops
from tests.losses import table

_LOSSES = [
  gold.GoldP(),
  gold.GoldS(future_steps=2, discount=0.9),
  gold.GoldP(lag=2, min_importance=0.3),
]


def _case(seed=0, lengths=(5, 2, 4)):
  random = np.random.default_rng(seed)
  theta = table.params(random, len(lengths), 5)
  of_bc = table.params(random, len(lengths), 5)
  return theta, table.batch(random, lengths, 5), of_bc


def test_by_hand():
  # Two tokens and padding, with pi = (1/4, 1/2) and p_BC = (1/2, 1/5).
  def logits(*probabilities):
    rest = [1 - p for p in probabilities]
    rows = [
      [np.log(r), np.log(p)] for r, p in zip(rest, probabilities, strict=True)
    ]
    return {'x': jnp.asarray([rows])}

  theta, of_bc = logits(0.25, 0.5, 0.5), logits(0.5, 0.2, 0.5)
  cases = {
    'decoder_target_tokens': jnp.array([[1, 1, 0]]),
    'decoder_loss_weights': jnp.array([[1.0, 1.0, 0.0]]),
  }
  output = table.call(
    gold.GoldS(min_importance=0.4), theta, cases, given={'bc': of_bc}
  )
  # Q = (1/2 + 1/5, 1/5), importance = (max(1/4, 0.4), 1/2).
  expected = -(0.4 * 0.7 * np.log(0.25) + 0.5 * 0.2 * np.log(0.5))
  assert output.weighted_sum == pytest.approx(expected, rel=1e-5)
  assert output.normalizer == 2
  loss = gold.GoldP(min_importance=1.0, future_steps=0, baseline=-1.0)
  output = table.call(loss, theta, cases, given={'bc': of_bc})
  # r = (1 + ln 1/2, max(1 + ln 1/5, 0)).
  expected = -(1 - np.log(2)) * np.log(0.25)
  assert output.weighted_sum == pytest.approx(expected, rel=1e-5)


def test_with_unit_weights_it_is_bc():
  theta, cases, of_bc = _case()
  unit = gold.GoldS(min_importance=1.0, min_reward=1.0, future_steps=0)
  ours = table.call(unit, theta, cases, given={'bc': of_bc})
  plain = table.call(bc.BC(), theta, cases)
  np.testing.assert_allclose(ours.weighted_sum, plain.weighted_sum, rtol=1e-6)
  np.testing.assert_allclose(
    table.gradient(unit, theta, cases, given={'bc': of_bc}),
    table.gradient(bc.BC(), theta, cases),
    atol=1e-6,
  )


def test_no_gradient_flows_through_the_weights():
  theta, cases, of_bc = _case(1)
  loss = gold.GoldP()
  gradient = table.gradient(loss, theta, cases, given={'bc': of_bc})
  # Each token's gradient is that of its log-likelihood, times its credit.
  log_probs = table.Table().log_probs(theta, cases)
  rewards = jnp.where(
    cases['decoder_target_tokens'] > 0,
    loss.token_rewards(table.Table().log_probs(of_bc, cases)),
    0,
  )
  credit = jnp.clip(jnp.exp(log_probs), 0.1, 1) * ops.discounted_sums(
    rewards, 5, 1.0
  )
  one_hot = jax.nn.one_hot(cases['decoder_target_tokens'], 7)
  expected = (jax.nn.softmax(theta['x']) - one_hot) * credit[..., None]
  weights = cases['decoder_loss_weights']
  expected = expected * weights[..., None] / weights.sum()
  np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_a_lagged_policy_gives_the_importance():
  theta, cases, of_bc = _case(2)
  loss = gold.GoldP(lag=2)
  auxiliary = loss.init_auxiliary(theta, {'bc': of_bc})
  moved = jax.tree.map(lambda x: x + jnp.arange(7.0), theta)
  after_one = loss.update_auxiliary(auxiliary, params=moved, step=jnp.int32(1))
  after_two = loss.update_auxiliary(after_one, params=moved, step=jnp.int32(2))

  def importance(auxiliary):
    output = table.call(
      loss, moved, cases, given={'bc': of_bc}, auxiliary=auxiliary
    )
    total, count = output.metrics['importance']
    return float(total / count)

  weights = cases['decoder_loss_weights']

  def expected(theta):
    clipped = jnp.clip(jnp.exp(table.Table().log_probs(theta, cases)), 0.1, 1)
    return pytest.approx(float((clipped * weights).sum() / weights.sum()), 1e-5)

  assert importance(after_one) == expected(theta)
  assert importance(after_two) == expected(moved)


@pytest.mark.parametrize('loss', _LOSSES, ids=repr)
def test_identities(loss):
  theta, cases, of_bc = _case(3, (5, 2, 4, 1))
  table.assert_masking_is_dropping(
    loss, theta, cases, [1, 3], given={'bc': of_bc}
  )
  table.assert_padding_is_nothing(loss, theta, cases, given={'bc': of_bc})
  table.assert_an_empty_mask_is_harmless(
    loss, theta, cases, given={'bc': of_bc}
  )


@pytest.mark.parametrize(
  'arguments', [{'min_importance': 1.5}, {'discount': -0.1}, {'lag': -1}]
)
def test_wrong_settings(arguments):
  with pytest.raises(ValueError, match=next(iter(arguments))):
    gold.GoldS(**arguments)
