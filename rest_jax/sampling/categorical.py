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
from jax.experimental import layout
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
) -> tuple[Int[Array, ' draws'], Float[Array, ' draws']]:
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
    int32 token ids, and log softmax(logits) of them in nats: over all tokens,
    forbidden ones too, and at τ = 1.
  """
  blocks = _Blocks(logits, forbidden)
  maxima = blocks.maxima()
  top, normalizer = jnp.max(maxima, -1), blocks.log_normalizer(maxima)

  def weights(values, top):
    shift = top.reshape((-1,) + (1,) * (values.ndim - 1))
    return jnp.exp((values - shift) * inverse_temperature)

  sums = blocks.reduce(lambda values, axis: jnp.sum(weights(values, top), axis))
  total = jnp.sum(sums, -1)
  if row_of is not None:
    top, sums, total, normalizer = (
      jnp.take(array, row_of, axis=0, mode='clip')
      for array in (top, sums, total, normalizer)
    )
  block, rest = _first_above(sums, uniform * total)
  chosen = blocks.take(block, row_of)
  token, _ = _first_above(weights(chosen, top), rest)
  return block * blocks.size + token, _at(chosen, token) - normalizer


def draw_likeliest(
  logits: Float[Array, 'rows V'],
  uniform: Float[Array, ' draws'],
  inverse_temperature: Float[Array, ''] | float = 1.0,
  *,
  top_k: int | None = None,
  top_p: float = 1.0,
  forbidden: Sequence[int] = (),
  row_of: Int[Array, ' draws'] | None = None,
) -> tuple[Int[Array, ' draws'], Float[Array, ' draws']]:
  """Draws as `draw` does, from the likeliest tokens alone.

  Those are first the `top_k` likeliest, then of these the fewest, likeliest
  first, that have at least `top_p` of their probability at temperature τ. It
  sorts each row, which costs more than `draw`.

  Source: Fan et al. (2018), section 5.1 (top-k); Holtzman et al. (2020),
  section 3.1 (nucleus).

  Args:
    logits: float32; each row has a finite entry that is not forbidden.
    uniform: in [0, 1], one a draw.
    inverse_temperature: 1/τ > 0.
    top_k: at least 1; None for all tokens.
    top_p: in (0, 1].
    forbidden: token ids in [0, V).
    row_of: the row that each draw is from; None for one draw a row.

  Returns:
    int32 token ids, and log softmax(logits) of them, as `draw` does.
  """
  blocks = _Blocks(logits, forbidden)
  normalizer = blocks.log_normalizer(blocks.maxima())
  banned = np.zeros(logits.shape[-1], bool)
  banned[list(forbidden)] = True
  allowed = jnp.where(banned, -jnp.inf, logits)
  count = min(top_k or logits.shape[-1], logits.shape[-1])
  values, tokens = lax.top_k(allowed, count)  # [rows, k], falling
  weights = jnp.exp((values - values[:, :1]) * inverse_temperature)
  if top_p < 1:
    before = jnp.cumsum(weights, -1) - weights
    enough = before >= top_p * jnp.sum(weights, -1, keepdims=True)
    # Rounding must not lose the first.
    weights = jnp.where(enough.at[:, 0].set(False), 0, weights)
  if row_of is not None:
    values, tokens, weights, normalizer = (
      jnp.take(array, row_of, axis=0, mode='clip')
      for array in (values, tokens, weights, normalizer)
    )
  place, _ = _first_above(weights, uniform * jnp.sum(weights, -1))
  return _at(tokens, place), _at(values, place) - normalizer


def likeliest(
  logits: Float[Array, '*rows V'],
  *,
  top_k: int | None = None,
  top_p: float = 1.0,
) -> Float[Array, '*rows k']:
  """Logits of the tokens that `draw_likeliest` draws from, others at −∞.

  Args:
    logits: float32, divided by the temperature.
    top_k: at least 1; None for all tokens.
    top_p: in (0, 1].

  Returns:
    The logits as they are where all tokens are drawn from; else falling.
  """
  if top_k is None and top_p == 1:
    return logits
  count = min(top_k or logits.shape[-1], logits.shape[-1])
  values, _ = lax.top_k(logits, count)
  weights = jax.nn.softmax(values)
  before = jnp.cumsum(weights, -1) - weights
  is_cut = (before >= top_p).at[..., 0].set(False)
  return jnp.where(is_cut, -jnp.inf, values)


def greedy(
  logits: Float[Array, 'rows V'], *, forbidden: Sequence[int] = ()
) -> tuple[Int[Array, ' rows'], Float[Array, ' rows']]:
  """The likeliest token of each row; the lowest id among equals.

  What `argmax` gives, whose compiled form on CPU is many times slower than
  the maxima of blocks.

  Args:
    logits: float32.
    forbidden: token ids in [0, V).

  Returns:
    int32 token ids, and log softmax(logits) of them in nats, as `draw` does.
  """
  blocks = _Blocks(logits, forbidden)
  maxima = blocks.maxima()
  block = _first_maximum(maxima)
  chosen = blocks.take(block)
  token = _first_maximum(chosen)
  log_prob = _at(chosen, token) - blocks.log_normalizer(maxima)
  return block * blocks.size + token, log_prob


class _Blocks:
  """Logits as [rows, blocks, size], read as if forbidden ones were −∞.

  The logits themselves are neither masked nor copied: only the few blocks
  that hold a forbidden token are reduced a second time.
  """

  def __init__(self, logits, forbidden: Sequence[int]):
    self.size = _block_size(logits.shape[-1])
    # Seen on TPU: otherwise the logits are copied to be cut into blocks.
    logits = lax.platform_dependent(logits, cpu=lambda x: x, default=_rows_last)
    missing = -logits.shape[-1] % self.size
    if missing:
      logits = jnp.pad(logits, ((0, 0), (0, missing)), constant_values=-jnp.inf)
    self._logits = logits.reshape(logits.shape[0], -1, self.size)
    self._allowed = np.ones(self._logits.shape[1:], bool)
    self._allowed.flat[list(forbidden)] = False
    # Runs of blocks that hold a forbidden token, as slices are cheaper to read
    # than blocks of given numbers.
    touched = np.flatnonzero(~self._allowed.all(-1))
    runs = np.split(touched, np.flatnonzero(np.diff(touched) > 1) + 1)
    self._touched = [(run[0], run[-1] + 1) for run in runs if run.size]

  def maxima(self):
    """The maximum of each block: [rows, blocks]."""
    # Seen on CPU: a reduction of all blocks at once would replace this one
    # where only the whole is asked for, and read the logits another time.
    top = lax.optimization_barrier(jnp.max(self._logits, -1))
    return self._masked(top, jnp.max)

  def reduce(self, function):
    """`function(values, axis)` over each block: [rows, blocks]."""
    return self._masked(function(self._logits, -1), function)

  def log_normalizer(self, maxima):
    """log Σ_v exp(logits_v) of each row over all tokens, in nats."""
    top = jnp.max(maxima, -1)
    # Forbidden tokens are not among the maxima, and may be greater.
    for start, stop in self._touched:
      part = self._logits[:, start:stop]
      top = jnp.maximum(top, jnp.max(part, (1, 2)))
    weights = jnp.exp(self._logits - top[:, None, None])
    # Seen on TPU: sums of blocks share a pass over the logits with what else
    # reads them; those of whole rows take one of their own.
    sums = lax.optimization_barrier(jnp.sum(weights, -1))
    return top + jnp.log(jnp.sum(sums, -1))

  def _masked(self, result, function):
    """`result` with the blocks that hold a forbidden token reduced again."""
    for start, stop in self._touched:
      masked = jnp.where(
        self._allowed[start:stop], self._logits[:, start:stop], -jnp.inf
      )
      result = result.at[:, start:stop].set(function(masked, -1))
    return result

  def take(self, block, row_of=None):
    """One block for each row, or of the rows given: [n] -> [n, size]."""
    if row_of is None:
      chosen = lax.platform_dependent(
        self._logits, block, cpu=_gathered, default=_picked
      )
    else:
      chosen = self._logits.at[row_of, block].get(mode='clip')
    return jnp.where(jnp.asarray(self._allowed)[block], chosen, -jnp.inf)


def _rows_last(logits):
  """Has rows in the lanes, so that cutting columns into blocks moves nothing."""
  order = layout.Layout(major_to_minor=(1, 0))
  return layout.with_layout_constraint(logits, order)


def _gathered(logits, block):
  return logits.at[jnp.arange(len(block)), block].get(mode='clip')


def _picked(logits, block):
  """As `_gathered`, by a pass over all logits: a TPU would copy them to gather."""
  index = lax.broadcasted_iota(jnp.int32, logits.shape[1:], 0)
  hit = index == block[:, None, None]
  return jnp.sum(jnp.where(hit, logits, 0), axis=1)


def _at(values, index):
  """`values[row, index[row]]` of few columns: [rows, n] -> [rows]."""
  column = lax.broadcasted_iota(jnp.int32, values.shape, 1)
  return jnp.sum(jnp.where(column == index[:, None], values, 0), -1)


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
