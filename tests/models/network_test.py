import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.models import network
from rest_jax.models import policy as policy_lib
from tests import rounding
from tests.models import tiny

B, N, S, T = 3, 2, 6, 9
NUM_TERMS = tiny.logit_terms(tiny.config(), S, T)


_SIZES = {
  'untied': {},
  'tied': {'logits_via_embedding': True},
  'umt5': {'relative_bias_per_layer': True},
}


@pytest.fixture(scope='module', params=_SIZES)
def model(request):
  policy = policy_lib.Policy(tiny.config(**_SIZES[request.param]))
  return policy, tiny.lively(policy.init(jax.random.key(0)))


@pytest.fixture(scope='module')
def untied():
  policy = policy_lib.Policy(tiny.config())
  return policy, tiny.lively(policy.init(jax.random.key(0)))


def _tokens(seed=0):
  """Sources of unequal length and N hypotheses for each."""
  rng = np.random.default_rng(seed)
  sources = tiny.targets(rng, [S, 3, 1], S)
  hypotheses = tiny.targets(rng, [9, 4, 7, 7, 2, 9], T)
  inputs = np.pad(hypotheses, ((0, 0), (1, 0)))[:, :-1]
  return jnp.asarray(sources), jnp.asarray(inputs), jnp.asarray(hypotheses)


@functools.cache
def _jitted(policy, method):
  def apply(params, *arguments):
    return policy.module.apply({'params': params}, *arguments, method=method)

  return jax.jit(apply)


def _apply(policy, params, method, *arguments):
  return _jitted(policy, method)(params, *arguments)


def _call(model, *arguments):
  policy, params = model
  return _apply(policy, params, '__call__', *arguments)


def test_hypotheses_of_a_source_equal_repeated_sources(model):
  sources, inputs, targets = _tokens()
  shared = _call(model, sources, inputs, targets)
  repeated = _call(model, jnp.repeat(sources, N, axis=0), inputs, targets)
  rounding.assert_close(shared, repeated, num_terms=NUM_TERMS)


def test_rows_that_fit_no_source_are_refused(untied):
  sources, inputs, _ = _tokens()
  with pytest.raises(ValueError, match='each of the 3 sources; got 4 rows'):
    _call(untied, sources, inputs[:4])


def test_targets_change_nothing_but_padded_positions(untied):
  sources, inputs, targets = _tokens()
  real = np.asarray(targets) > 0
  with_targets = np.asarray(_call(untied, sources, inputs, targets))
  without = np.asarray(_call(untied, sources, inputs))
  rounding.assert_close(with_targets[real], without[real], num_terms=NUM_TERMS)


def test_later_tokens_do_not_matter(untied):
  sources, inputs, _targets = _tokens()
  changed = inputs.at[:, 5:].set(7)
  before = _call(untied, sources, inputs)
  after = _call(untied, sources, changed)
  np.testing.assert_array_equal(before[:, :5], after[:, :5])
  assert not np.allclose(before[:, 5:], after[:, 5:])


def test_padding_does_not_matter(untied):
  sources, inputs, targets = _tokens()
  plain = _call(untied, sources, inputs, targets)
  wider = [jnp.pad(x, ((0, 0), (0, 4))) for x in (sources, inputs, targets)]
  padded = _call(untied, *wider)[:, :T]
  real = np.asarray(targets) > 0
  rounding.assert_close(
    np.asarray(padded)[real], np.asarray(plain)[real], num_terms=NUM_TERMS
  )


def test_rows_of_nothing_but_padding_are_finite(untied):
  zeros = jnp.zeros((2, 3), jnp.int32)
  assert np.all(np.isfinite(_call(untied, zeros, zeros, zeros)))


@pytest.mark.parametrize('stages', [(9,), (2, 3, 8, 9), (16,)])
def test_steps_equal_teacher_forcing(model, stages):
  policy, params = model
  sources, inputs, _ = _tokens()
  expected = _call(model, sources, inputs).reshape(B, N, T, -1)
  cross_caches = _apply(
    policy,
    params,
    'cross_attention_cache',
    _apply(policy, params, 'encode', sources),
  )
  assert cross_caches[0][0].shape == (B, 2, 4, S)
  caches = network.init_caches(policy.config, B, N, stages[0])
  for position in range(T):
    if position == network.cache_length(caches):
      caches = network.grow_caches(
        caches, min(stage for stage in stages if stage > position)
      )
    tokens = inputs.reshape(B, N, T)[:, :, position]
    logits, caches = _apply(
      policy, params, 'decode_step', tokens, caches, cross_caches, sources,
      position,
    )  # fmt: skip
    assert logits.dtype == jnp.float32
    rounding.assert_close(logits, expected[:, :, position], num_terms=NUM_TERMS)


def test_caches_do_not_shrink():
  caches = network.init_caches(tiny.config(), B, N, 4)
  with pytest.raises(ValueError, match='at least the current 4; got 3'):
    network.grow_caches(caches, 3)


def test_stale_cache_entries_are_not_seen(untied):
  policy, params = untied
  sources, _, _ = _tokens()
  encoded = _apply(policy, params, 'encode', sources)
  cross_caches = _apply(policy, params, 'cross_attention_cache', encoded)
  clean = network.init_caches(policy.config, B, N, 4)
  dirty = jax.tree.map(lambda x: x + 5.0, clean)
  tokens = jnp.zeros((B, N), jnp.int32)
  logits = [
    _apply(
      policy, params, 'decode_step', tokens, caches, cross_caches, sources, 0
    )[0]
    for caches in (clean, dirty)
  ]
  np.testing.assert_array_equal(*logits)


def test_dropout_acts_and_is_reproducible(untied):
  _, params = untied
  policy = policy_lib.Policy(tiny.config(dropout_rate=0.3))
  sources, inputs, targets = _tokens()

  @jax.jit
  def run(key):
    return policy.module.apply(
      {'params': params},
      sources,
      inputs,
      targets,
      deterministic=False,
      rngs={'dropout': key},
    )

  once = run(jax.random.key(1))
  np.testing.assert_array_equal(once, run(jax.random.key(1)))
  assert not np.allclose(once, run(jax.random.key(2)))
  plain = _call(untied, sources, inputs, targets)
  without = _call((policy, params), sources, inputs, targets)
  np.testing.assert_array_equal(plain, without)


def test_bfloat16_is_close(untied):
  _, params = untied
  half = policy_lib.Policy(tiny.config(dtype='bfloat16'))
  tokens = _tokens()
  exact = np.asarray(_call(untied, *tokens))
  close = _call((half, params), *tokens)
  assert close.dtype == jnp.float32
  error = np.asarray(close) - exact
  # Its 8 bits of mantissa, through all layers, at weights of deviation 0.3.
  assert np.std(error) < 0.1 * np.std(exact)
  assert np.any(error)


def test_bfloat16_steps_equal_teacher_forcing_closely(untied):
  _, params = untied
  policy = policy_lib.Policy(tiny.config(dtype='bfloat16'))
  sources, inputs, _ = _tokens()
  expected = _call((policy, params), sources, inputs).reshape(B, N, T, -1)
  encoded = _apply(policy, params, 'encode', sources)
  cross_caches = _apply(policy, params, 'cross_attention_cache', encoded)
  caches = network.init_caches(policy.config, B, N, 2)
  assert caches[0][0].dtype == jnp.bfloat16
  for position in range(2):
    logits, caches = _apply(
      policy,
      params,
      'decode_step',
      inputs.reshape(B, N, T)[:, :, position],
      caches,
      cross_caches,
      sources,
      position,
    )
    error = logits - expected[:, :, position]
    assert np.std(error) < 0.03 * np.std(expected)
