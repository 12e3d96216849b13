import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.models import attention
from tests import rounding

B, N, T, S, D, H, K = 2, 3, 4, 5, 6, 2, 3


def _module(dropout_rate=0.0, **settings):
  return attention.MultiHeadAttention(
    num_heads=H, head_dim=K, emb_dim=D, dropout_rate=dropout_rate, **settings
  )


def _inputs(seed=0):
  keys = jax.random.split(jax.random.key(seed), 4)
  queries = jax.random.normal(keys[0], (B * N, T, D))
  memory = jax.random.normal(keys[1], (B, S, D))
  bias = jax.random.normal(keys[2], (B, H, N * T, S))
  module = _module()
  params = module.init(keys[3], queries, memory, bias, deterministic=True)
  return jax.tree.map(lambda x: 3 * x, params), queries, memory, bias


def test_attention_by_loops():
  params, queries, memory, bias = _inputs()
  got = _module().apply(params, queries, memory, bias, deterministic=True)
  kernel = {
    name: np.asarray(jax.tree.leaves(params['params'][name])[0], np.float64)
    for name in ('query', 'key', 'value', 'out')
  }
  queries, memory, bias = (
    np.asarray(x, np.float64) for x in (queries, memory, bias)
  )
  expected = np.zeros((B * N, T, D))
  for row in range(B * N):
    source = row // N
    for t in range(T):
      heads = []
      for h in range(H):
        part = slice(h * K, (h + 1) * K)
        query = queries[row, t] @ kernel['query'][:, part]
        keys = memory[source] @ kernel['key'][:, part]
        values = memory[source] @ kernel['value'][:, part]
        logits = keys @ query + bias[source, h, (row % N) * T + t]
        weights = np.exp(logits - logits.max())
        heads.append(weights / weights.sum() @ values)
      expected[row, t] = np.concatenate(heads) @ kernel['out']
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_hypotheses_share_keys_as_if_they_were_repeated():
  params, queries, memory, bias = _inputs()
  shared = _module().apply(params, queries, memory, bias, deterministic=True)
  repeated = _module().apply(
    params,
    queries,
    jnp.repeat(memory, N, axis=0),
    # [B, H, N * T, S] -> [B * N, H, T, S]
    bias.reshape(B, H, N, T, S).swapaxes(1, 2).reshape(B * N, H, T, S),
    deterministic=True,
  )
  # Query or key, their products, the softmax, the mean it weighs, the output.
  num_terms = D + K + 2 * S + H * K
  rounding.assert_close(shared, repeated, num_terms=num_terms)


def test_dropped_keys_differ_between_hypotheses_not_positions():
  params, _, memory, _ = _inputs()
  # Equal queries everywhere: only dropout can tell rows or positions apart.
  queries = jnp.ones((B * N, T, D))
  got = _module(dropout_rate=0.5).apply(
    params,
    queries,
    memory,
    jnp.zeros((B, 1, 1, S)),
    deterministic=False,
    rngs={'dropout': jax.random.key(1)},
  )
  np.testing.assert_allclose(
    got, jnp.broadcast_to(got[:, :1], got.shape), rtol=1e-5
  )
  assert not np.allclose(got[0], got[1])


def test_query_with_no_key_gives_the_mean_and_not_nan():
  params, queries, memory, _ = _inputs()
  masked = jnp.full((B, 1, 1, S), -1e10)
  got = _module().apply(params, queries, memory, masked, deterministic=True)
  np.testing.assert_allclose(got[0, 0], got[N - 1, T - 1], rtol=1e-5)
  assert np.all(np.isfinite(got))


@pytest.mark.parametrize('float32_logits', [False, True])
def test_bfloat16_logits_are_float32_on_request(float32_logits):
  module = _module(dtype=jnp.bfloat16, float32_logits=float32_logits)
  params, queries, memory, bias = _inputs()

  def run(params):
    return module.apply(params, queries, memory, bias, deterministic=True)

  # The exponentials of the softmax, wherever they are nested.
  text = str(jax.make_jaxpr(run)(params))
  exponents = [line for line in text.splitlines() if '= exp ' in line]
  assert exponents
  assert all(('f32' if float32_logits else 'bf16') in x for x in exponents)
  assert run(params).dtype == jnp.bfloat16


@pytest.mark.parametrize('position', [0, 2, 4])
def test_a_step_reads_the_cache_before_or_after_it_writes(position):
  """The order on TPU gives what that on other machines gives."""
  length = 5
  keys = jax.random.split(jax.random.key(3), 6)
  module = _module()
  query = jax.random.normal(keys[0], (B, N, H, K))
  key, value = jax.random.normal(keys[1], (2, B, N, H, 1, K))
  filled = (jnp.arange(length) < position)[:, None]
  cache = tuple(
    jnp.where(filled, cached, 0)
    for cached in jax.random.normal(keys[2], (2, B, N, H, length, K))
  )
  bias = jnp.where(
    jnp.arange(length) <= position,
    jax.random.normal(keys[3], (H, length)),
    -1e10,
  )
  arguments = query, key, value, cache, bias, jnp.int32(position)
  expected, written = module.apply({}, *arguments, method='_write_and_attend')
  got, also_written = module.apply({}, *arguments, method='_attend_and_write')
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
  for one, other in zip(also_written, written, strict=True):
    np.testing.assert_array_equal(one, other)
  # By hand: the weights of one hypothesis and head.
  b, n, h = 1, 2, 1
  seen = np.concatenate([cache[0][b, n, h, :position], key[b, n, h]])
  logits = seen @ query[b, n, h] + bias[h, : position + 1]
  weights = np.exp(logits - logits.max())
  values = np.concatenate([cache[1][b, n, h, :position], value[b, n, h]])
  np.testing.assert_allclose(
    got[b, n, h], weights / weights.sum() @ values, rtol=1e-5, atol=1e-6
  )
