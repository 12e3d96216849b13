"""Multi-head attention: over whole sequences, and one step with caches."""

import functools
import operator
from typing import Any

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rest_jax.models import layers, parts, positions, shared_rows

# Keys and values of the decoder's self-attention, one row a hypothesis. The
# head is outside the length, so that a step reads each head's [M, K] as one
# block; with the length outside, XLA copies the whole cache every step on CPU.
# There are G heads of keys and values, as many as of queries or a part of these.
Cache = tuple[Float[Array, 'B N G M K'], Float[Array, 'B N G M K']]
# One of another length than the `Cache` beside it.
GrownCache = tuple[Float[Array, 'B N G grown K'], Float[Array, 'B N G grown K']]
# Keys and values of the encoded sources, never repeated for hypotheses, laid
# out as the products of a step read them: otherwise they are turned each step.
# The sources are those of the caches' rows, but for `rows.CompactRows`.
CrossCache = tuple[Float[Array, 'sources G K S'], Float[Array, 'sources G S K']]

# Positions of a cache whose values are added term by term.
_FEW = 32


class MultiHeadAttention(nn.Module):
  """Attention, as T5's without a division by sqrt(K) at run time.

  The division is folded into the initial query kernel instead, unless
  `config.query_scalar` says what queries are divided by.

  Attributes:
    num_heads: H.
    head_dim: K.
    emb_dim: D, of the queries' inputs and of the result.
    dropout_rate: of the attention probabilities; one mask for all queries.
    float32_logits: logits and softmax in float32 whatever `dtype` is.
    dtype: of the projections and the result.
    config: what it has besides.
    norm: its `epsilon` and `adds_one` are those of the norms of heads.
  """

  num_heads: int
  head_dim: int
  emb_dim: int
  dropout_rate: float
  float32_logits: bool = True
  dtype: Any = jnp.float32
  config: parts.AttentionConfig = parts.AttentionConfig()
  norm: parts.NormConfig = parts.NormConfig()

  def setup(self):
    dense = functools.partial(
      layers.Dense,
      has_bias=self.config.has_bias,
      kernel_init=layers.ATTENTION_INIT,
      dtype=self.dtype,
    )
    axes, width = (
      ('embed', 'joined_kv'),
      self.num_key_value_heads * self.head_dim,
    )
    is_folded = self.config.query_scalar is None
    self.query = dense(
      self.num_heads * self.head_dim,
      axes,
      init_scale=self.head_dim**-0.5 if is_folded else 1.0,
    )
    self.key = dense(width, axes)
    self.value = dense(width, axes)
    self.out = dense(self.emb_dim, ('joined_kv', 'embed'))
    if self.config.normalizes_heads:
      self.query_norm, self.key_norm = (
        layers.RMSNorm(
          self.dtype, self.norm.epsilon, self.norm.adds_one, axis='kv'
        )
        for _ in range(2)
      )
    self.dropout = layers.Dropout(self.dropout_rate, broadcast_dims=(-2,))

  @property
  def num_key_value_heads(self) -> int:
    """G."""
    return self.config.num_key_value_heads or self.num_heads

  @property
  def _queries_per_key(self) -> int:
    return self.num_heads // self.num_key_value_heads

  def _split_heads(self, x: Array) -> Array:
    """[..., H * K] -> [..., H, K]."""
    return x.reshape(*x.shape[:-1], -1, self.head_dim)

  def _queries(
    self, projected: Array, rotation: positions.Rotation | None
  ) -> Float[Array, '... H K']:
    query = self._split_heads(projected)
    if self.config.normalizes_heads:
      query = self.query_norm(query)
    if self.config.query_scalar is not None:
      query = query * self.config.query_scalar**-0.5
    return query if rotation is None else rotation.turn(query)

  def _keys(
    self, projected: Array, rotation: positions.Rotation | None
  ) -> Float[Array, '... G K']:
    key = self._split_heads(projected)
    if self.config.normalizes_heads:
      key = self.key_norm(key)
    return key if rotation is None else rotation.turn(key)

  def _by_key(self, x: Array, axis: int) -> Array:
    """[..., H, ...] -> [..., G, H/G, ...], as it is where G is H."""
    if self._queries_per_key == 1:
      return x
    shape = (self.num_key_value_heads, self._queries_per_key)
    return x.reshape(*x.shape[:axis], *shape, *x.shape[axis + 1 :])

  def _softmax(self, logits: Array, bias: Array) -> Array:
    weights = jax.nn.softmax(logits + bias.astype(logits.dtype), axis=-1)
    return weights.astype(self.dtype)

  @property
  def _logits_dtype(self):
    return jnp.float32 if self.float32_logits else self.dtype

  def _capped(self, logits: Array) -> Array:
    return layers.soft_cap(logits, self.config.soft_cap)

  def keys_and_values(
    self,
    x: Float[Array, 'B S memory_D'],
    rotation: positions.Rotation | None = None,
  ) -> tuple[Float[Array, 'B S G K'], Float[Array, 'B S G K']]:
    # A few heads need not be as many as devices that would split them.
    heads = 'heads' if self._queries_per_key == 1 else None
    axes = ('batch', 'length', heads, 'kv')
    # [B, S, D] -> [B, S, G, K]
    key = self._keys(self.key(x), rotation)
    value = self._split_heads(self.value(x))
    return (
      layers.constrain(key, axes),
      layers.constrain(value, axes),
    )

  def cross_cache(self, memory: Float[Array, 'B S memory_D']) -> CrossCache:
    """Keys and values of the sources, for all steps."""
    key, value = self.keys_and_values(memory)
    # [B, S, G, K] -> [B, G, K, S] and [B, G, S, K]
    return jnp.transpose(key, (0, 2, 3, 1)), jnp.swapaxes(value, 1, 2)

  def __call__(
    self,
    inputs: Float[Array, 'R T D'],
    memory: Float[Array, 'B S memory_D'],
    bias: Float[Array, '...'],
    *,
    deterministic: bool,
    rotation: positions.Rotation | None = None,
  ) -> Float[Array, 'R T D']:
    """Attends from R = B * N rows of queries to B rows of keys.

    Args:
      inputs: what queries are made of; rows b * N ... b * N + N - 1 attend
        to row b of `memory`.
      memory: what keys and values are made of.
      bias: added to the logits; it broadcasts to [B, H, N * T, S].
      deterministic: no dropout.
      rotation: of queries and keys, in self-attention.

    Returns:
      The attended values, projected to D.
    """
    rows, length, _ = inputs.shape
    batch, keys = memory.shape[:2]
    query = self._queries(self.query(inputs), rotation)
    query = layers.constrain(query, ('batch', 'length', 'heads', 'kv'))
    key, value = self.keys_and_values(memory, rotation)
    # [B * N, T, H, K] -> [B, N * T, H, K]
    query = query.reshape(batch, -1, self.num_heads, self.head_dim)
    # Heads outside, so that every product is of matrices that lie in one block
    # (seen on CPU: attention without its gradient in half the time).
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
    weights = self._softmax(self._logits(query, key), bias)
    if not deterministic:
      # One mask a hypothesis: [B, H, N * T, S] -> [B, H, N, T, S] and back.
      shape = weights.shape
      weights = weights.reshape(batch, self.num_heads, -1, length, keys)
      weights = self.dropout(weights, deterministic=False).reshape(shape)
    # [B, H, N * T, K] -> [B, N * T, H, K] -> [B * N, T, H * K]
    attended = jnp.swapaxes(self._attended(weights, value), 1, 2)
    return self.out(attended.reshape(rows, length, -1))

  def _logits(
    self, query: Float[Array, 'B H Q K'], key: Float[Array, 'B G S K']
  ) -> Float[Array, 'B H Q S']:
    shape = query.shape[:3]
    # Queries that share a head of keys are more queries of that head.
    query = query.reshape(shape[0], key.shape[1], -1, self.head_dim)
    logits = jnp.einsum(
      'bhqk,bhsk->bhqs', query, key, preferred_element_type=self._logits_dtype
    )
    return self._capped(logits.reshape(*shape, -1))

  def _attended(
    self, weights: Float[Array, 'B H Q S'], value: Float[Array, 'B G S K']
  ) -> Float[Array, 'B H Q K']:
    batch, num_heads, num_queries, keys = weights.shape
    weights = weights.reshape(batch, value.shape[1], -1, keys)
    attended = jnp.matmul(weights, value)
    return attended.reshape(batch, num_heads, num_queries, self.head_dim)

  def merged(
    self,
    inputs: Float[Array, 'R T D'],
    memory: Float[Array, 'B S memory_D'],
    bias: Float[Array, '#R #H T T'],
    cross_bias: Float[Array, 'B 1 Q S'],
    *,
    deterministic: bool,
    rotation: positions.Rotation | None,
  ) -> Float[Array, 'R T D']:
    """One softmax over a row's own positions and its source's.

    Args:
      inputs: of the decoder, R = B * N rows.
      memory: the encoded sources, whose keys are not turned.
      bias: added to the logits of own positions.
      cross_bias: added to those of the source's; Q is 1 or N * T.
      deterministic: no dropout.
      rotation: of queries and own keys.

    Returns:
      The attended values, projected to D.
    """
    (rows, length, _), batch = inputs.shape, memory.shape[0]
    heads = (self.num_heads, length)

    def by_source(x):
      """[B * N, H, T, ...] -> [B, H, N * T, ...]."""
      x = x.reshape(batch, -1, *x.shape[1:])
      return jnp.swapaxes(x, 1, 2).reshape(batch, x.shape[2], -1, x.shape[-1])

    def by_row(x):
      """[B, H, N * T, ...] -> [B * N, H, T, ...]."""
      x = x.reshape(batch, self.num_heads, -1, length, x.shape[-1])
      return jnp.swapaxes(x, 1, 2).reshape(rows, *heads, x.shape[-1])

    query = jnp.swapaxes(self._queries(self.query(inputs), rotation), 1, 2)
    key, value = (
      jnp.swapaxes(x, 1, 2) for x in self.keys_and_values(inputs, rotation)
    )
    cross_key, cross_value = (
      jnp.swapaxes(x, 1, 2) for x in self.keys_and_values(memory)
    )
    cross = self._logits(by_source(query), cross_key) + cross_bias
    logits = jnp.concatenate(
      [self._logits(query, key) + bias, by_row(cross)], axis=-1
    )
    weights = self._softmax(logits, jnp.zeros((), logits.dtype))
    weights = self.dropout(weights, deterministic=deterministic)
    own, other = weights[..., :length], weights[..., length:]
    attended = self._attended(own, value) + by_row(
      self._attended(by_source(other), cross_value)
    )
    attended = jnp.swapaxes(attended, 1, 2)  # [R, T, H, K]
    return self.out(attended.reshape(rows, length, -1))

  def step(
    self,
    inputs: Float[Array, 'R D'],
    cache: Cache,
    bias: Float[Array, '*#B #H L'],
    position: Int[Array, ''] | int,
    rows: shared_rows.Rows,
    rotation: positions.Rotation | None = None,
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
      rotation: of query and key, which are stored turned.

    Returns:
      The attended values, projected to D, and the cache with the position.
    """
    query, key, value = self._new(inputs, rows, rotation)
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

  def _new(self, inputs, rows, rotation):
    """Query, key and value of a new position."""
    # [R, H * K] -> [B, N, H, K]
    query = self._queries(rows.expand(self.query(inputs)), rotation)
    # [R, G * K] -> [B, N, G, 1, K]
    key = self._keys(rows.expand(self.key(inputs)), rotation)[..., None, :]
    value = self._split_heads(rows.expand(self.value(inputs)))[..., None, :]
    return query, key, value

  def _write_and_attend(self, query, key, value, cache, bias, position):
    cache = _written(cache, key, value, position)
    keys, values = _first(cache, bias.shape[-1])
    weights = self._softmax(self._step_logits(query, keys), bias)
    return self._weighted_sum(weights, values), cache

  def _attend_and_write(self, query, key, value, cache, bias, position):
    """As `_write_and_attend`, of the cache as it was and the new position.

    Seen on TPU: a cache that is written first is written in fast memory, and
    all of it is copied back. (On CPU this order copies every cache.)
    """
    keys, values = _first(cache, bias.shape[-1])
    is_new = jnp.arange(bias.shape[-1]) == position
    # [B, N, H, K] x [B, N, H, 1, K] -> [B, N, H, 1]
    dtype, each = self._logits_dtype, self._for_each_query
    own = self._capped(
      jnp.sum(query[..., None, :].astype(dtype) * each(key).astype(dtype), -1)
    )
    logits = jnp.where(is_new, own, self._step_logits(query, keys))
    weights = self._softmax(logits, bias)
    new = jnp.sum(jnp.where(is_new, weights, 0), -1, keepdims=True)
    old = self._step_sum(jnp.where(is_new, 0, weights), values)
    attended, key, value = lax.optimization_barrier(
      (old + new * each(value)[..., 0, :], key, value)
    )
    return attended, _written(cache, key, value, position)

  def _for_each_query(self, x: Float[Array, 'B N G 1 K']) -> Array:
    """[B, N, G, 1, K] -> [B, N, H, 1, K]."""
    if self._queries_per_key == 1:
      return x
    return jnp.repeat(x, self._queries_per_key, axis=2)

  def _step_logits(
    self, query: Float[Array, 'B N H K'], keys: Float[Array, 'B N G L K']
  ) -> Float[Array, 'B N H L']:
    terms = 'bnhk,bnhlk->bnhl'
    if self._queries_per_key > 1:
      terms = 'bngrk,bnglk->bngrl'
    logits = jnp.einsum(
      terms,
      self._by_key(query, 2),
      keys,
      preferred_element_type=self._logits_dtype,
    )
    return self._capped(logits.reshape(*query.shape[:3], -1))

  def _step_sum(
    self, weights: Float[Array, 'B N H L'], values: Float[Array, 'B N G L K']
  ) -> Float[Array, 'B N H K']:
    if self._queries_per_key == 1:
      return jnp.einsum('bnhl,bnhlk->bnhk', weights, values)
    terms = 'bngrl,bnglk->bngrk'
    attended = jnp.einsum(terms, self._by_key(weights, 2), values)
    return attended.reshape(*weights.shape[:3], -1)

  def _weighted_sum(
    self, weights: Float[Array, 'B N H L'], values: Float[Array, 'B N G L K']
  ) -> Float[Array, 'B N H K']:
    length = weights.shape[-1]
    # A product would add up what is rounded more coarsely in float32.
    is_long = length > _FEW or values.dtype != jnp.float32
    if is_long or self._queries_per_key > 1:
      return self._step_sum(weights, values)
    # Term by term (seen on CPU: 43 GB/s of values at 24 positions, not 25).
    terms = (weights[..., i, None] * values[..., i, :] for i in range(length))
    return functools.reduce(operator.add, terms)

  def cross_step(
    self,
    inputs: Float[Array, 'R D'],
    cache: CrossCache,
    bias: Float[Array, 'sources 1 1 S'],
    rows: shared_rows.Rows,
  ) -> Float[Array, 'R D']:
    """Attention of one new position a hypothesis to its encoded source."""
    keys, values = cache
    # [R, H * K] -> [B, N, H, K]
    query = self._queries(rows.to_sources(self.query(inputs)), None)
    weights = self._softmax(self._cross_logits(query, keys), bias)
    # [B, H, N, S] x [B, H, S, K] -> [B, H, N, K], turned after the product (seen
    # on CPU: half the time) -> [B, N, H, K] -> [R, H * K]
    attended = jnp.swapaxes(self._attended(weights, values), 1, 2)
    attended = attended.reshape(*attended.shape[:2], -1)
    return self.out(rows.from_sources(attended))

  def _cross_logits(
    self, query: Float[Array, 'B N H K'], keys: Float[Array, 'B G K S']
  ) -> Float[Array, 'B H N S']:
    terms = 'bnhk,bhks->bhns'
    if self._queries_per_key > 1:
      terms = 'bngrk,bgks->bgrns'
    logits = jnp.einsum(
      terms,
      self._by_key(query, 2),
      keys,
      preferred_element_type=self._logits_dtype,
    )
    batch, num_samples = query.shape[:2]
    return self._capped(logits.reshape(batch, self.num_heads, num_samples, -1))

  def merged_step(
    self,
    inputs: Float[Array, 'R D'],
    caches: tuple[Cache, CrossCache],
    bias: Float[Array, '*#B #H L'],
    cross_bias: Float[Array, 'sources 1 1 S'],
    position: Int[Array, ''] | int,
    rows: shared_rows.Rows,
    rotation: positions.Rotation | None = None,
  ) -> tuple[Float[Array, 'R D'], Cache]:
    """As `step` and `cross_step` by one softmax; see `merged`."""
    cache, (cross_keys, cross_values) = caches
    query, key, value = self._new(inputs, rows, rotation)
    cache = _written(cache, key, value, position)
    keys, values = _first(cache, bias.shape[-1])
    own = self._step_logits(query, keys) + bias  # [B, N, H, L]
    cross = self._cross_logits(rows.beside_sources(query), cross_keys)
    cross = jnp.swapaxes(cross + cross_bias, 1, 2)  # [sources, N, H, S]
    logits = jnp.concatenate([own, rows.beside_caches(cross)], axis=-1)
    weights = self._softmax(logits, jnp.zeros((), logits.dtype))
    length = own.shape[-1]
    attended = self._weighted_sum(weights[..., :length], values)
    other = rows.beside_sources(weights[..., length:])
    other = self._attended(jnp.swapaxes(other, 1, 2), cross_values)
    attended += rows.beside_caches(jnp.swapaxes(other, 1, 2))
    attended = attended.reshape(*attended.shape[:2], -1)
    return self.out(rows.select(attended)), cache


def _first(
  cache: Cache, length: int
) -> tuple[Float[Array, 'B N G L K'], Float[Array, 'B N G L K']]:
  """The first L positions of a cache."""
  keys, values = cache
  return keys[..., :length, :], values[..., :length, :]


def _written(cache: Cache, key: Array, value: Array, position) -> Cache:
  """The cache with a key and a value [B, N, G, 1, K] at a position."""
  keys, values = cache
  return (
    lax.dynamic_update_slice_in_dim(keys, key, position, axis=3),
    lax.dynamic_update_slice_in_dim(values, value, position, axis=3),
  )
