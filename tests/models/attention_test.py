import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rest_jax.models import attention

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
  np.testing.assert_allclose(shared, repeated, rtol=1e-5, atol=1e-6)


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
