"""Layers of networks, with the parameter names and shapes of T5X."""

from collections.abc import Callable, Sequence
import functools
from typing import Any

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
import numpy as np

from rest_jax.models import parts

# Added to the attention logits of masked positions. Large enough to absorb
# any logit in float32, so a query with no key attends to all keys alike
# instead of giving NaN.
MASKED = -1e10

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
  'gelu': nn.gelu,  # By a tanh.
  'gelu_erf': functools.partial(nn.gelu, approximate=False),
  'linear': lambda x: x,
  'quick_gelu': lambda x: x * nn.sigmoid(1.702 * x),
  'relu': nn.relu,
  'silu': nn.silu,
}

KERNEL_INIT = nn.initializers.variance_scaling(
  1.0, 'fan_in', 'truncated_normal'
)
ATTENTION_INIT = nn.initializers.variance_scaling(1.0, 'fan_in', 'normal')
RELPOS_INIT = nn.initializers.variance_scaling(1.0, 'fan_avg', 'uniform')


# The axis `embed` of a table where tokens are looked up; see `parallel.mesh`.
LOOKUP = 'lookup'


def constrain(
  x: Float[Array, '...'], axes: tuple[str | None, ...]
) -> Float[Array, '...']:
  """Says how an activation is split, by logical names.

  It does nothing unless logical axis rules and a mesh are active, and nothing
  inside `shard_map`, where each device has a whole array of its own and the
  constraint would raise.
  """
  if jax.sharding.get_abstract_mesh().manual_axes:
    return x
  return nn.with_logical_constraint(x, axes)


def matmul(
  x: Float[Array, '*R I'],
  kernel: Float[Array, 'I O'] | Float[np.ndarray, 'I O'],
) -> Float[Array, '*R O']:
  """`x @ kernel` over the last axis, as one product of two matrices.

  A bfloat16 kernel with float32 `x` makes a product of bfloat16 numbers summed
  in float32; the result has the type of `x`.

  The leading axes are joined first: the gradient of the kernel is then a
  plain product too, where contracting two axes at once makes XLA transpose
  both operands on CPU (seen: a feed-forward block trains 2.7 times faster).
  """
  flat = x.reshape(-1, x.shape[-1]).astype(kernel.dtype)
  y = jnp.dot(flat, kernel, preferred_element_type=x.dtype)
  return y.reshape(*x.shape[:-1], kernel.shape[-1])


def named_axes(
  init: Callable[..., Array], axes: tuple[str | None, ...]
) -> Callable[..., Any]:
  """An initialiser whose parameter carries the logical names of its axes.

  Flax declares that it returns a box; `param` takes the array out of it.
  """
  return nn.with_logical_partitioning(init, axes)


class Dense(nn.Module):
  """A linear map of the last axis.

  Attributes:
    features: size of the output's last axis.
    axes: logical names of the kernel's two axes.
    has_bias: whether a bias is added.
    init_scale: factor on the initial kernel.
    kernel_init: initialiser of the kernel.
    dtype: of the computation and the result. The kernel is float32, but may be
      given as bfloat16 to a float32 computation, see `matmul`.
  """

  features: int
  axes: tuple[str, str]
  has_bias: bool = False
  init_scale: float = 1.0
  kernel_init: Callable[..., Array] = KERNEL_INIT
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, '*R I']) -> Float[Array, '*R O']:
    def init(key, shape, dtype):
      return self.init_scale * self.kernel_init(key, shape, dtype)

    kernel = self.param(
      'kernel',
      named_axes(init, self.axes),
      (x.shape[-1], self.features),
      jnp.float32,
    )
    if kernel.dtype != jnp.bfloat16:
      kernel = kernel.astype(self.dtype)
    y = matmul(x.astype(self.dtype), kernel)
    if not self.has_bias:
      return y
    bias = self.param(
      'bias',
      named_axes(nn.initializers.zeros, self.axes[1:]),
      (self.features,),
      jnp.float32,
    )
    return y + bias.astype(self.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def fixed_row(table: Float[Array, 'V D'], row: int) -> Float[Array, 'V D']:
  """Returns the table; no gradient reaches one of its rows."""
  del row
  return table


@fixed_row.defjvp
def _fixed_row_jvp(row, primals, tangents):
  (table,), (tangent,) = primals, tangents
  return table, tangent.at[row].set(0)


class Embed(nn.Module):
  """Token embeddings, and their use as output projection (tied logits)."""

  vocab_size: int
  features: int
  dtype: Any = jnp.float32
  config: parts.EmbeddingConfig = parts.EmbeddingConfig()

  def setup(self):
    # So that logits, or what is read, are about 1 in size.
    stddev = 1.0 if self.config.divides_logits else self.features**-0.5
    fixed = self.config.fixed_id

    def init(key, shape, dtype):
      table = nn.initializers.normal(stddev=stddev)(key, shape, dtype)
      return table if fixed is None else table.at[fixed].set(0)

    table = self.param(
      'embedding',
      named_axes(init, ('vocab', 'embed')),
      (self.vocab_size, self.features),
      jnp.float32,
    )
    self.embedding = table if fixed is None else fixed_row(table, fixed)
    if self.config.replaced_id is not None:
      self.replacement = self.param(
        'replacement',
        named_axes(nn.initializers.zeros, ('embed',)),
        (self.features,),
        jnp.float32,
      )

  def __call__(self, tokens: Int[Array, '*R']) -> Float[Array, '*R D']:
    table = constrain(jnp.asarray(self.embedding), ('vocab', LOOKUP))
    x = jnp.take(table, tokens, axis=0).astype(self.dtype)
    if self.config.is_scaled:
      x = x * np.asarray(np.sqrt(self.features), self.dtype)
    if self.config.replaced_id is not None:
      is_replaced = tokens[..., None] == self.config.replaced_id
      x = jnp.where(is_replaced, self.replacement.astype(self.dtype), x)
    return x

  def attend(
    self,
    hidden: Float[Array, '*R D'],
    transposed: Float[Array, 'D V'] | None = None,
  ) -> Float[Array, '*R V']:
    """Float32 inner products with every embedding, in T5 over sqrt(D).

    Args:
      hidden: what to compare with the embeddings.
      transposed: the embeddings turned, where that was done once for many
        calls (seen on CPU: the product is then twice as fast).
    """
    hidden = hidden.astype(jnp.float32)
    if self.config.divides_logits:
      hidden = hidden / np.sqrt(self.features)
    kernel = self.embedding.T if transposed is None else transposed
    return matmul(hidden, kernel)


class RMSNorm(nn.Module):
  """Division by the root mean square of the last axis, then a scale.

  `y = x / sqrt(mean(x^2) + epsilon) * scale`, the quotient in float32. With
  `adds_one` the scale is 1 more than its parameter.

  Source: Zhang and Sennrich (2019), Eq. 4; T5 adds epsilon.
  """

  dtype: Any = jnp.float32
  epsilon: float = 1e-6
  adds_one: bool = False
  axis: str = 'embed'

  @nn.compact
  def __call__(self, x: Float[Array, '*R D']) -> Float[Array, '*R D']:
    x = x.astype(jnp.float32)
    init = nn.initializers.zeros if self.adds_one else nn.initializers.ones
    scale = self.param(
      'scale', named_axes(init, (self.axis,)), (x.shape[-1],), jnp.float32
    )
    if self.adds_one:
      scale = 1 + scale
    mean_square = jnp.mean(lax.square(x), axis=-1, keepdims=True)
    y = (x * lax.rsqrt(mean_square + self.epsilon)).astype(self.dtype)
    return y * scale.astype(self.dtype)


class LayerNorm(nn.Module):
  """`(x - mean) / sqrt(variance + epsilon) * scale + bias` of the last axis.

  Source: Ba et al. (arXiv 1607.06450).
  """

  dtype: Any = jnp.float32
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x: Float[Array, '*R D']) -> Float[Array, '*R D']:
    x = x.astype(jnp.float32)
    scale, bias = (
      self.param(name, named_axes(init, ('embed',)), x.shape[-1:], jnp.float32)
      for name, init in (
        ('scale', nn.initializers.ones),
        ('bias', nn.initializers.zeros),
      )
    )
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(lax.square(x), axis=-1, keepdims=True)
    y = x * lax.rsqrt(variance + self.epsilon)
    return (y * scale + bias).astype(self.dtype)


def norm(config: parts.NormConfig, dtype: Any) -> RMSNorm | LayerNorm:
  """A norm over D of the kind that a stack has."""
  if config.kind == 'layer':
    return LayerNorm(dtype=dtype, epsilon=config.epsilon)
  return RMSNorm(dtype, config.epsilon, config.adds_one)


class Dropout(nn.Module):
  """Dropout whose mask is shared along some axes.

  Random integers are compared with a threshold: no conversion to floats.

  Attributes:
    rate: probability that an entry is set to zero.
    broadcast_dims: axes along which one mask entry holds.
  """

  rate: float
  broadcast_dims: Sequence[int] = ()

  @nn.compact
  def __call__(
    self, x: Float[Array, '...'], *, deterministic: bool
  ) -> Float[Array, '...']:
    if deterministic or self.rate == 0.0:
      return x
    shape = list(x.shape)
    for axis in self.broadcast_dims:
      shape[axis] = 1
    bits = jax.random.bits(self.make_rng('dropout'), shape, jnp.uint32)
    kept = bits >= np.uint32(round(self.rate * 2**32))
    return x * jnp.where(kept, 1.0 / (1.0 - self.rate), 0.0).astype(x.dtype)


class Mlp(nn.Module):
  """The (gated) feed-forward block: `wo(act_0(wi_0 x) * act_1(wi_1 x))`."""

  mlp_dim: int
  activations: tuple[str, ...]
  dropout_rate: float
  dtype: Any = jnp.float32
  has_bias: bool = False

  @nn.compact
  def __call__(
    self, x: Float[Array, 'R T D'], *, deterministic: bool
  ) -> Float[Array, 'R T D']:
    dense = functools.partial(Dense, has_bias=self.has_bias, dtype=self.dtype)
    branches = []
    for i, activation in enumerate(self.activations):
      name = 'wi' if len(self.activations) == 1 else f'wi_{i}'
      # [R, T, D] -> [R, T, mlp]
      y = dense(self.mlp_dim, ('embed', 'mlp'), name=name)(x)
      branches.append(ACTIVATIONS[activation](y))
    y = functools.reduce(jnp.multiply, branches)
    y = Dropout(self.dropout_rate, broadcast_dims=(-2,))(
      y, deterministic=deterministic
    )
    y = constrain(y, ('batch', 'length', 'mlp'))
    return dense(x.shape[-1], ('mlp', 'embed'), name='wo')(y)


@functools.lru_cache
def relative_position_buckets(
  num_buckets: int, max_distance: int
) -> Int[np.ndarray, ' distances']:
  """Bucket of each distance 0 ... max_distance to one side.

  Half of the buckets hold one distance each; the others grow in geometric
  steps up to `max_distance`, where the last one takes all that is farther:
  with E = num_buckets / 2 exact ones, bucket E + j begins at the distance
  `E (max_distance / E)^(j / (num_buckets - E))`. It is compared in integers
  because whole powers fall on the edges, where a rounded logarithm may err.

  Source: Raffel et al. (2020), section 2.1.

  Args:
    num_buckets: buckets for this side, at least 2.
    max_distance: more than num_buckets / 2.

  Returns:
    int32 buckets in [0, num_buckets), never decreasing.
  """
  exact = num_buckets // 2
  steps = num_buckets - exact
  buckets = []
  for distance in range(max_distance + 1):
    if distance < exact:
      buckets.append(distance)
      continue
    begun = sum(
      distance**steps >= exact ** (steps - j) * max_distance**j
      for j in range(1, steps)
    )
    buckets.append(exact + begun)
  return np.asarray(buckets, np.int32)


class RelativePositionBias(nn.Module):
  """A learned bias on attention logits for each head and distance bucket.

  One table is shared by all layers of a stack, unless each has its own. Looking
  both ways (`bidirectional`), keys after the query have the upper half of the
  buckets; otherwise keys after the query count as distance 0 (they are masked).

  Source: Raffel et al. (2020), section 2.1.
  """

  num_heads: int
  num_buckets: int
  max_distance: int
  bidirectional: bool

  def setup(self):
    self.rel_embedding = self.param(
      'rel_embedding',
      named_axes(RELPOS_INIT, ('heads', 'relpos_buckets')),
      (self.num_heads, self.num_buckets),
      jnp.float32,
    )

  def buckets(self, query_length: int, key_length: int) -> np.ndarray:
    """Bucket of each pair, int32 [query_length, key_length]."""
    offset = np.arange(key_length) - np.arange(query_length)[:, None]
    side = self.num_buckets // 2 if self.bidirectional else self.num_buckets
    table = relative_position_buckets(side, self.max_distance)
    distance = np.abs(offset) if self.bidirectional else np.maximum(-offset, 0)
    buckets = table[np.minimum(distance, self.max_distance)]
    return buckets + (side * (offset > 0) if self.bidirectional else 0)

  def __call__(
    self, query_length: int, key_length: int
  ) -> Float[Array, '1 H Q S']:
    buckets = self.buckets(query_length, key_length).astype(np.int32)
    # A product with one-hot columns: its gradient is a product too, where
    # that of a look-up is a slow scatter-add of Q * S entries.
    one_hot = jax.nn.one_hot(buckets, self.num_buckets, axis=0)
    return jnp.einsum('hc,cqs->hqs', self.rel_embedding, one_hot)[None]

  def row(
    self, position: Int[Array, ''] | int, key_length: int
  ) -> Float[Array, 'H L']:
    """The bias of one query position, which may be traced."""
    if self.bidirectional:
      raise ValueError(
        'a single row of bias is for a decoder, which looks back only; '
        'got bidirectional=True.'
      )
    table = relative_position_buckets(self.num_buckets, self.max_distance)
    # [H, buckets] -> [H, max_distance + 1]
    by_distance = jnp.take(self.rel_embedding, table, axis=1)
    distance = position - jnp.arange(key_length)
    distance = jnp.clip(distance, 0, self.max_distance)
    return jnp.take(by_distance, distance, axis=1)

  def ring(
    self, newest: Int[Array, ''] | int, key_length: int
  ) -> Float[Array, 'H L']:
    """The bias of a query whose keys lie in a ring, its own at `newest`."""
    by_age = jnp.flip(self.row(key_length - 1, key_length), axis=1)
    return jnp.take(by_age, ring_ages(newest, key_length), axis=1)


def ring_ages(newest: Int[Array, ''] | int, length: int) -> Int[Array, ' L']:
  """How many steps before the newest each place of a ring was written."""
  return (newest - jnp.arange(length)) % length


def soft_cap(x: Float[Array, '...'], cap: float | None) -> Float[Array, '...']:
  """`cap * tanh(x / cap)`, which stays below the cap; x without one."""
  return x if cap is None else cap * jnp.tanh(x / cap)


def mask_to_bias(mask: Bool[Array, '...']) -> Float[Array, '...']:
  """0 where a query may attend, MASKED elsewhere."""
  return jnp.where(mask, 0.0, MASKED)
