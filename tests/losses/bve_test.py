"""Tests of behaviour value estimation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.losses import bve
from tests.losses import table

_LOSSES = [bve.BVE(), bve.BVE(discount=0.9, temperature=0.5)]


def _case(seed=0, lengths=(5, 2, 4)):
  random = np.random.default_rng(seed)
  theta = table.params(random, len(lengths), 5)
  return theta, table.batch(random, lengths, 5)


def test_by_hand():
  # z(y_t) = (2, 3), so Q = (1, 1.5); gamma = 0.5 and R = 1 give the targets
  # 0.5 * 1.5 and 1.
  theta = {'x': jnp.zeros((1, 3, 4)).at[0, 0, 2].set(2).at[0, 1, 1].set(3)}
  cases = {
    'decoder_target_tokens': jnp.array([[2, 1, 0]]),
    'decoder_loss_weights': jnp.array([[1.0, 1.0, 0.0]]),
    'rewards': jnp.array([1.0]),
  }
  output = table.call(bve.BVE(discount=0.5, temperature=0.5), theta, cases)
  assert output.weighted_sum == pytest.approx(0.25**2 + 0.5**2, rel=1e-5)
  assert output.normalizer == 2


def test_the_true_action_values_are_a_fixed_point():
  # Q(s_t, y_t) = gamma^(T-t) R of each hypothesis alone.
  _, cases = _case(1)
  targets = cases['decoder_target_tokens']
  lengths = (targets > 0).sum(1)
  ahead = lengths[:, None] - 1 - jnp.arange(5)
  values = cases['rewards'][:, None] * 0.9**ahead
  theta = {'x': (jax.nn.one_hot(targets, 7) * values[..., None]) / 0.1}
  loss = bve.BVE(discount=0.9)
  assert table.call(loss, theta, cases).weighted_sum == pytest.approx(
    0.0, abs=1e-10
  )
  assert np.abs(table.gradient(loss, theta, cases)).max() < 1e-5


def test_only_actions_that_were_taken_are_learned_and_targets_are_fixed():
  theta, cases = _case(2)
  gradient = table.gradient(bve.BVE(), theta, cases)
  taken = jax.nn.one_hot(cases['decoder_target_tokens'], 7, dtype=bool)
  assert not np.any(np.asarray(gradient)[~np.asarray(taken)])
  # d/dz (alpha z - target)^2 = 2 alpha (alpha z - target)
  weights = cases['decoder_loss_weights']
  z = (theta['x'] * taken).sum(-1)
  later = jnp.pad(z[:, 1:] * weights[:, 1:], ((0, 0), (0, 1)))
  is_last = weights * (1 - jnp.pad(weights[:, 1:], ((0, 0), (0, 1))))
  target = 0.1 * later + is_last * cases['rewards'][:, None]
  expected = 0.2 * (0.1 * z - target) * weights / weights.sum()
  np.testing.assert_allclose(gradient.sum(-1), expected, atol=1e-6)


def test_targets_are_renewed_every_lag_steps():
  theta, cases = _case(3)
  loss = bve.BVE(lag=2)
  auxiliary = loss.init_auxiliary(theta, {})
  moved = jax.tree.map(lambda x: x + 1, theta)
  for step, expected in ((1, theta), (2, moved)):
    auxiliary = loss.update_auxiliary(
      auxiliary, params=moved, step=jnp.int32(step)
    )
    np.testing.assert_array_equal(
      auxiliary.carried['lagged']['x'], expected['x']
    )
  del cases


@pytest.mark.parametrize('loss', _LOSSES, ids=repr)
def test_identities(loss):
  theta, cases = _case(4, (5, 2, 4, 1))
  # `table.rows_of` takes rows of the parameters, and so of the lagged ones.
  table.assert_masking_is_dropping(loss, theta, cases, [1, 3])
  table.assert_padding_is_nothing(loss, theta, cases)
  table.assert_an_empty_mask_is_harmless(loss, theta, cases)


@pytest.mark.parametrize(
  'arguments', [{'discount': 0.0}, {'temperature': 0.0}, {'lag': 0}]
)
def test_wrong_settings(arguments):
  with pytest.raises(ValueError, match=next(iter(arguments))):
    bve.BVE(**arguments)
