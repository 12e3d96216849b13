"""Tests of the offline actor-critic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.losses import base, bc, oac
from tests.losses import table

_LOSSES = [oac.OAC(), oac.OAC(discount=0.9), oac.OAC(value_coefficient=0.5)]


@pytest.fixture(autouse=True)
def _values_are_a_table(monkeypatch):
  monkeypatch.setattr(base.scalar, 'ScalarModel', table.ValueTable)


def _case(seed=0, lengths=(5, 2, 4)):
  random = np.random.default_rng(seed)
  theta = table.params(random, len(lengths), 5)
  values = {'v': jnp.asarray(random.normal(size=(len(lengths), 5)))}
  return theta, table.batch(random, lengths, 5), {'value': values}


def test_by_hand():
  # Two tokens of probability 1/4 each, V = (0.2, 0.5), R = 1.
  theta = {'x': jnp.zeros((1, 3, 4))}
  cases = {
    'decoder_target_tokens': jnp.array([[2, 1, 0]]),
    'decoder_loss_weights': jnp.array([[1.0, 1.0, 0.0]]),
    'rewards': jnp.array([1.0]),
  }
  given = {'value': {'v': jnp.array([[0.2, 0.5, 9.0]])}}
  output = table.call(oac.OAC(), theta, cases, given=given)
  assert output.weighted_sum == pytest.approx((0.3 + 0.5) * np.log(4), rel=1e-5)
  assert output.normalizer == 2
  output = table.call(oac.OAC(value_coefficient=2.0), theta, cases, given=given)
  assert output.weighted_sum == pytest.approx(
    0.8 * np.log(4) + 2 * (0.64 + 0.25), rel=1e-5
  )


def test_with_unit_advantages_it_equals_bc():
  theta, cases, _ = _case()
  # V(s_t) = R - (T - t + 1) makes every advantage 1.
  lengths = (cases['decoder_target_tokens'] > 0).sum(1)
  left = lengths[:, None] - jnp.arange(5)
  given = {'value': {'v': cases['rewards'][:, None] - left}}
  ours = table.call(oac.OAC(), theta, cases, given=given)
  plain = table.call(bc.BC(), theta, cases)
  np.testing.assert_allclose(ours.weighted_sum, plain.weighted_sum, rtol=1e-5)
  np.testing.assert_allclose(
    table.gradient(oac.OAC(), theta, cases, given=given),
    table.gradient(bc.BC(), theta, cases),
    atol=1e-6,
  )


def test_the_better_sample_is_made_likelier_and_the_worse_less_likely():
  theta = {'x': jnp.zeros((2, 1, 4))}
  cases = {
    'decoder_target_tokens': jnp.array([[2], [3]]),
    'decoder_loss_weights': jnp.ones((2, 1)),
    'rewards': jnp.array([0.9, 0.1]),
  }
  given = {'value': {'v': jnp.full((2, 1), 0.5)}}
  gradient = table.gradient(oac.OAC(), theta, cases, given=given)
  assert gradient[0, 0, 2] < 0 < gradient[1, 0, 3]


def test_a_frozen_value_function_stays_and_a_trained_one_learns():
  theta, cases, given = _case(1)

  def gradient(loss):
    auxiliary = loss.init_auxiliary(theta, given)

    def total(learned):
      changed = auxiliary.replace(learned=learned)
      output = table.call(loss, theta, cases, given=given, auxiliary=changed)
      return output.weighted_sum

    return jax.grad(total)(auxiliary.learned)

  assert gradient(oac.OAC()) == {}
  trained = gradient(oac.OAC(value_coefficient=0.5))['value']['v']
  # That of 0.5 (V - R)^2 alone: nothing flows back from the policy's part.
  expected = (given['value']['v'] - cases['rewards'][:, None]) * cases[
    'decoder_loss_weights'
  ]
  np.testing.assert_allclose(trained, expected, atol=1e-6)


@pytest.mark.parametrize('loss', _LOSSES, ids=repr)
def test_identities(loss):
  theta, cases, given = _case(3, (5, 2, 4, 1))
  table.assert_masking_is_dropping(loss, theta, cases, [1, 3], given=given)
  table.assert_padding_is_nothing(loss, theta, cases, given=given)
  table.assert_an_empty_mask_is_harmless(loss, theta, cases, given=given)


@pytest.mark.parametrize(
  'arguments', [{'discount': 0.0}, {'value_coefficient': -1.0}]
)
def test_wrong_settings(arguments):
  with pytest.raises(ValueError, match=next(iter(arguments))):
    oac.OAC(**arguments)
