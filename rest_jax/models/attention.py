"""Multi-head attention: over whole sequences, and one step with caches."""

import functools
import operator
from typing import Any

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rest_jax.models import layers
from rest_jax.models import rows as rows_lib

# Keys and values of the decoder's self-attention, one row a hypothesis. The
# head is outside the length, so that a step reads each head's [M, K] as one
# block; with the length outside, XLA copies the whole cache every step on CPU.
Cache = tuple[Float[Array, 'B N H M K'], Float[Array, 'B N H M K']]
# One of another length than the `Cache` beside it.
GrownCache = tuple[Float[Array, 'B N H grown K'], Float[Array, 'B N H grown K']]
# Keys and values of the encoded sources, never repeated for hypotheses, laid
# out as the products of a step read them: otherwise they are turned each step.
# The sources are those of the caches' rows, but for `rows.CompactRows`.
CrossCache = tuple[Float[Array, 'sources H K S'], Float[Array, 'sources H S K']]

# Positions of a cache whose values are added term by term.
_FEW = 32


class MultiHeadAttention(nn.Module):
  """Attention of T5: no biases, and no division by sqrt(K) at run time.

  The division is folded into the initial query kernel instead.

  Attributes:
    num_heads: H.
    head_dim: K.
    emb_dim: D, of the queries' inputs and of the result.
    dropout_rate: of the attention probabilities; one mask for all queries.
    float32_logits: logits and softmax in float32 whatever `dtype` is.
    dtype: of the projections and the result.
  """

  num_heads: int
  head_dim: int
  emb_dim: int
  dropout_rate: float
  float32_logits: bool = True
  dtype: Any = jnp.float32

  def setup(self):
    def projection(init_scale=1.0):
      return layers.Dense(
        self.num_heads * self.head_dim,
        ('embed', 'joined_kv'),
        init_scale=init_scale,
        kernel_init=layers.ATTENTION_INIT,
        dtype=self.dtype,
      )

    self.query = projection(init_scale=self.head_dim**-0.5)
    self.key = projection()
    self.value = projection()
    self.out = layers.Dense(
      self.emb_dim,
      ('joined_kv', 'embed'),
      kernel_init=layers.ATTENTION_INIT,
      dtype=self.dtype,
    )
    self.dropout = layers.Dropout(self.dropout_rate, broadcast_dims=(-2,))

  def _split_heads(self, x: Array) -> Array:
    """[..., H * K] -> [..., H, K]."""
    return x.reshape(*x.shape[:-1], self.num_heads, self.head_dim)

  def _softmax(self, logits: Array, bias: Array) -> Array:
    weights = jax.nn.softmax(logits + bias.astype(logits.dtype), axis=-1)
    return weights.astype(self.dtype)

  @property
  def _logits_dtype(self):
    return jnp.float32 if self.float32_logits else self.dtype

  def keys_and_values(
    self, x: Float[Array, 'B S D']
  ) -> tuple[Float[Array, 'B S H K'], Float[Array, 'B S H K']]:
    axes = ('batch', 'length', 'heads', 'kv')
    # [B, S, D] -> [B, S, H, K]
    key = self._split_heads(self.key(x))
    value = self._split_heads(self.value(x))
    return (
      layers.constrain(key, axes),
      layers.constrain(value, axes),
    )

  def cross_cache(self, memory: Float[Array, 'B S D']) -> CrossCache:
    """Keys and values of the sources, for all steps."""
    key, value = self.keys_and_values(memory)
    # [B, S, H, K] -> [B, H, K, S] and [B, H, S, K]
    return jnp.transpose(key, (0, 2, 3, 1)), jnp.swapaxes(value, 1, 2)

  def __call__(
    self,
    inputs: Float[Array, 'R T D'],
    memory: Float[Array, 'B S D'],
    bias: Float[Array, '...'],
    *,
    deterministic: bool,
  ) -> Float[Array, 'R T D']:
    """Attends from R = B * N rows of queries to B rows of keys.

    Args:
      inputs: what queries are made of; rows b * N ... b * N + N - 1 attend
        to row b of `memory`.
      memory: what keys and values are made of.
      bias: added to the logits; it broadcasts to [B, H, N * T, S].
      deterministic: no dropout.

    Returns:
      The attended values, projected to D.
    """
    rows, length, _ = inputs.shape
    batch, keys = memory.shape[:2]
    query = self._split_heads(self.query(inputs))
    query = layers.constrain(query, ('batch', 'length', 'heads', 'kv'))
    key, value = self.keys_and_values(memory)
    # [B * N, T, H, K] -> [B, N * T, H, K]
    query = query.reshape(batch, -1, self.num_heads, self.head_dim)
    # Heads outside, so that every product is of matrices that lie in one block
    # (seen on CPU: attention without its gradient in half the time).
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
    logits = jnp.einsum(
      'bhqk,bhsk->bhqs', query, key, preferred_element_type=self._logits_dtype
    )
    weights = self._softmax(logits, bias)
    if not deterministic:
      # One mask a hypothesis: [B, H, N * T, S] -> [B, H, N, T, S] and back.
      shape = weights.shape
      weights = weights.reshape(batch, self.num_heads, -1, length, keys)
      weights = self.dropout(weights, deterministic=False).reshape(shape)
    # [B, H, N * T, S] x [B, H, S, K] -> [B, N * T, H, K] -> [B * N, T, H * K]
    attended = jnp.swapaxes(jnp.matmul(weights, value), 1, 2)
    return self.out(attended.reshape(rows, length, -1))

  def step(
    self,
    inputs: Float[Array, 'R D'],
    cache: Cache,
    bias: Float[Array, '*#B #H L'],
    position: Int[Array, ''] | int,
    rows: rows_lib.Rows,
  ) -> tuple[Float[Array, 'R D'], Cache]:
    """Self-attention of one new position, whose key and value it stores.

    Every hypothesis has a cache of its own and attends for itself: that reads
    each cache where it lies. Only the projections are made once a row.

    Args:
      inputs: the new position's, one a row.
      cache: of M >= L positions, of which the first L are attended to.
      bias: added to the logits [B, N, H, L].
      position: where the cache gets the new one, below L.
      rows: which hypotheses share a row.

    Returns:
      The attended values, projected to D, and the cache with the position.
    """
    # [R, H * K] -> [B, N, H, K]
    query = self._split_heads(rows.expand(self.query(inputs)))
    # [R, H * K] -> [B, N, H, 1, K]
    key = self._split_heads(rows.expand(self.key(inputs)))[..., None, :]
    value = self._split_heads(rows.expand(self.value(inputs)))[..., None, :]
    attended, cache = lax.platform_dependent(
      query,
      key,
      value,
      cache,
      bias,
      position,
      tpu=self._attend_and_write,
      default=self._write_and_attend,
    )
    attended = attended.reshape(*attended.shape[:2], -1)
    return self.out(rows.select(attended)), cache

  def _write_and_attend(self, query, key, value, cache, bias, position):
    cache = _written(cache, key, value, position)
    keys, values = _first(cache, bias.shape[-1])
    weights = self._softmax(self._step_logits(query, keys), bias)
    return _weighted_sum(weights, values), cache

  def _attend_and_write(self, query, key, value, cache, bias, position):
    """As `_write_and_attend`, of the cache as it was and the new position.

    Seen on TPU: a cache that is written first is written in fast memory, and
    all of it is copied back. (On CPU this order copies every cache.)
    """
    keys, values = _first(cache, bias.shape[-1])
    is_new = jnp.arange(bias.shape[-1]) == position
    # [B, N, H, K] x [B, N, H, 1, K] -> [B, N, H, 1]
    dtype = self._logits_dtype
    own = jnp.sum(query[..., None, :].astype(dtype) * key.astype(dtype), -1)
    logits = jnp.where(is_new, own, self._step_logits(query, keys))
    weights = self._softmax(logits, bias)
    new = jnp.sum(jnp.where(is_new, weights, 0), -1, keepdims=True)
    old = jnp.einsum('bnhl,bnhlk->bnhk', jnp.where(is_new, 0, weights), values)
    attended, key, value = lax.optimization_barrier(
      (old + new * value[..., 0, :], key, value)
    )
    return attended, _written(cache, key, value, position)

  def _step_logits(self, query, keys):
    """[B, N, H, K] x [B, N, H, L, K] -> [B, N, H, L]."""
    return jnp.einsum(
      'bnhk,bnhlk->bnhl', query, keys, preferred_element_type=self._logits_dtype
    )

  def cross_step(
    self,
    inputs: Float[Array, 'R D'],
    cache: CrossCache,
    bias: Float[Array, 'sources 1 1 S'],
    rows: rows_lib.Rows,
  ) -> Float[Array, 'R D']:
    """Attention of one new position a hypothesis to its encoded source."""
    keys, values = cache
    # [R, H * K] -> [B, N, H, K]
    query = self._split_heads(rows.to_sources(self.query(inputs)))
    logits = jnp.einsum(
      'bnhk,bhks->bhns', query, keys, preferred_element_type=self._logits_dtype
    )
    weights = self._softmax(logits, bias)
    # [B, H, N, S] x [B, H, S, K] -> [B, H, N, K], turned after the product (seen
    # on CPU: half the time) -> [B, N, H, K] -> [R, H * K]
    attended = jnp.swapaxes(jnp.matmul(weights, values), 1, 2)
    attended = attended.reshape(*attended.shape[:2], -1)
    return self.out(rows.from_sources(attended))


def _weighted_sum(
  weights: Float[Array, 'B N H L'], values: Float[Array, 'B N H L K']
) -> Float[Array, 'B N H K']:
  length = weights.shape[-1]
  # A product would add up what is rounded more coarsely in float32.
  if length > _FEW or values.dtype != jnp.float32:
    return jnp.einsum('bnhl,bnhlk->bnhk', weights, values)
  # Term by term (seen on CPU: 43 GB/s of values at 24 positions, not 25).
  terms = (weights[..., i, None] * values[..., i, :] for i in range(length))
  return functools.reduce(operator.add, terms)


def _first(
  cache: Cache, length: int
) -> tuple[Float[Array, 'B N H L K'], Float[Array, 'B N H L K']]:
  """The first L positions of a cache."""
  keys, values = cache
  return keys[..., :length, :], values[..., :length, :]


def _written(cache: Cache, key: Array, value: Array, position) -> Cache:
  """The cache with a key and a value [B, N, H, 1, K] at a position."""
  keys, values = cache
  return (
    lax.dynamic_update_slice_in_dim(keys, key, position, axis=3),
    lax.dynamic_update_slice_in_dim(values, value, position, axis=3),
  )
