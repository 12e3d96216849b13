"""Rows of token ids of varied length, over memory-mapped chunks.

A chunk is one flat array of token ids and the offsets at which its rows begin:
the buffers of one Arrow record batch, viewed by numpy without a copy. Reading a
batch of rows touches only the pages that hold them.
"""

from collections.abc import Iterator, Sequence
import functools
import itertools

from jaxtyping import Int, Int32, UInt64
import numpy as np
import pyarrow as pa

from rest_jax.data import special_ids

# Below this many rows a chunk, one slice a row is quicker than building the
# index arrays of a gather.
_GATHER_FROM = 64
# Rows hashed at a time: what is computed of their tokens stays in a cache.
_HASHED_ROWS = 2048


class Ragged(Sequence[np.ndarray]):
  """A sequence of token id rows of varied length.

  `rows[i]` is a view without padding; `pad` makes rectangles. Rows are
  numbered through all chunks.

  Attributes:
    first_tokens: int32 [n], for sources that bring the first token of their
      hypotheses (`SpecialIds.is_first_given`); otherwise None.
  """

  first_tokens: np.ndarray | None = None

  def __init__(self, chunks: Sequence[tuple[np.ndarray, np.ndarray]]):
    """Takes chunks as they are; see `from_lists` and `from_arrays`.

    Args:
      chunks: pairs (values, offsets): token ids of any unsigned or signed
        integer type, and n + 1 ascending positions in them for n rows.
    """
    self._values = [values for values, _ in chunks]
    self._offsets = [offsets for _, offsets in chunks]
    sizes = [len(offsets) - 1 for offsets in self._offsets]
    # Row number at which each chunk begins, and the number of rows last.
    self._starts = np.cumsum([0, *sizes], dtype=np.int64)

  @classmethod
  def from_lists(cls, rows: Sequence[Sequence[int] | np.ndarray]) -> 'Ragged':
    """Copies a list of token id rows into one chunk."""
    values, offsets = flatten(rows)
    return cls([(values, offsets)])

  @classmethod
  def from_arrays(cls, arrays: Sequence[pa.Array]) -> 'Ragged':
    """Views Arrow list arrays, one chunk each, without copying them.

    Args:
      arrays: arrays of list<uint16|uint32> (or another integer) without nulls.

    Raises:
      TypeError: for another type of array.
      ValueError: for an array with nulls.
    """
    return cls([_view(array) for array in arrays])

  @classmethod
  def concatenate(cls, parts: Sequence['Ragged']) -> 'Ragged':
    """Joins several without copying their tokens."""
    return cls(
      [
        chunk
        for part in parts
        for chunk in zip(part._values, part._offsets, strict=True)
      ]
    )

  def with_first_tokens(self, first_tokens: np.ndarray) -> 'Ragged':
    """Returns the same rows as sources with first tokens, [n]."""
    rows = Ragged(list(zip(self._values, self._offsets, strict=True)))
    rows.first_tokens = np.asarray(first_tokens, np.int32)
    if rows.first_tokens.shape != (len(rows),):
      raise ValueError(
        f'first_tokens must be a token per row, [{len(rows)}]; got shape '
        f'{rows.first_tokens.shape}.'
      )
    return rows

  def __len__(self) -> int:
    return int(self._starts[-1])

  @functools.cached_property
  def lengths(self) -> Int32[np.ndarray, ' n']:
    """Number of tokens of each row."""
    if not self._offsets:
      return np.zeros(0, np.int32)
    lengths = np.concatenate(
      [np.diff(offsets).astype(np.int32) for offsets in self._offsets]
    )
    ends = (o[-1] for o in self._offsets)
    if (lengths < 0).any() or any(
      end > len(values) for end, values in zip(ends, self._values, strict=True)
    ):
      raise ValueError(
        'rows must begin and end inside of their tokens, one after the other; '
        'these do not. The file that they are from is damaged: --verify=full '
        'names it.'
      )
    return lengths

  @functools.cached_property
  def hashes(self) -> UInt64[np.ndarray, ' n']:
    """A hash of each row, equal for equal rows; reads every token once.

    Different rows have equal hashes about as seldom as random 64-bit numbers
    are equal. Computed once and kept, 8 bytes a row.
    """
    # An odd multiplier for each position, so that the order of tokens counts.
    longest = int(self.lengths.max(initial=0))
    multipliers = np.random.default_rng(0).integers(
      0, 2**63, longest, dtype=np.uint64
    )
    multipliers = (multipliers << np.uint64(1)) | np.uint64(1)
    hashes = np.zeros(len(self), np.uint64)
    for values, offsets, at in zip(
      self._values, self._offsets, self._starts[:-1], strict=True
    ):
      for start in range(0, len(offsets) - 1, _HASHED_ROWS):
        bounds = offsets[start : start + _HASHED_ROWS + 1].astype(np.int64)
        part = hashes[at + start : at + start + len(bounds) - 1]
        tokens = values[bounds[0] : bounds[-1]]
        _hash_rows(tokens, bounds - bounds[0], multipliers, part)
    return hashes

  @property
  def num_tokens(self) -> int:
    """Number of tokens of all rows."""
    return sum(int(offsets[-1] - offsets[0]) for offsets in self._offsets)

  def __getitem__(self, row: int) -> np.ndarray:
    """Returns a view of one row; negative rows count from the end."""
    if isinstance(row, slice):
      raise TypeError('Ragged takes one row number; use pad for several rows.')
    n = len(self)
    if not -n <= row < n:
      raise IndexError(f'row must be in [{-n}, {n}); got {row}.')
    row = int(row) % n
    chunk = int(np.searchsorted(self._starts, row, side='right')) - 1
    local, offsets = row - int(self._starts[chunk]), self._offsets[chunk]
    return self._values[chunk][offsets[local] : offsets[local + 1]]

  def __iter__(self) -> Iterator[np.ndarray]:
    for values, offsets in zip(self._values, self._offsets, strict=True):
      bounds = offsets.tolist()
      for begin, end in itertools.pairwise(bounds):
        yield values[begin:end]

  def pad(
    self,
    rows: Int[np.ndarray, ' B'],
    length: int,
    pad: int = special_ids.T5.pad,
  ) -> Int32[np.ndarray, 'B T']:
    """Copies rows into a rectangle, filled up with PAD on the right.

    Args:
      rows: row numbers in [0, n), in any order, repeats allowed.
      length: width of the rectangle in tokens.
      pad: the id of PAD.

    Raises:
      ValueError: if a row is longer than `length`; nothing is ever cut.
    """
    rows = np.asarray(rows)
    if rows.size == 0:
      return np.full((0, length), pad, np.int32)
    if rows.ndim != 1 or rows.dtype.kind not in 'iu':
      raise TypeError(
        'rows must be a vector of integers; '
        f'got shape {rows.shape} of {rows.dtype}.'
      )
    if rows.min() < 0 or rows.max() >= len(self):
      raise IndexError(
        f'rows must be in [0, {len(self)}); '
        f'got values from {rows.min()} to {rows.max()}.'
      )
    lengths = self.lengths[rows]  # [B]
    if lengths.max() > length:
      worst = int(lengths.argmax())
      raise ValueError(
        f'length must hold the longest of the rows; got {length}, but row '
        f'{rows[worst]} has {lengths[worst]} tokens. Pad to a longer bucket.'
      )
    if len(self._values) == 1:
      return self._gather(0, rows, lengths, length, pad)
    padded = np.full((len(rows), length), pad, np.int32)
    chunks = np.searchsorted(self._starts, rows, side='right') - 1  # [B]
    local = rows.astype(np.int64) - self._starts[chunks]
    if len(rows) < _GATHER_FROM * len(self._values):
      places = zip(
        padded, chunks.tolist(), local.tolist(), lengths.tolist(), strict=True
      )
      for line, chunk, row, size in places:
        begin = int(self._offsets[chunk][row])
        line[:size] = self._values[chunk][begin : begin + size]
      return padded
    for chunk in np.unique(chunks):
      lines = np.flatnonzero(chunks == chunk)
      padded[lines] = self._gather(
        chunk, local[lines], lengths[lines], length, pad
      )
    return padded

  def _gather(
    self,
    chunk: int,
    local: np.ndarray,
    lengths: np.ndarray,
    length: int,
    pad: int,
  ) -> np.ndarray:
    """Copies rows `local` of one chunk into a rectangle."""
    begins = self._offsets[chunk][local].astype(np.int64)
    # Position of every wanted token among the chunk's values: its row's begin,
    # plus how far it stands into the row.
    ends = np.cumsum(lengths, dtype=np.int64)
    positions = np.repeat(begins - (ends - lengths), lengths)
    positions += np.arange(ends[-1])
    block = np.full((len(local), length), pad, np.int32)
    inside = np.arange(length) < lengths[:, None]  # [B, T]
    block[inside] = self._values[chunk][positions]
    return block


def _hash_rows(
  tokens: np.ndarray,
  bounds: np.ndarray,
  multipliers: np.ndarray,
  hashes: np.ndarray,
) -> None:
  """Writes the hash of each row of `tokens` into `hashes`; 0 for empty rows."""
  lengths = np.diff(bounds)
  position = np.arange(len(tokens)) - np.repeat(bounds[:-1], lengths)
  mixed = tokens.astype(np.uint64)
  mixed += np.uint64(1)
  mixed *= np.uint64(0x9E3779B97F4A7C15)
  mixed ^= mixed >> np.uint64(29)
  mixed *= multipliers.take(position)
  # Sums run from one begin to the next, so only rows with tokens may have one.
  filled = np.flatnonzero(lengths)
  if filled.size:
    hashes[filled] = np.add.reduceat(mixed, bounds[filled])


def flatten(
  rows: Sequence[Sequence[int] | np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
  """Joins rows of token ids end to end.

  Args:
    rows: token ids; empty rows are allowed.

  Returns:
    The token ids, int32 unless all rows share another integer type, and the
    n + 1 offsets (int64) at which the rows begin and end.
  """
  offsets = np.zeros(len(rows) + 1, np.int64)
  np.cumsum([len(row) for row in rows], out=offsets[1:])
  filled = [np.asarray(row) for row in rows if len(row)]
  if not filled:
    return np.zeros(0, np.int32), offsets
  values = np.concatenate(filled)
  if values.ndim != 1 or values.dtype.kind not in 'iu':
    raise TypeError(
      'rows must be vectors of integer token ids; '
      f'got values of {values.dtype} with {values.ndim} dimensions.'
    )
  return values, offsets


def token_dtype(vocab_size: int) -> np.dtype:
  """Returns the smallest stored type that holds every token id."""
  return np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)


def to_arrow(
  values: np.ndarray, offsets: np.ndarray, dtype: np.dtype
) -> pa.Array:
  """Makes an Arrow list array with 32-bit offsets of flattened rows.

  Args:
    values: token ids, all representable in `dtype`.
    offsets: n + 1 ascending positions in `values`; the first may be above 0.
    dtype: the stored type, uint16 or uint32.
  """
  begin, end = int(offsets[0]), int(offsets[-1])
  if end - begin > np.iinfo(np.int32).max:
    raise ValueError(
      'a record batch must hold fewer than 2**31 tokens; '
      f'got {end - begin}. Write fewer rows in one batch.'
    )
  return pa.ListArray.from_arrays(
    pa.array((np.asarray(offsets) - begin).astype(np.int32)),
    pa.array(np.ascontiguousarray(values[begin:end], dtype=dtype)),
  )


def _view(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
  """Views the values and offsets of one Arrow list array."""
  is_list = pa.types.is_list(array.type)
  if not is_list or not pa.types.is_integer(array.type.value_type):
    raise TypeError(
      f'column must be of list<uint16> or list<uint32>; got {array.type}.'
    )
  if array.null_count or array.values.null_count:
    raise ValueError('column must hold no nulls; got some.')
  values = array.values.to_numpy(zero_copy_only=True)
  offsets = array.offsets.to_numpy(zero_copy_only=True)
  return values, offsets
