"""Batches of similar length, in an order that depends only on seed and step.

Rows are put into length buckets; a batch of a bucket with length L has as many
rows as fit into `tokens_per_batch` tokens per side. With packing, several rows
share a row of the batch. The order of batches is a function of (seed, step), so
a resumed training needs only its step.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
import dataclasses
import functools
from typing import NamedTuple

import grain
import numpy as np

from rest_jax.data import special_ids
from rest_jax.training import packing

Load = Callable[[np.ndarray, int, int], dict[str, np.ndarray]]

# More batches than any training takes; grain needs a length.
_MANY = 2**40


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
  """Rows to train on.

  Attributes:
    source_lengths: int [n], number of tokens with EOS.
    target_lengths: int [n], number of tokens with EOS.
    load: `load(rows, S, T)` returns the arrays of these rows padded to S and T;
      the first axis of each array is a multiple of len(rows). Must be pure and
      thread-safe.
    normalizers: float [n], contribution of each row to the loss's normaliser,
      see `losses.base.Loss.row_normalizers`; None for its target tokens.
    pad: the id of PAD in the arrays of `load`.
  """

  source_lengths: np.ndarray
  target_lengths: np.ndarray
  load: Load
  normalizers: np.ndarray | None = None
  pad: int = special_ids.T5.pad

  def __len__(self) -> int:
    return len(self.source_lengths)

  @property
  def num_tokens(self) -> int:
    """Tokens of both sides."""
    sides = self.source_lengths, self.target_lengths
    return sum(int(np.sum(side, dtype=np.int64)) for side in sides)

  @property
  def total_normalizer(self) -> float:
    """The sum of the rows' normalisers."""
    normalizers = self.normalizers
    if normalizers is None:
      normalizers = self.target_lengths
    return float(np.sum(normalizers, dtype=np.float64))


def decoder_batch(
  encoder_tokens: np.ndarray,
  target_tokens: np.ndarray,
  ids: special_ids.SpecialIds = special_ids.T5,
) -> dict[str, np.ndarray]:
  """Returns T5X's batch from padded tokens.

  Args:
    encoder_tokens: int32 [B, S], PAD on the right.
    target_tokens: int32 [B * N, T], PAD on the right.
    ids: of the network's vocabulary.

  Returns:
    The four features; decoder inputs are the targets shifted right after the
    start token, and the loss weighs every token that is not PAD by 1.
  """
  inputs = np.empty_like(target_tokens)
  inputs[:, 0] = ids.decoder_start
  inputs[:, 1:] = target_tokens[:, :-1]
  return {
    'encoder_input_tokens': encoder_tokens,
    'decoder_input_tokens': inputs,
    'decoder_target_tokens': target_tokens,
    'decoder_loss_weights': (target_tokens != ids.pad).astype(np.float32),
  }


def choose_lengths(lengths: np.ndarray, count: int) -> tuple[int, ...]:
  """Returns the `count` bucket lengths with the least padding.

  Args:
    lengths: int [n], length of the longer side of each row.
    count: maximum number of lengths; each is a shape to compile.
  """
  values, counts = np.unique(lengths, return_counts=True)
  counted = np.concatenate([[0], np.cumsum(counts)])  # rows before each value
  # costs[j]: tokens of the first j values with the best buckets so far.
  costs = np.where(counted > 0, np.inf, 0.0)
  begins = []
  for _ in range(min(count, len(values))):
    # [begin, end]: a bucket for values begin ... end - 1.
    rows = np.maximum(counted - counted[:, None], 0)
    total = costs[:, None] + rows * np.concatenate([[0], values])
    total[np.tril_indices_from(total)] = np.inf
    begins.append(total.argmin(0))
    costs = total.min(0)
  chosen, end = [], len(values)
  for begin in reversed(begins):
    chosen.append(int(values[end - 1]))
    end = int(begin[end])
  return tuple(reversed(chosen))


def batch_rows(tokens_per_batch: int, length: int, row_multiple: int) -> int:
  """Returns the rows per batch: the most that fit, by `row_multiple`."""
  return max(1, tokens_per_batch // length // row_multiple) * row_multiple


class _Bucket(NamedTuple):
  """Rows of similar length.

  Attributes:
    length: padded length of both sides, S and T.
    rows: number of rows per batch.
    members: rows of the data, grouped by the row of a batch that they share.
    starts: first position in `members` of each row of a batch, and the end;
      None without packing.
  """

  length: int
  rows: int
  members: np.ndarray
  starts: np.ndarray | None

  @property
  def groups(self) -> np.ndarray:
    """Returns what is permuted: rows of the data, or indices of packed rows."""
    if self.starts is None:
      return self.members
    return np.arange(len(self.starts) - 1, dtype=self.members.dtype)

  @property
  def num_batches(self) -> int:
    return -(-len(self.groups) // self.rows)

  def unpacked(self, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the data rows of some groups, and the index of each group."""
    assert self.starts is not None
    begins, ends = self.starts[groups], self.starts[groups + 1]
    members = [
      self.members[begin:end] for begin, end in zip(begins, ends, strict=True)
    ]
    return np.concatenate(members), np.repeat(
      np.arange(len(groups)), ends - begins
    )


def _by_length(
  data: Rows, buckets: Sequence[int] | int
) -> Iterator[tuple[int, np.ndarray]]:
  """Yields the length of each bucket that is not empty, and its rows."""
  if not len(data):
    raise ValueError('there is no row to train on')
  longest = np.maximum(data.source_lengths, data.target_lengths)
  if isinstance(buckets, int):
    buckets = choose_lengths(longest, buckets)
  bounds = np.asarray(buckets)
  if bounds.size == 0 or np.any(np.diff(bounds) <= 0):
    raise ValueError(f'buckets must be rising lengths; got {list(bounds)}')
  if longest.max() > bounds[-1]:
    raise ValueError(
      f'a row has {int(longest.max())} tokens but the largest bucket holds '
      f'{int(bounds[-1])}; add a bucket of at least that length'
    )
  bucket_of = np.searchsorted(bounds, longest)
  # Half the memory of the default type, if it is sufficient.
  dtype = np.int32 if len(data) < 2**31 else np.int64
  for index, length in enumerate(bounds.tolist()):
    members = np.flatnonzero(bucket_of == index).astype(dtype)
    if members.size:
      yield length, members


def _packed(
  data: Rows, members: np.ndarray, length: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns `members` and `starts` of a bucket whose rows are packed."""
  row_of = packing.assign(
    data.source_lengths[members], data.target_lengths[members], length, seed
  )
  order = np.argsort(row_of, kind='stable')
  starts = np.searchsorted(row_of[order], np.arange(row_of.max() + 2))
  return members[order], starts


class _Epoch(NamedTuple):
  """The order of an epoch: permuted groups of each bucket, permuted batches."""

  groups: list[np.ndarray]
  batches: np.ndarray


class BucketedBatches:
  """Fixed-shape batches of rows with varied lengths.

  Attributes:
    num_shapes: number of batch shapes; each is compiled once.
    batches_per_epoch: number of batches per epoch; each row occurs once.
    real_token_share: real tokens / tokens of the padded batches, both sides, in
      (0, 1].
    expected_normalizer: mean normaliser of the batches of an epoch, above 0, by
      which the train step divides.
  """

  def __init__(
    self,
    data: Rows,
    *,
    tokens_per_batch: int,
    buckets: Sequence[int] | int,
    seed: int,
    row_multiple: int = 1,
    pack: bool = False,
    rows_here: Callable[[int], np.ndarray] | None = None,
  ):
    """Plans the batches.

    Args:
      tokens_per_batch: tokens per side of a batch, including padding.
      buckets: ascending lengths; a row goes to the first that holds both sides.
        Or the number of lengths to choose from the data.
      seed: seed of the order.
      row_multiple: the number of rows of a batch is a multiple of this
        (devices, micro-batches).
      pack: pack several rows into one row of the batch, see `packing.pack`.
        Packed rows stay together in every epoch; the order of batches changes.
      rows_here: maps the number of rows of a batch to the rows that this
        process reads, see `mesh.rows_here`; None for all.

    Raises:
      ValueError: if there are no rows, or a row fits no bucket.
    """
    self._load = data.load
    self._pad = data.pad
    self._rows_here = rows_here
    self._seed = seed
    self.num_rows = len(data)
    self._buckets = [
      _Bucket(
        length,
        batch_rows(tokens_per_batch, length, row_multiple),
        *(_packed(data, members, length, seed) if pack else (members, None)),
      )
      for length, members in _by_length(data, buckets)
    ]
    self.num_shapes = len(self._buckets)
    # Batches are numbered bucket by bucket: the first number per bucket.
    self._first = np.cumsum([0, *(b.num_batches for b in self._buckets)])
    self.batches_per_epoch = int(self._first[-1])
    self.expected_normalizer = (
      data.total_normalizer / self.batches_per_epoch or 1.0
    )
    padded = sum(2 * b.num_batches * b.rows * b.length for b in self._buckets)
    self.real_token_share = data.num_tokens / padded
    planner = futures.ThreadPoolExecutor(max_workers=1)
    # Two epochs: this one and the next.
    self._plan = functools.lru_cache(maxsize=2)(
      functools.partial(planner.submit, self._make_plan)
    )

  def __len__(self) -> int:
    return _MANY

  def _make_plan(self, epoch: int) -> _Epoch:
    random = np.random.default_rng((self._seed, epoch))
    groups = [random.permutation(bucket.groups) for bucket in self._buckets]
    return _Epoch(groups, random.permutation(self.batches_per_epoch))

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    """Returns batch number `index`, counted from the first epoch's start.

    With several processes, each gets its own rows.
    """
    bucket, groups = self._groups(index)
    own, num_rows = self._own(bucket, groups)
    # A part with padding only loads any row, and discards it.
    batch = self._read(bucket, own if len(own) else groups[:1])
    missing = num_rows - len(own)
    if not missing:
      return batch

    # Rows with PAD only have weight 0 in every loss.
    def fill(name: str, array: np.ndarray) -> np.ndarray:
      each = array.shape[0] // max(len(own), 1)
      value = self._pad if name in packing.TOKENS else 0
      filling = np.full((each * missing, *array.shape[1:]), value, array.dtype)
      return np.concatenate([array[: each * len(own)], filling])

    return {name: fill(name, array) for name, array in batch.items()}

  def _own(self, bucket: _Bucket, groups: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns the groups of a batch that this process reads, and its rows."""
    if self._rows_here is None:
      return groups, bucket.rows
    here = self._rows_here(bucket.rows)
    return groups[here[here < len(groups)]], len(here)

  def _read(self, bucket: _Bucket, groups: np.ndarray) -> dict[str, np.ndarray]:
    if bucket.starts is None:
      return self._load(groups, bucket.length, bucket.length)
    rows, row_of = bucket.unpacked(groups)
    batch = self._load(rows, bucket.length, bucket.length)
    return packing.pack(batch, row_of, bucket.length, self._pad)

  def rows(self, index: int) -> np.ndarray:
    """Returns the rows of batch number `index`, in order.

    With several processes, each gets its own rows.
    """
    bucket, groups = self._groups(index)
    groups, _ = self._own(bucket, groups)
    if bucket.starts is None or not len(groups):
      return groups
    return bucket.unpacked(groups)[0]

  def _groups(self, index: int) -> tuple[_Bucket, np.ndarray]:
    """Returns the bucket of a batch, and its groups of rows."""
    epoch, position = divmod(index, self.batches_per_epoch)
    plan = self._plan(epoch).result()
    if 2 * position >= self.batches_per_epoch:
      # Permuted in the background, so that training does not wait.
      self._plan(epoch + 1)
    number = int(plan.batches[position])
    place = int(np.searchsorted(self._first, number, side='right')) - 1
    bucket = self._buckets[place]
    start = (number - int(self._first[place])) * bucket.rows
    return bucket, plan.groups[place][start : start + bucket.rows]

  def iterate(self, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches from number `start` on, endlessly, with prefetching."""
    dataset = grain.MapDataset.source(self)[start:]
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    return iter(dataset.to_iter_dataset(options))
