"""Batches of similar length, in an order that depends on seed and step alone.

Rows are put into length buckets; a batch of a bucket of length L has as many
rows as fit into `tokens_per_batch` tokens a side. The order of batches is a
function of (seed, step): a restarted training continues where it stopped by
giving the step alone.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
import dataclasses
import functools

import grain
import numpy as np

from rest_jax import types

Load = Callable[[np.ndarray, int, int], dict[str, np.ndarray]]

# More batches than any training takes; grain wants a length.
_MANY = 2**40


@dataclasses.dataclass(frozen=True)
class _Bucket:
  """Rows of similar length; `members` are their numbers, `rows` a batch's."""

  length: int
  rows: int
  members: np.ndarray

  @property
  def num_batches(self) -> int:
    return -(-self.members.size // self.rows)


@dataclasses.dataclass(frozen=True)
class _Epoch:
  """An epoch's order: the members of each bucket and the batches, permuted."""

  members: list[np.ndarray]
  batches: np.ndarray


def decoder_batch(
  encoder_tokens: np.ndarray, target_tokens: np.ndarray
) -> dict[str, np.ndarray]:
  """Makes T5X's batch from padded tokens.

  Args:
    encoder_tokens: int32 [B, S], PAD on the right.
    target_tokens: int32 [B * N, T], PAD on the right.

  Returns:
    The four features; decoder inputs are the targets shifted right after the
    start token, and the loss weighs every token that is not PAD by 1.
  """
  inputs = np.zeros_like(target_tokens)
  inputs[:, 0] = types.DECODER_START_ID
  inputs[:, 1:] = target_tokens[:, :-1]
  return {
    'encoder_input_tokens': encoder_tokens,
    'decoder_input_tokens': inputs,
    'decoder_target_tokens': target_tokens,
    'decoder_loss_weights': (target_tokens != types.PAD_ID).astype(np.float32),
  }


class BucketedBatches:
  """Fixed-shape batches over rows of varied length.

  Attributes:
    num_rows: rows in an epoch.
    batches_per_epoch: batches in an epoch; every row occurs once in one.
    real_token_share: real tokens / tokens of the padded batches, both sides, in
      (0, 1].
  """

  def __init__(
    self,
    *,
    source_lengths: np.ndarray,
    target_lengths: np.ndarray,
    load: Load,
    tokens_per_batch: int,
    buckets: Sequence[int],
    seed: int,
    row_multiple: int = 1,
  ):
    """Plans the batches.

    Args:
      source_lengths: int [n], tokens with EOS.
      target_lengths: int [n], likewise.
      load: `load(rows, S, T)` returns the arrays of these rows padded to S and
        T; each array's first axis is a multiple of len(rows). Must be pure and
        thread-safe.
      tokens_per_batch: tokens a side of a batch, padding included.
      buckets: rising lengths; a row goes to the first that holds both sides.
      seed: of the order.
      row_multiple: rows of a batch are a multiple of it (devices, micro-batches).

    Raises:
      ValueError: if there is no row, or one fits no bucket.
    """
    if len(source_lengths) == 0:
      raise ValueError('there is no row to train on')
    bounds = np.asarray(buckets)
    if bounds.size == 0 or np.any(np.diff(bounds) <= 0):
      raise ValueError(f'buckets must be rising lengths; got {list(bounds)}')
    longest = np.maximum(source_lengths, target_lengths)
    if longest.max() > bounds[-1]:
      raise ValueError(
        f'a row has {int(longest.max())} tokens but the largest bucket holds '
        f'{int(bounds[-1])}; add a bucket of at least that length'
      )
    self._load = load
    self._seed = seed
    self.num_rows = len(source_lengths)
    self._buckets: list[_Bucket] = []
    bucket_of = np.searchsorted(bounds, longest)
    # Half the memory of the usual type, where it is enough.
    dtype = np.int32 if self.num_rows < 2**31 else np.int64
    for index, length in enumerate(bounds):
      members = np.flatnonzero(bucket_of == index).astype(dtype)
      if not members.size:
        continue
      rows = max(1, tokens_per_batch // int(length) // row_multiple)
      self._buckets.append(_Bucket(int(length), rows * row_multiple, members))
    # Batches are numbered bucket by bucket: the first number of each.
    self._first = np.cumsum([0, *(b.num_batches for b in self._buckets)])
    self.batches_per_epoch = int(self._first[-1])
    padded = sum(2 * b.num_batches * b.rows * b.length for b in self._buckets)
    real = int(np.sum(source_lengths, dtype=np.int64)) + int(
      np.sum(target_lengths, dtype=np.int64)
    )
    self.real_token_share = real / padded
    planner = futures.ThreadPoolExecutor(max_workers=1)
    # Two epochs: this one and the next.
    self._plan = functools.lru_cache(maxsize=2)(
      functools.partial(planner.submit, self._make_plan)
    )

  def __len__(self) -> int:
    return _MANY

  def _make_plan(self, epoch: int) -> _Epoch:
    random = np.random.default_rng((self._seed, epoch))
    members = [random.permutation(bucket.members) for bucket in self._buckets]
    return _Epoch(members, random.permutation(self.batches_per_epoch))

  def __getitem__(self, index: int) -> dict[str, np.ndarray]:
    """Returns batch number `index`, counted from the first epoch's start."""
    epoch, position = divmod(index, self.batches_per_epoch)
    plan = self._plan(epoch).result()
    if 2 * position >= self.batches_per_epoch:
      # Permuted beside the training, which would wait for it otherwise.
      self._plan(epoch + 1)
    number = int(plan.batches[position])
    place = int(np.searchsorted(self._first, number, side='right')) - 1
    length, num_rows = self._buckets[place].length, self._buckets[place].rows
    start = (number - int(self._first[place])) * num_rows
    rows = plan.members[place][start : start + num_rows]
    batch = self._load(rows, length, length)
    if len(rows) == num_rows:
      return batch
    # Rows of PAD have weight 0 in every loss.
    missing = num_rows - len(rows)

    def fill(array: np.ndarray) -> np.ndarray:
      more = array.shape[0] // len(rows) * missing
      zeros = np.zeros((more, *array.shape[1:]), array.dtype)
      return np.concatenate([array, zeros])

    return {name: fill(array) for name, array in batch.items()}

  def iterate(self, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches from number `start` on, without end, prepared ahead."""
    dataset = grain.MapDataset.source(self)[start:]
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    return iter(dataset.to_iter_dataset(options))
