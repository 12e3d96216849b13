"""The numbers that T5X computes from the same parameters."""

import json

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.models import network
from rest_jax.models import policy as policy_lib
from tests import rounding
from tests.models import tiny

NAMES = ('untied', 'tied', 'long_untied', 'long_tied', 'eos')


@pytest.fixture(scope='module', params=NAMES)
def golden(request, shared_dir):
  folder = shared_dir / 'golden' / 't5x_tiny'
  sizes = json.loads((folder / 'config.json').read_text())
  for name in ('eos_id', 'pad_id', 't5x_commit'):
    del sizes[name]
  with np.load(folder / f'{request.param}.npz') as file:
    arrays = dict(file)

  def under(prefix):
    return {
      name.removeprefix(prefix): value
      for name, value in arrays.items()
      if name.startswith(prefix)
    }

  tied = 'params/decoder/logits_dense/kernel' not in arrays
  config = network.NetworkConfig(**sizes, logits_via_embedding=tied)
  params = jax.tree.map(
    jnp.asarray, flax.traverse_util.unflatten_dict(under('params/'), sep='/')
  )
  return policy_lib.Policy(config), params, under('batch/'), arrays


def test_parameter_tree_is_t5x(golden):
  policy, params, _, _ = golden
  ours = jax.eval_shape(policy.init, jax.random.key(0))
  assert jax.tree.map(jnp.shape, ours) == jax.tree.map(jnp.shape, params)


def test_logits_loss_and_sequence_log_probs(golden):
  policy, params, batch, expected = golden
  logits = tiny.jitted(policy, 'logits')(params, batch)
  rounding.assert_close(
    logits,
    expected['logits'],
    num_terms=tiny.logit_terms(
      policy.config,
      batch['encoder_input_tokens'].shape[1],
      batch['decoder_input_tokens'].shape[1],
    ),
  )
  log_probs = tiny.jitted(policy, 'log_probs')(params, batch)
  loss = -np.sum(log_probs * batch['decoder_loss_weights'])
  np.testing.assert_allclose(loss, expected['loss_sum'], rtol=1e-5)
  np.testing.assert_allclose(
    tiny.jitted(policy, 'sequence_log_probs')(params, batch),
    expected['sequence_log_probs'],
    rtol=1e-5,
  )


def test_greedy_tokens(golden):
  policy, params, batch, expected = golden
  sources = batch['encoder_input_tokens']
  rows, length = expected['greedy_tokens'].shape

  def apply(method, *arguments):
    return policy.module.apply({'params': params}, *arguments, method=method)

  @jax.jit
  def decode(sources):
    cross_caches = apply('cross_attention_cache', apply('encode', sources))

    def step(carry, position):
      tokens, caches, done = carry
      logits, caches = apply(
        'decode_step', tokens, caches, cross_caches, sources, position
      )
      drawn = jnp.where(done, 0, jnp.argmax(logits, axis=-1))
      return (drawn, caches, done | (drawn == 1)), drawn[:, 0]

    start = (
      jnp.zeros((rows, 1), jnp.int32),
      network.init_caches(policy.config, rows, 1, length),
      jnp.zeros((rows, 1), bool),
    )
    return jax.lax.scan(step, start, jnp.arange(length))[1].T

  np.testing.assert_array_equal(
    decode(jnp.asarray(sources)), expected['greedy_tokens']
  )
