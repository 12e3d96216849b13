"""Sampling of tokens from logits with one uniform number per token.

The cumulative distribution is inverted on two levels: weights are summed over
blocks of the vocabulary; then the block that contains the uniform number is
found, and the token inside it. This reads the logits three times (maximum,
normaliser, block sums) and writes nothing of their size; Gumbel noise would
need one random number per entry of the vocabulary.
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
# Tokens per block: whole vector registers on TPU if the vocabulary allows it.
_BLOCK_SIZES = range(64, 1025)
_LANES = 128


def split_words(ids: np.ndarray) -> UInt32[np.ndarray, 'n 2']:
  """Splits 64-bit ids into high and low 32-bit words for `uniforms`.

  Arrays inside a compiled function have 32 bits, so ids that differ by a
  multiple of 2^32 would silently share their samples.

  Raises:
    ValueError: an id is negative or not an integer.
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
      'Negative ids mark rows that are not samples.'
    )
  words = ids.astype(np.uint64)
  return np.stack([words >> 32, words & (_MAX_WORD - 1)], -1).astype(np.uint32)


def base_key(seed: int, grow_step: int) -> Key[Array, '']:
  """Returns the key of a Grow step, before folding in sources and samples.

  Args:
    seed: in [0, 2^32).
    grow_step: in [0, 2^32).

  Returns:
    A threefry key: numbers of other generators depend on the array's layout.

  Raises:
    ValueError: a number is outside its range.
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
  source_words: UInt32[Array | np.ndarray, 'B 2'],
  sample_ids: UInt32[Array | np.ndarray, ' N'],
  num_steps: int,
) -> Float[Array, 'num_steps B N']:
  """Returns uniform numbers that depend only on (key, source, sample, step).

  Each number takes two threefry hashes: one of the source's id with `key` gives
  the source's key, and one of (sample, step) with that key gives the bits. All
  steps are computed at once, which is cheaper than a call in the decoding loop.

  Args:
    key: result of `base_key`.
    source_words: result of `split_words`.
    sample_ids: indices of the samples of each source.
    num_steps: number of tokens.

  Returns:
    float32 in (0, 1).
  """
  source_keys = jax.vmap(prng.threefry_2x32, (None, 0))(
    jax.random.key_data(key), source_words
  )  # [B, 2]

  def bits(step, source_key, sample_id):
    return prng.threefry_2x32(source_key, jnp.stack([sample_id, step]))[0]

  for axes in ((None, None, 0), (None, 0, None), (0, None, None)):
    bits = jax.vmap(bits, axes)
  steps = jnp.arange(num_steps, dtype=jnp.uint32)
  words = bits(steps, source_keys, sample_ids)  # [T, B, N]
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
  over the tokens that are not forbidden. A token with probability zero
  (forbidden, or with a logit of −∞) is never drawn, however the sums are
  rounded.

  Args:
    logits: float32; each row has a finite entry that is not forbidden.
    uniform: in [0, 1], one per draw.
    inverse_temperature: 1/τ > 0.
    forbidden: token ids in [0, V).
    row_of: row of each draw; None for one draw per row.

  Returns:
    int32 token ids, and their log softmax(logits) in nats at τ = 1 over all
    tokens, including forbidden ones.
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
  """Draws from the most likely tokens (top-k and nucleus sampling).

  First the `top_k` most likely tokens are kept; then the smallest set of the
  most likely of these with at least `top_p` of their probability at temperature
  τ. This sorts each row, which costs more than `draw`.

  Source: Fan et al. (2018), section 5.1 (top-k); Holtzman et al. (2020),
  section 3.1 (nucleus).

  The other arguments, and what it returns, are those of `draw`.

  Args:
    top_k: at least 1; None for all tokens.
    top_p: in (0, 1].
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
    share = top_p * jnp.sum(weights, -1, keepdims=True)
    weights = jnp.where(_is_cut(weights, share), 0, weights)
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
  """Returns the logits for `draw_likeliest`, excluded tokens at −∞.

  They are unchanged if all tokens are kept, and otherwise sorted in descending
  order. The arguments are those of `draw_likeliest`, with logits divided by the
  temperature.
  """
  if top_k is None and top_p == 1:
    return logits
  count = min(top_k or logits.shape[-1], logits.shape[-1])
  values, _ = lax.top_k(logits, count)
  is_cut = _is_cut(jax.nn.softmax(values), top_p)
  return jnp.where(is_cut, -jnp.inf, values)


def _is_cut(weights, share):
  """Returns which falling weights are not needed to reach a share of them."""
  before = jnp.cumsum(weights, -1) - weights
  # Rounding must not drop the first.
  return (before >= share).at[..., 0].set(False)


def greedy(
  logits: Float[Array, 'rows V'], *, forbidden: Sequence[int] = ()
) -> tuple[Int[Array, ' rows'], Float[Array, ' rows']]:
  """Returns the most likely token of each row; ties go to the lowest id.

  Equals `argmax`, whose compiled form on CPU is many times slower than the
  maxima of blocks. Arguments and results are those of `draw`.
  """
  blocks = _Blocks(logits, forbidden)
  maxima = blocks.maxima()
  block = _first_maximum(maxima)
  chosen = blocks.take(block)
  token = _first_maximum(chosen)
  log_prob = _at(chosen, token) - blocks.log_normalizer(maxima)
  return block * blocks.size + token, log_prob


class _Blocks:
  """Logits as [rows, blocks, size], with forbidden tokens treated as −∞.

  The logits are neither masked nor copied: only the few blocks with a forbidden
  token are reduced a second time.
  """

  def __init__(self, logits, forbidden: Sequence[int]):
    self.size = _block_size(logits.shape[-1])
    # Compiled for TPU, the logits are otherwise copied to split them into
    # blocks.
    logits = lax.platform_dependent(logits, tpu=_rows_last, default=lambda x: x)
    missing = -logits.shape[-1] % self.size
    if missing:
      logits = jnp.pad(logits, ((0, 0), (0, missing)), constant_values=-jnp.inf)
    self._logits = logits.reshape(logits.shape[0], -1, self.size)
    self._allowed = np.ones(self._logits.shape[1:], bool)
    self._allowed.flat[list(forbidden)] = False
    # Runs of blocks with a forbidden token, as slices are cheaper to read
    # than blocks of given numbers.
    touched = np.flatnonzero(~self._allowed.all(-1))
    runs = np.split(touched, np.flatnonzero(np.diff(touched) > 1) + 1)
    self._touched = [(run[0], run[-1] + 1) for run in runs if run.size]

  def maxima(self):
    """Returns the maximum of each block: [rows, blocks]."""
    # Compiled for CPU, a reduction of all blocks at once would replace this one
    # where only the whole is asked for, and read the logits another time.
    top = lax.optimization_barrier(jnp.max(self._logits, -1))
    return self._masked(top, jnp.max)

  def reduce(self, function):
    """Applies `function(values, axis)` to each block: [rows, blocks]."""
    return self._masked(function(self._logits, -1), function)

  def log_normalizer(self, maxima):
    """Returns log Σ_v exp(logits_v) of each row over all tokens, in nats."""
    top = jnp.max(maxima, -1)
    # Forbidden tokens are not in the maxima, and may be greater.
    for start, stop in self._touched:
      part = self._logits[:, start:stop]
      top = jnp.maximum(top, jnp.max(part, (1, 2)))
    weights = jnp.exp(self._logits - top[:, None, None])
    # Compiled for TPU, sums of blocks share a pass over the logits with other
    # reads of them; sums of whole rows need their own pass.
    sums = lax.optimization_barrier(jnp.sum(weights, -1))
    # Compiled for CPU, the barrier goes and whole rows would be summed after all,
    # which takes twice as long (a draw from 256 x 32,000 logits: 13.5, not
    # 10.4 ms). Rounding to what they are keeps both sums.
    sums = lax.reduce_precision(sums, exponent_bits=8, mantissa_bits=23)
    return top + jnp.log(jnp.sum(sums, -1))

  def _masked(self, result, function):
    """Recomputes the blocks of `result` that contain a forbidden token."""
    for start, stop in self._touched:
      masked = jnp.where(
        self._allowed[start:stop], self._logits[:, start:stop], -jnp.inf
      )
      result = result.at[:, start:stop].set(function(masked, -1))
    return result

  def take(self, block, row_of=None):
    """Returns one block per row, or per given row: [n] -> [n, size]."""
    if row_of is None:
      chosen = lax.platform_dependent(
        self._logits, block, tpu=_picked, default=_gathered
      )
    else:
      chosen = self._logits.at[row_of, block].get(mode='clip')
    return jnp.where(jnp.asarray(self._allowed)[block], chosen, -jnp.inf)


def _rows_last(logits):
  """Puts rows into lanes, so that splitting columns moves no data."""
  order = layout.Layout(major_to_minor=(1, 0))
  return layout.with_layout_constraint(logits, order)


def _gathered(logits, block):
  return logits.at[jnp.arange(len(block)), block].get(mode='clip')


def _picked(logits, block):
  """As `_gathered`, in a pass over all logits: gathering on TPU copies them."""
  index = lax.broadcasted_iota(jnp.int32, logits.shape[1:], 0)
  hit = index == block[:, None, None]
  return jnp.sum(jnp.where(hit, logits, 0), axis=1)


def _at(values, index):
  """Returns `values[row, index[row]]` for few columns: [rows, n] -> [rows]."""
  column = lax.broadcasted_iota(jnp.int32, values.shape, 1)
  return jnp.sum(jnp.where(column == index[:, None], values, 0), -1)


def _block_size(vocab_size: int) -> int:
  """Returns a block size near √V that divides V, to avoid padding."""
  divisors = [size for size in _BLOCK_SIZES if vocab_size % size == 0]
  aligned = [size for size in divisors if size % _LANES == 0]
  return min(
    aligned or divisors or [_LANES],
    key=lambda size: abs(size - vocab_size**0.5),
  )


def _first_maximum(values):
  """Returns the first index of each row's maximum: [rows, n] -> [rows]."""
  index = lax.broadcasted_iota(jnp.int32, values.shape, 1)
  top = jnp.max(values, -1, keepdims=True)
  first = jnp.min(jnp.where(values == top, index, values.shape[1]), -1)
  # Rows with NaN match nothing; stay inside the array.
  return jnp.minimum(first, values.shape[1] - 1)


def _first_above(weights, target):
  """Returns the first index whose running sum exceeds the target.

  A parallel running sum may be non-monotone in floating point, and may not
  reach the total that the target was scaled by. So indices with weight zero are
  skipped, and the last positive one is taken if no sum exceeds the target.

  Args:
    weights: [rows, n], not negative.
    target: [rows].

  Returns:
    The index [rows], and the target minus the sum of weights before it.
  """
  running = jnp.cumsum(weights, -1)
  index = lax.broadcasted_iota(jnp.int32, weights.shape, 1)
  positive = weights > 0
  last = jnp.max(jnp.where(positive, index, 0), -1, keepdims=True)
  above = positive & (running > target[:, None])
  first = jnp.min(jnp.where(above, index, last), -1)
  before = jnp.where(index == first[:, None], running - weights, 0)
  return first, jnp.maximum(target - jnp.sum(before, -1), 0)
