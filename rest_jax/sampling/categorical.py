"""Tokens drawn from logits, one uniform number a token.

A token is found by inverting the cumulative distribution on two levels: the
weights are summed over blocks of the vocabulary, the block that holds the
uniform number is found first, the token inside it second. This reads the
logits three times (maximum, normaliser, block sums) and writes nothing of
their size, where Gumbel noise would need a random number for each entry of
the vocabulary.
"""

from collections.abc import Sequence

import jax
from jax import lax
from jax.extend import random as prng
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt32
import numpy as np

_MAX_WORD = 2**32
# Uniform numbers are midpoints of 2^23 equal cells: exact in float32, never 0
# or 1, and symmetric about one half.
_UNIFORM_BITS = 23
# Tokens of a block: whole vector registers on TPU where the vocabulary allows.
_BLOCK_SIZES = range(64, 1025)
_LANES = 128


def split_words(ids: np.ndarray) -> UInt32[np.ndarray, 'n 2']:
  """High and low 32-bit words of 64-bit ids, as `uniforms` folds them.

  Arrays inside a compiled function hold 32 bits only, so that ids that differ
  by a multiple of 2^32 would silently share their samples.

  Args:
    ids: [n] integers in [0, 2^63).

  Returns:
    uint32 [n, 2].

  Raises:
    ValueError: an id is negative or is no integer.
  """
  ids = np.asarray(ids)
  if ids.size and not np.issubdtype(ids.dtype, np.integer):
    raise ValueError(
      f'source ids must be integers; got {ids.dtype}. '
      'Give the row numbers of the sources in their store.'
    )
  if ids.size and ids.min() < 0:
    raise ValueError(
      f'source ids must not be negative; got {ids.min()}. '
      'Negative ids mark rows that are no sample and cannot be sampled.'
    )
  words = ids.astype(np.uint64)
  return np.stack([words >> 32, words & (_MAX_WORD - 1)], -1).astype(np.uint32)


def base_key(seed: int, grow_step: int) -> Key[Array, '']:
  """The key of a Grow step, before sources and samples are folded in.

  Args:
    seed: in [0, 2^32).
    grow_step: in [0, 2^32).

  Returns:
    A threefry key: other generators' numbers depend on the array's layout.

  Raises:
    ValueError: a number outside its range.
  """
  for name, value in (('seed', seed), ('grow_step', grow_step)):
    if not 0 <= value < _MAX_WORD:
      raise ValueError(
        f'{name} must lie in [0, 2**32); got {value}. '
        'Random keys hold 32-bit words; choose a smaller number.'
      )
  key = jax.random.key(np.uint32(seed), impl='threefry2x32')
  return jax.random.fold_in(key, np.uint32(grow_step))


def uniforms(
  key: Key[Array, ''],
  source_words: UInt32[Array, 'B 2'],
  sample_ids: UInt32[Array, ' N'],
  num_steps: int,
) -> Float[Array, 'num_steps B N']:
  """Uniform numbers that depend on (key, source, sample, step) alone.

  Two threefry hashes make a number: one of the source's id under `key` gives
  the source's key, and one of (sample, step) under that gives the bits. All
  steps are drawn at once, which costs less than a call in the decoding loop.

  Args:
    key: of `base_key`.
    source_words: of `split_words`.
    sample_ids: which samples of each source.
    num_steps: the number of tokens.

  Returns:
    float32 in (0, 1).
  """
  source_keys = jax.vmap(prng.threefry_2x32, (None, 0))(
    jax.random.key_data(key), source_words
  )  # [B, 2]
  steps = jnp.arange(num_steps, dtype=jnp.uint32)

  def bits(step, source_key, sample_id):
    return prng.threefry_2x32(source_key, jnp.stack([sample_id, step]))[0]

  over_samples = jax.vmap(bits, (None, None, 0))
  over_sources = jax.vmap(over_samples, (None, 0, None))
  over_steps = jax.vmap(over_sources, (0, None, None))
  words = over_steps(steps, source_keys, sample_ids)  # [T, B, N]
  cells = (words >> (32 - _UNIFORM_BITS)).astype(jnp.float32)
  return (cells + 0.5) * 2.0**-_UNIFORM_BITS


def draw(
  logits: Float[Array, 'rows V'],
  uniform: Float[Array, ' draws'],
  inverse_temperature: Float[Array, ''] | float = 1.0,
  *,
  forbidden: Sequence[int] = (),
  row_of: Int[Array, ' draws'] | None = None,
) -> Int[Array, ' draws']:
  """Draws tokens by a two-level inverse CDF.

  The token is the first v with Σ_{w ≤ v} p(w) > u, where p ∝ exp(logits / τ)
  over the tokens that are not forbidden. Whatever the rounding of the sums, a
  token of probability zero (forbidden, or a logit of −∞) is never drawn.

  Args:
    logits: float32; each row has a finite entry that is not forbidden.
    uniform: in [0, 1], one a draw.
    inverse_temperature: 1/τ > 0.
    forbidden: token ids in [0, V).
    row_of: the row that each draw is from; None for one draw a row.

  Returns:
    int32 token ids.
  """
  blocks = _Blocks(logits, forbidden)
  top = jnp.max(blocks.reduce(jnp.max), -1)

  def weights(values, top):
    shift = top.reshape((-1,) + (1,) * (values.ndim - 1))
    return jnp.exp((values - shift) * inverse_temperature)

  sums = blocks.reduce(lambda values, axis: jnp.sum(weights(values, top), axis))
  total = jnp.sum(sums, -1)
  if row_of is not None:
    top, sums, total = (
      jnp.take(array, row_of, axis=0, mode='clip')
      for array in (top, sums, total)
    )
  block, rest = _first_above(sums, uniform * total)
  token, _ = _first_above(weights(blocks.take(block, row_of), top), rest)
  return block * blocks.size + token


def log_normalizer(logits: Float[Array, 'rows V']) -> Float[Array, ' rows']:
  """log Σ_v exp(logits_v) of each row, over all tokens.

  The maximum is taken over the blocks that `draw` takes it over, and is
  computed once for both.

  Args:
    logits: float32.

  Returns:
    float32, in nats; NaN where a logit is.
  """
  top = jnp.max(_Blocks(logits, ()).reduce(jnp.max), -1)
  return top + jnp.log(jnp.sum(jnp.exp(logits - top[:, None]), -1))


def greedy(
  logits: Float[Array, 'rows V'], *, forbidden: Sequence[int] = ()
) -> Int[Array, ' rows']:
  """The likeliest token of each row; the lowest id among equals.

  What `argmax` gives, whose compiled form on CPU is many times slower than
  the maxima of blocks.

  Args:
    logits: float32.
    forbidden: token ids in [0, V).

  Returns:
    int32 token ids.
  """
  blocks = _Blocks(logits, forbidden)
  block = _first_maximum(blocks.reduce(jnp.max))
  return block * blocks.size + _first_maximum(blocks.take(block))


class _Blocks:
  """Logits as [rows, blocks, size], read as if forbidden ones were −∞.

  The logits themselves are neither masked nor copied: only the few blocks
  that hold a forbidden token are reduced a second time.
  """

  def __init__(self, logits, forbidden: Sequence[int]):
    self.size = _block_size(logits.shape[-1])
    missing = -logits.shape[-1] % self.size
    if missing:
      logits = jnp.pad(logits, ((0, 0), (0, missing)), constant_values=-jnp.inf)
    self._logits = logits.reshape(logits.shape[0], -1, self.size)
    self._allowed = np.ones(self._logits.shape[1:], bool)
    self._allowed.flat[list(forbidden)] = False

  def reduce(self, function):
    """`function(values, axis)` over each block: [rows, blocks]."""
    # Seen on CPU: a reduction of all blocks at once would replace this one
    # where only the whole is asked for, and read the logits another time.
    result = lax.optimization_barrier(function(self._logits, -1))
    touched = np.flatnonzero(~self._allowed.all(-1))
    if not touched.size:
      return result
    allowed = self._allowed[touched]
    masked = jnp.where(allowed, self._logits[:, touched], -jnp.inf)
    return result.at[:, touched].set(function(masked, -1))

  def take(self, block, row_of=None):
    """One block for each row, or of the rows given: [n] -> [n, size]."""
    if row_of is None:
      row_of = jnp.arange(len(block))
    chosen = self._logits.at[row_of, block].get(mode='clip')
    return jnp.where(jnp.asarray(self._allowed)[block], chosen, -jnp.inf)


def _block_size(vocab_size: int) -> int:
  """A block size near √V that divides V, so that nothing is filled up."""
  divisors = [size for size in _BLOCK_SIZES if vocab_size % size == 0]
  aligned = [size for size in divisors if size % _LANES == 0]
  return min(
    aligned or divisors or [_LANES],
    key=lambda size: abs(size - vocab_size**0.5),
  )


def _first_maximum(values):
  """The first index of each row's maximum: [rows, n] -> [rows]."""
  index = lax.broadcasted_iota(jnp.int32, values.shape, 1)
  top = jnp.max(values, -1, keepdims=True)
  first = jnp.min(jnp.where(values == top, index, values.shape[1]), -1)
  # Rows with NaN equal nothing; stay inside the array.
  return jnp.minimum(first, values.shape[1] - 1)


def _first_above(weights, target):
  """The first index whose running sum exceeds the target, weight positive.

  A parallel running sum need not be monotone in floating point, nor reach the
  total that the target was scaled by: indices of weight zero are passed over,
  and the last positive one is taken where no sum exceeds the target.

  Args:
    weights: [rows, n], not negative.
    target: [rows].

  Returns:
    The index [rows], and the target less the weights before it.
  """
  running = jnp.cumsum(weights, -1)
  index = lax.broadcasted_iota(jnp.int32, weights.shape, 1)
  positive = weights > 0
  last = jnp.max(jnp.where(positive, index, 0), -1, keepdims=True)
  above = positive & (running > target[:, None])
  first = jnp.min(jnp.where(above, index, last), -1)
  before = jnp.where(index == first[:, None], running - weights, 0)
  return first, jnp.maximum(target - jnp.sum(before, -1), 0)
