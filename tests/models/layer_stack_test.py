"""Tests of rematerialised and scanned layers."""

import functools

import jax
import numpy as np
import pytest

from rest_jax.models import policy as policy_lib
from tests import rounding
from tests.models import tiny

BATCH = tiny.batch(0, [4, 3, 2, 4], [5, 2, 4, 3])


def policy_of(**changes) -> policy_lib.Policy:
  return policy_lib.Policy(
    tiny.config(num_encoder_layers=3, num_decoder_layers=3, **changes)
  )


NUM_TERMS = tiny.gradient_terms(policy_of().config, BATCH)


@functools.cache
def params():
  return tiny.lively(tiny.init(policy_of()))


def loss_of(policy, key=None):
  def loss(params):
    return -policy.sequence_log_probs(params, BATCH, dropout_key=key).sum()

  return loss


@functools.cache
def expected(dropout_rate=0.0):
  key = jax.random.key(3) if dropout_rate else None
  loss = loss_of(policy_of(dropout_rate=dropout_rate), key)
  return jax.jit(jax.value_and_grad(loss))(params())


WAYS = [
  {'remat': 'minimal'},
  {'remat': 'full'},
  {'scan_layers': True},
  {'scan_layers': True, 'remat': 'minimal'},
  {'scan_layers': True, 'remat': 'full'},
]


@pytest.mark.parametrize('way', WAYS, ids=str)
def test_loss_and_gradients_are_those_of_the_plain_network(way):
  found = jax.jit(jax.value_and_grad(loss_of(policy_of(**way))))(params())
  rounding.assert_close(found, expected(), num_terms=NUM_TERMS)


@pytest.mark.parametrize('way', WAYS, ids=str)
def test_parameters_are_the_plain_network_s(way):
  plain, other = policy_of(), policy_of(**way)
  found = tiny.init(other)
  jax.tree.map(np.testing.assert_array_equal, tiny.init(plain), found)
  assert plain.logical_axes() == other.logical_axes()
  assert 'layers_2' in found['decoder']


@pytest.mark.parametrize('remat', ['minimal', 'full'])
def test_rematerialised_dropout_draws_the_same_masks(remat):
  policy = policy_of(dropout_rate=0.3, remat=remat)
  loss = loss_of(policy, jax.random.key(3))
  found = jax.jit(jax.value_and_grad(loss))(params())
  rounding.assert_close(found, expected(0.3), num_terms=NUM_TERMS)


def test_scanned_dropout_differs_by_key_and_by_layer():
  policy = policy_of(dropout_rate=0.3, scan_layers=True)
  value = jax.jit(lambda key: loss_of(policy, key)(params()))
  first, again, other = map(value, map(jax.random.key, (1, 1, 2)))
  assert first == again
  assert abs(first - other) > 1e-3
  assert abs(first - expected()[0]) > 1e-3


def _residuals(way) -> int:
  """Numbers that the backward pass is handed, but for parameters."""
  policy = policy_of(**way)
  backward = jax.eval_shape(
    lambda params: jax.vjp(loss_of(policy), params)[1], params()
  )
  given = sum(leaf.size for leaf in jax.tree.leaves(params()))
  return sum(leaf.size for leaf in jax.tree.leaves(backward)) - given


def test_rematerialisation_keeps_less():
  none, minimal, full = (
    _residuals({'remat': remat}) for remat in ('none', 'minimal', 'full')
  )
  assert full < minimal < none


def test_scanned_layers_are_one_loop():
  text = str(jax.make_jaxpr(loss_of(policy_of(scan_layers=True)))(params()))
  plain = str(jax.make_jaxpr(loss_of(policy_of()))(params()))
  assert text.count('scan[') == 2
  assert plain.count('scan[') == 0
  # Of three layers each, one is there.
  assert text.count('dot_general') < plain.count('dot_general') / 2


def test_an_unknown_way_is_refused():
  with pytest.raises(ValueError, match=r"remat must be one of .*; got 'some'"):
    tiny.config(remat='some')
