"""Tests of the policy that is told the reward to reach."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.data import special_ids
from rest_jax.losses import base, bc, reward_conditioned
from rest_jax.models import policy as policy_lib
from rest_jax.training import loader
from tests.models import tiny
from tests.training import toy

_POLICY = toy.make_policy(vocab_size=32, mlp_dim=16)
_LOSS = reward_conditioned.RewardConditionedBC(num_classes=4)


def _batch(rewards, seed=0):
  random = np.random.default_rng(seed)
  tokens = random.integers(3, 28, (2, len(rewards), 6)).astype(np.int32)
  tokens[1, :, 4:] = special_ids.T5.pad
  tokens[1, :, 3] = special_ids.T5.eos
  return {
    **loader.decoder_batch(tokens[0], tokens[1]),
    'rewards': np.asarray(rewards, np.float32),
  }


@functools.partial(jax.jit, static_argnums=(0, 3))
def _sum(loss, params, batch, policy):
  inputs = base.Inputs(model=policy, params=params, batch=batch)
  return loss(inputs).weighted_sum


def _nll(loss, params, batch, policy=_POLICY):
  return float(_sum(loss, params, batch, policy))


def test_classes_of_rewards():
  rewards = jnp.array([-0.3, 0.0, 0.2499, 0.25, 0.74, 0.75, 1.0, 1.7])
  np.testing.assert_array_equal(
    _LOSS.starts(rewards, 32), 28 + np.array([0, 0, 0, 1, 2, 3, 3, 3])
  )


@pytest.mark.parametrize('target, start', [(None, 31), (0, 28), (2, 30)])
def test_the_policy_starts_with_the_target(target, start):
  loss = reward_conditioned.RewardConditionedBC(num_classes=4, target=target)
  assert loss.decoder_start(32) == start
  assert bc.BC().decoder_start(32) is None


def test_equals_bc_of_a_policy_that_reads_the_class():
  params = tiny.init(_POLICY)
  batch = _batch([0.9, 0.95])  # both of the highest class
  told = policy_lib.Policy(_POLICY.config, decoder_start=31)
  expected = _nll(bc.BC(), params, batch, told)
  assert _nll(_LOSS, params, batch) == pytest.approx(expected, rel=1e-6)
  # Whatever the policy that is trained starts with itself.
  assert _nll(_LOSS, params, batch, told) == pytest.approx(expected, rel=1e-6)
  assert abs(_nll(bc.BC(), params, batch) - expected) > 1e-3


def test_rows_of_different_rewards_are_told_apart():
  params = tiny.init(_POLICY, 1)
  same = _batch([0.5, 0.5], seed=2)
  for name in ('encoder_input_tokens', 'decoder_input_tokens'):
    same[name][1] = same[name][0]
  same['decoder_target_tokens'][1] = same['decoder_target_tokens'][0]
  both = _nll(_LOSS, params, {**same, 'rewards': np.float32([0.1, 0.9])})
  low = _nll(_LOSS, params, {**same, 'rewards': np.float32([0.1, 0.1])})
  high = _nll(_LOSS, params, {**same, 'rewards': np.float32([0.9, 0.9])})
  assert both == pytest.approx((low + high) / 2, rel=1e-5)
  assert abs(low - high) > 1e-3


def test_masked_rows_count_nothing_and_nothing_is_harmless():
  params = tiny.init(_POLICY, 3)
  batch = _batch([0.1, 0.9], seed=4)
  weights = batch['decoder_loss_weights']
  first = _nll(
    _LOSS, params, {**batch, 'decoder_loss_weights': weights * [[1], [0]]}
  )
  second = _nll(
    _LOSS, params, {**batch, 'decoder_loss_weights': weights * [[0], [1]]}
  )
  assert first + second == pytest.approx(_nll(_LOSS, params, batch), rel=1e-5)
  assert not _nll(_LOSS, params, {**batch, 'decoder_loss_weights': weights * 0})


@pytest.mark.parametrize(
  'arguments', [{'num_classes': 1}, {'target': 10}, {'target': -1}]
)
def test_wrong_settings(arguments):
  with pytest.raises(ValueError, match=next(iter(arguments))):
    reward_conditioned.RewardConditionedBC(**arguments)
