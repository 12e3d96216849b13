"""Packs several pairs into one row of a batch, to reduce padding.

Pairs of a row do not see each other: T5X's segment ids number them, and
attention stays within a segment. Relative positions are differences within a
segment, so they need no change.

Note: dropout masks shared by all positions of a row are shared by its pairs, as
  in T5X;
without dropout a packed pair is computed as if it were alone.
"""

from collections.abc import Mapping

from jaxtyping import Int, Int64
import numpy as np

from rest_jax.data import special_ids

# The columns of a batch that hold token ids.
TOKENS = (
  'encoder_input_tokens',
  'decoder_input_tokens',
  'decoder_target_tokens',
)
ENCODER_SEGMENTS = 'encoder_segment_ids'
DECODER_SEGMENTS = 'decoder_segment_ids'


def assign(
  source_lengths: Int[np.ndarray, ' n'],
  target_lengths: Int[np.ndarray, ' n'],
  length: int,
  seed: int,
) -> Int64[np.ndarray, ' n']:
  """Assigns pairs to rows with `length` tokens per side.

  In each round the longest remaining pairs go to the rows with the most room,
  one pair per row. Rows fill evenly, and the shortest pairs fill the gaps at
  the end. Pairs of equal length are in random order, so that the pairs of a row
  are unrelated.

  Args:
    source_lengths: number of tokens with EOS, at most `length`.
    target_lengths: number of tokens with EOS, at most `length`.
    length: length of a row.
    seed: seed of the order of equal lengths.

  Returns:
    The row of each pair, numbered from 0 without gaps.
  """
  lengths = np.stack([source_lengths, target_lengths], 1).astype(np.int64)
  shuffled = np.random.default_rng(seed).permutation(len(lengths))
  longest_first = np.argsort(-lengths[shuffled].max(1), kind='stable')
  waiting = shuffled[longest_first]
  row_of = np.empty(len(lengths), np.int64)
  num_rows = 0
  while waiting.size:
    # As few rows as could hold the rest; more are opened if necessary.
    more = max(1, -(-int(lengths[waiting].sum(0).max()) // length))
    used = np.zeros((more, 2), np.int64)
    waiting = _fill(waiting, lengths, used, row_of, num_rows, length)
    num_rows += more
  return row_of


def _fill(waiting, lengths, used, row_of, first_row, length) -> np.ndarray:
  """Fills rows from `first_row` on; returns the pairs that found no room."""
  left_over = []
  while waiting.size:
    emptiest = np.argsort(used.max(1), kind='stable')[: waiting.size]
    chosen, waiting = np.split(waiting, [emptiest.size])
    # The longest goes to the row with the most room.
    fits = np.all(used[emptiest] + lengths[chosen] <= length, axis=1)
    used[emptiest[fits]] += lengths[chosen[fits]]
    row_of[chosen[fits]] = first_row + emptiest[fits]
    left_over.append(chosen[~fits])
  return np.concatenate(left_over)


def pack(
  batch: Mapping[str, np.ndarray],
  row_of: Int[np.ndarray, ' n'],
  length: int,
  pad: int = special_ids.T5.pad,
) -> dict[str, np.ndarray]:
  """Packs n padded pairs into rows with `length` tokens per side.

  Args:
    batch: T5X's four features, [n, ...]; other columns [n], one value per pair.
    row_of: row of each pair, ascending from 0 without gaps.
    length: length of a row; all pairs of a row fit into it.
    pad: the id of PAD.

  Returns:
    The features, [rows, length]; `encoder_segment_ids` and
    `decoder_segment_ids`, which number the pairs of a row from 1 and are 0 for
    padding; and each other column as [rows, length], with a pair's value at
    each of its target tokens.
  """
  sources = batch['encoder_input_tokens'] != pad  # [n, S]
  targets = batch['decoder_target_tokens'] != pad  # [n, T]
  num_rows = int(row_of[-1]) + 1
  firsts = np.searchsorted(row_of, np.arange(num_rows))
  segments = np.arange(len(row_of)) - firsts[row_of] + 1

  def places(is_token):
    """Returns the position of each token in the flattened rows."""
    lengths = is_token.sum(1)
    before = np.cumsum(lengths) - lengths
    start = row_of * length + before - before[firsts[row_of]]
    return (start[:, None] + np.arange(is_token.shape[1]))[is_token]

  def put(where, is_token, values, filling=0):
    rows = np.full(num_rows * length, filling, values.dtype)
    values = values if values.ndim == 2 else values[:, None]
    rows[where] = np.broadcast_to(values, is_token.shape)[is_token]
    return rows.reshape(num_rows, length)

  of_source, of_target = places(sources), places(targets)
  segments = segments.astype(np.int32)
  packed = {
    'encoder_input_tokens': put(
      of_source, sources, batch['encoder_input_tokens'], pad
    ),
    ENCODER_SEGMENTS: put(of_source, sources, segments),
    DECODER_SEGMENTS: put(of_target, targets, segments),
  }
  for name in batch.keys() - packed.keys():
    filling = pad if name in TOKENS else 0
    packed[name] = put(of_target, targets, batch[name], filling)
  return packed
