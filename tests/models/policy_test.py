import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.models import policy as policy_lib
from tests import rounding
from tests.models import tiny

NUM_TERMS = tiny.logit_terms(tiny.config(), 4, 5)


@pytest.fixture(scope='module')
def model():
  policy = policy_lib.Policy(tiny.config())
  return policy, tiny.lively(tiny.init(policy))


def test_vocab_size_must_be_known():
  with pytest.raises(ValueError, match='with_vocab'):
    policy_lib.Policy(tiny.config(vocab_size=0))


def test_target_log_probs_by_hand():
  logits = jnp.log(jnp.asarray([[1.0, 3.0], [2.0, 2.0]]))
  got = policy_lib.target_log_probs(logits, jnp.asarray([1, 0]))
  np.testing.assert_allclose(got, [math.log(0.75), math.log(0.5)], rtol=1e-6)


def test_target_log_probs_survive_large_logits():
  logits = jnp.asarray([[1e4, 1e4 - 2.0]])
  got = policy_lib.target_log_probs(logits, jnp.asarray([1]))
  # Float32 resolves 1e4 to about 1e-3.
  expected = [-2.0 - math.log1p(math.exp(-2.0))]
  np.testing.assert_allclose(got, expected, atol=1e-3)


@pytest.mark.parametrize('transform', [jax.jit, lambda f: f])
def test_gradient_is_one_hot_minus_softmax(transform):
  rng = np.random.default_rng(0)
  logits = jnp.asarray(rng.normal(size=(2, 3, 5)), jnp.float32)
  targets = jnp.asarray(rng.integers(0, 5, (2, 3)))
  weights = jnp.asarray(rng.normal(size=(2, 3)), jnp.float32)

  def total(logits):
    return jnp.sum(policy_lib.target_log_probs(logits, targets) * weights)

  expected = jax.nn.one_hot(targets, 5) - jax.nn.softmax(logits)
  np.testing.assert_allclose(
    transform(jax.grad(total))(logits),
    expected * weights[..., None],
    atol=1e-6,
  )


def test_gradient_makes_no_scatter_over_the_vocabulary(model):
  policy, params = model
  batch = tiny.batch(0, [4, 3], [5, 2])

  def total(params):
    return jnp.sum(policy.log_probs(params, batch))

  # Only the two embedding look-ups have a scatter for a gradient.
  jaxpr = str(jax.make_jaxpr(jax.grad(total))(params))
  assert len(re.findall('= scatter', jaxpr)) == 2


def test_log_probs_are_the_logits_softmax(model):
  policy, params = model
  batch = tiny.batch(0, [4, 3], [5, 2])
  log_probs = jax.nn.log_softmax(tiny.jitted(policy, 'logits')(params, batch))
  expected = np.take_along_axis(
    np.asarray(log_probs), batch['decoder_target_tokens'][..., None], -1
  )[..., 0]
  got = tiny.jitted(policy, 'log_probs')(params, batch)
  assert got.dtype == jnp.float32
  rounding.assert_close(got, expected, num_terms=NUM_TERMS)
  # Padding is weighted out in the sum alone.
  assert np.all(np.asarray(got) < 0)
  np.testing.assert_allclose(
    tiny.jitted(policy, 'sequence_log_probs')(params, batch),
    np.sum(expected * (batch['decoder_target_tokens'] > 0), axis=1),
    rtol=1e-5,
  )


def test_padding_changes_no_sequence(model):
  policy, params = model
  run = tiny.jitted(policy, 'sequence_log_probs')
  plain = run(params, tiny.batch(0, [4, 3], [5, 2]))
  padded = run(params, tiny.batch(0, [4, 3], [5, 2], pad=3))
  np.testing.assert_allclose(plain, padded, rtol=1e-5)


def test_jit_equals_eager(model):
  policy, params = model
  batch = tiny.batch(0, [4, 3], [5, 2])
  rounding.assert_close(
    tiny.jitted(policy, 'logits')(params, batch),
    policy.logits(params, batch),
    num_terms=NUM_TERMS,
  )


def test_empty_rows_have_finite_gradients(model):
  policy, params = model
  batch = tiny.batch(0, [4, 3], [5, 2])
  batch = {
    name: np.concatenate([value, np.zeros_like(value)])
    for name, value in batch.items()
  }

  def total(params):
    return jnp.sum(policy.sequence_log_probs(params, batch))

  value, gradient = jax.jit(jax.value_and_grad(total))(params)
  assert np.isfinite(value)
  assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def test_gradient_is_the_slope(model):
  policy, params = model
  batch = tiny.batch(0, [4, 3], [5, 2])

  @jax.jit
  def total(params):
    return jnp.sum(policy.sequence_log_probs(params, batch))

  gradient = jax.grad(total)(params)
  direction = tiny.lively(jax.tree.map(jnp.zeros_like, params), seed=3)
  slope = sum(
    jnp.vdot(a, b)
    for a, b in zip(
      jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True
    )
  )

  def at(step):
    return total(jax.tree.map(lambda p, d: p + step * d, params, direction))

  # Small enough for the curvature, large enough for float32.
  np.testing.assert_allclose((at(3e-4) - at(-3e-4)) / 6e-4, slope, rtol=2e-2)


@pytest.mark.parametrize('tied', [False, True])
def test_number_of_parameters(tied):
  config = tiny.config(logits_via_embedding=tied)
  d, joined, mlp = config.emb_dim, 8, config.mlp_dim
  attention, block = 4 * d * joined, 3 * d * mlp
  encoder = 2 * (attention + block + 2 * d) + d + 2 * 32
  decoder = 2 * (2 * attention + block + 3 * d) + d + 2 * 32
  embeddings = (1 if tied else 2) * config.vocab_size * d
  params = tiny.init(policy_lib.Policy(config))
  assert policy_lib.num_params(params) == encoder + decoder + embeddings


def test_initial_scales_are_t5x():
  config = tiny.config(emb_dim=128, num_heads=4, head_dim=32, mlp_dim=256)
  params = tiny.init(policy_lib.Policy(config))
  layer = params['decoder']['layers_1']
  attention = layer['encoder_decoder_attention']
  for kernel, expected in (
    (params['token_embedder']['embedding'], 1.0),
    # The division of logits by sqrt(K) is in the query's kernel.
    (attention['query']['kernel'], 128**-0.5 * 32**-0.5),
    (attention['key']['kernel'], 128**-0.5),
    (attention['out']['kernel'], 128**-0.5),
    (layer['mlp']['wi_1']['kernel'], 128**-0.5),
    (layer['mlp']['wo']['kernel'], 256**-0.5),
  ):
    np.testing.assert_allclose(np.std(kernel), expected, rtol=0.04)
  np.testing.assert_array_equal(layer['pre_mlp_layer_norm']['scale'], 1.0)
  bias = params['encoder']['relpos_bias']['rel_embedding']
  # Uniform, variance over the mean of 4 heads and 32 buckets.
  assert np.max(np.abs(bias)) <= (3 / 18) ** 0.5
  np.testing.assert_allclose(np.std(bias), 18**-0.5, rtol=0.2)


def test_every_parameter_has_logical_axes():
  policy = policy_lib.Policy(tiny.config())
  params = tiny.init(policy)
  axes = policy.logical_axes()
  names = jax.tree.map(lambda leaf, spec: len(spec) == leaf.ndim, params, axes)
  assert all(jax.tree.leaves(names))
  decoder = axes['decoder']
  attention = decoder['layers_0']['self_attention']
  assert tuple(axes['token_embedder']['embedding']) == ('vocab', 'embed')
  assert tuple(attention['query']['kernel']) == ('embed', 'joined_kv')
  assert tuple(attention['out']['kernel']) == ('joined_kv', 'embed')
  assert tuple(decoder['layers_0']['mlp']['wo']['kernel']) == ('mlp', 'embed')
  assert tuple(decoder['logits_dense']['kernel']) == ('embed', 'vocab')
  assert tuple(decoder['decoder_norm']['scale']) == ('embed',)
  assert tuple(decoder['relpos_bias']['rel_embedding']) == (
    'heads',
    'relpos_buckets',
  )


def test_numpy_parameters_work(model):
  policy, params = model
  batch = tiny.batch(0, [4, 3], [5, 2])
  log_probs = tiny.jitted(policy, 'log_probs')
  np.testing.assert_allclose(
    log_probs(jax.device_get(params), batch),
    log_probs(params, batch),
    atol=1e-6,
  )
